"""The reference harness's TSV files: text columns in memory, pictures left in the file.

One pass notes where each row begins; a picture is read again from there when it is asked for.
Cells are texts; an empty one is None. Not here: what the columns mean (official.py).
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from difftrain.evaluate.pictures import LONGEST_REFERENCE, listed
from difftrain.images import ImageError
from difftrain.pipeline.parquet import SchemaError

LARGEST_CELL = 2**31 - 1
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TsvPicture:
    """Picture `place` of the `image` cell in the row that begins at byte `start`."""

    path: Path
    start: int
    length: int
    column: int
    place: int = 0

    def read(self) -> str:
        """The picture as base64. Raises ImageError if the file has changed since it was scanned."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            lines = BytesIO(file.read(self.length))  # cut at \n only, as the scan does
        found = next(csv.reader(_lines(lines, [0]), delimiter="\t"), [])
        pictures = listed(found[self.column]) if len(found) > self.column else []
        if self.place >= len(pictures):
            raise ImageError(f"no image: {self.path} has changed since it was read")
        return pictures[self.place]


def _lines(file: BinaryIO, read: list[int]) -> Iterator[str]:
    """The file's lines as text; `read` counts the bytes that were handed out."""
    for line in file:
        read[0] += len(line)
        yield line.decode("utf-8")


def _scanned(path: Path) -> Iterator[tuple[int, int, list[str]]]:
    """(first byte, bytes, cells) of every row, the header first."""
    csv.field_size_limit(LARGEST_CELL)
    read, start = [0], 0
    with path.open("rb") as file:
        for cells in csv.reader(_lines(file, read), delimiter="\t"):
            if cells:
                yield start, read[0] - start, cells
            start = read[0]


def rows(path: Path, columns: tuple[str, ...]) -> list[Row]:
    """The rows that have a picture, `image` being one TsvPicture or a list of them.

    A cell of at most 64 characters is the index of the row whose picture is shared. Raises
    SchemaError naming missing columns, rows or lists of pictures that cannot be read, and unknown
    shared pictures.
    """
    try:
        return _rows(path, columns)
    except (csv.Error, UnicodeDecodeError) as error:
        raise SchemaError(f"{path} is no readable TSV: {error}") from error


def _rows(path: Path, columns: tuple[str, ...]) -> list[Row]:
    scanned = _scanned(path)
    _, _, header = next(scanned, (0, 0, []))
    header = [name.removeprefix("\ufeff") for name in header]
    if missing := [name for name in columns if name not in header]:
        raise SchemaError(f"{path} has no column {', '.join(missing)}; it has {', '.join(header)}")
    column = header.index("image")
    found: list[Row] = []
    own: dict[str, list[TsvPicture]] = {}
    for number, (start, length, cells) in enumerate(scanned, 1):
        if len(cells) > len(header):
            told = f"row {number} has {len(cells)} cells under {len(header)} columns"
            raise SchemaError(f"{path} is no readable TSV: {told}")
        row: Row = {
            name: cell or None
            for name, cell in zip(header, [*cells, *[""] * len(header)], strict=False)
        }
        cell, identity = row["image"], str(row["index"])
        if cell is None:
            continue
        if len(cell) > LONGEST_REFERENCE:
            try:
                several = range(len(listed(cell)))
            except ImageError as error:
                raise SchemaError(f"{path}: row {number}: {error!s}") from error
            own[identity] = [TsvPicture(path, start, length, column, place) for place in several]
            row["image"] = own[identity]
        found.append(row)
    for row in found:
        if isinstance(row["image"], str):
            if row["image"] not in own:
                told = f"row {row['index']} shares the picture of {row['image']}, which has none"
                raise SchemaError(f"{path}: {told}")
            row["image"] = own[row["image"]]
    return found
