"""Rows of official benchmarks: Hugging Face data sets (hub or folder) and the harness's TSV files.

Text columns are in memory, images stay where they are: a cell holds an ImageSource. A folder holds
what `save_to_disk` wrote, or parquet files named after their split (a clone of the hub's data set),
for MMMU in one folder per subject or all together.
Not here: what the columns mean (benchmarks/) and whether the rows are complete (items.py).
"""

import csv
import hashlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import datasets
from datasets.exceptions import DatasetsError

from difftrain.config.evaluate import ItemSource
from difftrain.data.quarantine import EmptyDatasetError
from difftrain.evaluate.item_images import MAX_REFERENCE_LENGTH, base64_texts
from difftrain.evaluate.types import OfficialSet
from difftrain.images import ImageError
from difftrain.pipeline.parquet import SchemaError

SPLITS = ("train", "test", "testmini", "dev", "validation", "val", "image", "non_image")
"""Names of splits that data sets of these benchmarks have."""
MAX_CELL_LENGTH = 2**31 - 1
Row = dict[str, Any]
"""One row: column -> value."""


class BenchmarkNotFound(EmptyDatasetError):
    """A data set could not be downloaded; the message says what to do without it."""


@dataclass(frozen=True, slots=True)
class DatasetImage:
    """The image in one cell of a data set on disk."""

    table: datasets.Dataset = field(repr=False)
    row: int
    column: str
    root: Path | None = None
    index: int | None = None
    """Position in a list of images that the cell holds as text."""

    def read(self) -> Any:
        """The cell: {bytes, path} or base64. Raises ImageError if it is empty."""
        cell = self.table[self.row][self.column]
        if cell is None:
            raise ImageError("no image: the cell is empty")
        if self.index is not None:
            return base64_texts(cell)[self.index]
        path_only = isinstance(cell, dict) and not cell.get("bytes") and cell.get("path")
        return str(self.root / cell["path"]) if path_only and self.root else cell


@dataclass(frozen=True, slots=True)
class TsvImage:
    """Image `index` of the `image` cell in the TSV row that begins at byte `start`."""

    path: Path
    start: int
    length: int
    column: int
    index: int = 0

    def read(self) -> str:
        """The image as base64. Raises ImageError if the file has changed since it was scanned."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            lines = BytesIO(file.read(self.length))  # cut at \n only, as the scan does
        cells = next(csv.reader(_lines(lines, [0]), delimiter="\t"), [])
        texts = base64_texts(cells[self.column]) if len(cells) > self.column else []
        if self.index >= len(texts):
            raise ImageError(f"no image: {self.path} has changed since it was read")
        return texts[self.index]


def from_hub(name: str, place: str, configs: Sequence[str], split: str) -> datasets.Dataset:
    """A split of a hub data set, `id` or `id@revision`. Raises BenchmarkNotFound, SchemaError."""
    hub_id, _, revision = place.partition("@")
    try:
        return datasets.concatenate_datasets(
            [
                datasets.load_dataset(hub_id, config, split=split, revision=revision or None)
                for config in configs or (None,)
            ]
        )
    except ValueError as error:
        raise SchemaError(
            f"{name}: {hub_id} has no split {split!r} of the expected form ({error})"
        ) from error
    except OSError as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BenchmarkNotFound(
            f"{name}: could not download {place} from the hub, split {split} ({reason}); without "
            f"network, copy the data set to DIR/{name}/ and set evaluate.source=folder "
            "evaluate.path=DIR, or put the reference harness's TSV into DIR and set "
            "evaluate.source=tsv evaluate.path=DIR"
        ) from error


def from_folder(name: str, folder: Path, configs: Sequence[str], split: str) -> datasets.Dataset:
    """A split of a data set in a folder. Raises SchemaError if the folder holds none."""
    inside = [folder / config for config in configs]
    folders = inside if inside and all(path.is_dir() for path in inside) else [folder]
    if saved := [saved_split(name, path, split) for path in folders if is_saved(path)]:
        return datasets.concatenate_datasets(saved)
    files = [str(path) for place in folders for path in parquet_files(place, split)]
    if not files:
        expected = "what save_to_disk writes, or parquet files"
        raise SchemaError(f"{name}: {folder} holds no split {split!r} ({expected})")
    try:
        return datasets.load_dataset("parquet", data_files=files, split="train")
    except (DatasetsError, ValueError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise SchemaError(f"{name}: {folder} holds no readable parquet ({reason})") from error


def is_saved(folder: Path) -> bool:
    """Whether save_to_disk wrote this folder."""
    return any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))


def saved_split(name: str, folder: Path, split: str) -> datasets.Dataset:
    """A split that save_to_disk wrote, alone or among others. Raises SchemaError without it."""
    if not (folder / "dataset_dict.json").is_file():
        return datasets.Dataset.load_from_disk(str(folder))
    splits = datasets.DatasetDict.load_from_disk(str(folder))
    if split not in splits:
        names = ", ".join(map(str, splits))
        raise SchemaError(f"{name}: {folder} has no split {split!r}, only {names}")
    return splits[split]


def parquet_files(folder: Path, split: str) -> list[Path]:
    """The parquet files of a split; where no file is named after a split, all of them."""

    def split_of(path: Path) -> str | None:
        names = (path.stem.split("-")[0], path.parent.name)
        return next((name for name in names if name in SPLITS), None)

    files = sorted(folder.rglob("*.parquet"))
    if any(split_of(path) for path in files):
        return [path for path in files if split_of(path) == split]
    return files


def dataset_rows(
    name: str, table: datasets.Dataset, image_columns: Sequence[str], root: Path | None
) -> Iterator[Row]:
    """The rows in order, with a DatasetImage (None where there is none) in each image column.

    Raises SchemaError naming a row whose list of images is damaged.
    """
    present = [column for column in image_columns if column in table.column_names]
    for column in present:
        if isinstance(table.features[column], datasets.Image):
            table = table.cast_column(column, datasets.Image(decode=False))
    single = {column: table.select_columns([column]) for column in present}
    for number, row in enumerate(table):
        assert isinstance(row, dict)
        for column in present:
            cell, source = row[column], (single[column], number, column, root)
            if isinstance(cell, str) and cell.startswith("["):
                try:
                    count = len(base64_texts(cell))
                except ImageError as error:
                    place = f"{root or 'the data set'}: row {number}"
                    raise SchemaError(f"{name}: {place}: {error}") from error
                row[column] = [DatasetImage(*source, index) for index in range(count)]
            else:
                row[column] = None if cell is None else DatasetImage(*source)
        yield row


def load_dataset_rows(
    name: str, official: OfficialSet, source: ItemSource, place: str
) -> list[Row]:
    """The rows of a data set, hub or folder, in the harness's columns.

    The data set may have the hub's columns or the harness's. Raises SchemaError naming missing
    columns, or a row that has no such form.
    """
    if source is ItemSource.hub:
        table, root = from_hub(name, place, official.configs, official.split), None
    else:
        root = Path(place)
        table = from_folder(name, root, official.configs, official.split)
    present = table.column_names
    if set(official.tsv_columns) <= set(present):
        return [dict(row) for row in dataset_rows(name, table, ("image",), root)]
    if missing := [column for column in official.columns if column not in present]:
        raise SchemaError(
            f"{name}: {place} has no column {', '.join(missing)}; it has {', '.join(present)}"
        )
    rows = []
    for number, row in enumerate(dataset_rows(name, table, official.image_columns, root)):
        try:
            rows.append(official.to_harness(row, number))
        except (ValueError, KeyError, TypeError) as error:
            raise SchemaError(
                f"{name}: row {number} is not of the official form: {error}"
            ) from error
    return rows


def load_tsv_rows(name: str, official: OfficialSet, path: Path) -> list[Row]:
    """The rows of the harness's file; another md5 than the published ones gives a warning."""
    if not path.is_file():
        raise SchemaError(f"{name}: {path} is not a file")
    digest = md5(path, path.stat().st_mtime_ns)
    if digest not in official.md5:
        message = f"{name}: {path} has md5 {digest}, the harness's file has {official.md5[0]}"
        warnings.warn(message, stacklevel=2)
    try:
        return tsv_rows(path, official.tsv_columns)
    except SchemaError as error:
        raise SchemaError(f"{name}: {error}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise SchemaError(f"{name}: {path} is no readable TSV: {error}") from error


@cache
def md5(path: Path, changed_ns: int) -> str:
    """A file's md5, as the harness checks it; `changed_ns` is the time of its last change."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _lines(file: BinaryIO, bytes_read: list[int]) -> Iterator[str]:
    """The file's lines as text; `bytes_read[0]` counts the bytes that were yielded."""
    for line in file:
        bytes_read[0] += len(line)
        yield line.decode("utf-8")


def _scan(path: Path) -> Iterator[tuple[int, int, list[str]]]:
    """(first byte, number of bytes, cells) of every row, the header first."""
    csv.field_size_limit(MAX_CELL_LENGTH)
    bytes_read, start = [0], 0
    with path.open("rb") as file:
        for cells in csv.reader(_lines(file, bytes_read), delimiter="\t"):
            if cells:
                yield start, bytes_read[0] - start, cells
            start = bytes_read[0]


def tsv_rows(path: Path, columns: tuple[str, ...]) -> list[Row]:
    """The rows that have an image: texts, None for an empty cell, and TsvImages in `image`.

    One pass notes where each row begins; an image is read again from there when it is needed. A
    cell of at most 64 characters is the index of the row whose image is shared. Raises SchemaError
    naming missing columns, rows or lists of images that cannot be read, and unknown shared images.
    """
    scan = _scan(path)
    _, _, header = next(scan, (0, 0, []))
    header = [name.removeprefix("\ufeff") for name in header]
    if missing := [name for name in columns if name not in header]:
        raise SchemaError(f"{path} has no column {', '.join(missing)}; it has {', '.join(header)}")
    column = header.index("image")
    rows: list[Row] = []
    images: dict[str, list[TsvImage]] = {}
    for number, (start, length, cells) in enumerate(scan, 1):
        if len(cells) > len(header):
            reason = f"row {number} has {len(cells)} cells under {len(header)} columns"
            raise SchemaError(f"{path} is no readable TSV: {reason}")
        padded = [*cells, *[""] * (len(header) - len(cells))]
        row: Row = {name: cell or None for name, cell in zip(header, padded, strict=True)}
        cell, index = row["image"], str(row["index"])
        if cell is None:
            continue
        if len(cell) > MAX_REFERENCE_LENGTH:
            try:
                count = len(base64_texts(cell))
            except ImageError as error:
                raise SchemaError(f"{path}: row {number}: {error}") from error
            row["image"] = images[index] = [
                TsvImage(path, start, length, column, i) for i in range(count)
            ]
        rows.append(row)
    for row in rows:
        if isinstance(row["image"], str):
            if row["image"] not in images:
                reason = f"row {row['index']} shares the image of {row['image']}, which has none"
                raise SchemaError(f"{path}: {reason}")
            row["image"] = images[row["image"]]
    return rows
