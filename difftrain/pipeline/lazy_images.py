"""Pictures that stay on disk: a record knows where its row lies and reads it when asked.

A pool of fifty thousand samples then costs its words in memory, not its pictures. The last few
row groups that were read are kept, because neighbours are often asked for together.
Not here: how parts are written, in row groups of about a megabyte (artifacts.py).
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

GROUPS_KEPT = 4
"""Row groups held in memory, about a megabyte each."""


@lru_cache(maxsize=GROUPS_KEPT)
def row_group(path: str, stamp: tuple[int, ...], group: int, column: str) -> Any:
    """One column of one row group; `stamp` tells a file from another that took its place."""
    del stamp
    return pq.ParquetFile(path).read_row_group(group, columns=[column]).column(column)


@dataclass(frozen=True, slots=True, eq=False)
class Stored(Sequence[bytes]):
    """The bytes in one cell of a parquet column, read at every access; equal to their tuple.

    Raises FileNotFoundError when the part is gone.
    """

    path: Path
    column: str
    group: int
    row: int

    def read(self) -> tuple[bytes, ...]:
        """All of the cell."""
        status = os.stat(self.path)
        stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
        cells = row_group(str(self.path), stamp, self.group, self.column)
        return tuple(cells[self.row].as_py())

    def __len__(self) -> int:
        return len(self.read())

    def __getitem__(self, place: Any) -> Any:
        return self.read()[place]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.read())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self.read() == tuple(other)

    def __hash__(self) -> int:
        return hash(self.read())


def cells(metadata: pq.FileMetaData, path: Path, column: str) -> list[Stored]:
    """Every cell of a column of lists of bytes; nothing of them is read."""
    return [
        Stored(path, column, group, row)
        for group in range(metadata.num_row_groups)
        for row in range(metadata.row_group(group).num_rows)
    ]
