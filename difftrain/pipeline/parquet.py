"""Records to parquet and back: typed columns, a schema check, parts that are whole or absent.

Columns of pictures stay on disk: `read` gives records that fetch them when asked (stored.py).

A stage folder is `outputs/<stage>/<fingerprint>/`: `part-*.parquet`, and manifest.json last of all.
Not here: which stage writes what.
"""

import errno
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import cache, lru_cache
from pathlib import Path
from types import NoneType, UnionType
from typing import IO, Any, Generic, TypeVar, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from difftrain.pipeline.manifest import MANIFEST, SchemaError

R = TypeVar("R")

SIMPLE = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    bytes: pa.binary(),
}
GROUP_BYTES = 1 << 20
"""Pictures in one row group: what one access reads at least."""
PART_BYTES = 64 << 20
"""Pictures in one part: what its writer holds at most, beside the last record's."""
LONGEST_UNWRITTEN_SECONDS = 30.0


class MissingArtifact(FileNotFoundError):
    """A stage's input is not there; the message names the command that makes it."""


def column_type(hint: Any) -> pa.DataType:
    """The parquet type of a field's type. Tuples become lists; floats in them have 32 bits."""
    if get_origin(hint) is UnionType:
        (inner,) = (each for each in get_args(hint) if each is not NoneType)
        return column_type(inner)
    if get_origin(hint) in (tuple, Sequence):
        inner = get_args(hint)[0]
        if inner is float:
            return pa.list_(pa.float32())
        return pa.list_(pa.int32() if inner is int else column_type(inner))
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return pa.string()
    return SIMPLE[hint]


@cache
def schema(record: type) -> pa.Schema:
    """The parquet schema of a record: one column a field, in order."""
    hints = get_type_hints(record)
    return pa.schema([(field.name, column_type(hints[field.name])) for field in fields(record)])


def reader(hint: Any) -> Any:
    """How a parquet value becomes a field's value: enums by name, lists as tuples."""
    if get_origin(hint) is UnionType:
        (inner,) = (each for each in get_args(hint) if each is not NoneType)
        convert = reader(inner)
        return lambda value: None if value is None else convert(value)
    if get_origin(hint) in (tuple, Sequence):
        convert = reader(get_args(hint)[0])
        return lambda values: tuple(convert(value) for value in values)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return hint
    return lambda value: value


@cache
def pictured(record: type) -> tuple[str, ...]:
    """The record's columns of lists of bytes, which are read only when asked for."""
    hints = get_type_hints(record)
    return tuple(
        each.name
        for each in fields(record)
        if column_type(hints[each.name]) == pa.list_(pa.binary())
    )


def weight(record: Any) -> int:
    """Bytes of the record's pictures."""
    names = pictured(type(record))
    return sum(len(picture) for name in names for picture in getattr(record, name))


def rows_per_group(records: Sequence[Any]) -> int | None:
    """Rows whose pictures fill about GROUP_BYTES; None (one group) for a record without any."""
    if not pictured(type(records[0])):
        return None
    return max(1, len(records) * GROUP_BYTES // max(1, sum(map(weight, records))))


def write_groups(file: IO[bytes], records: Sequence[Any]) -> None:
    """Write the records row group by row group, so that Arrow holds no more than one of them."""
    kind = type(records[0])
    apart = pictured(kind)
    # A dictionary of pictures would be as large as they are.
    words: Any = [each for each in schema(kind).names if each not in apart] if apart else True
    size = rows_per_group(records) or len(records)
    with pq.ParquetWriter(file, schema(kind), use_dictionary=words) as writer:
        for start in range(0, len(records), size):
            group = records[start : start + size]
            columns = {name: [getattr(each, name) for each in group] for name in schema(kind).names}
            writer.write_table(pa.table(columns, schema=schema(kind)), row_group_size=size)
    if apart:
        pa.default_memory_pool().release_unused()


def write_part(folder: Path, name: str, records: Sequence[Any]) -> Path:
    """Write `part-<name>.parquet` so that it is there whole or not at all.

    Raises OSError with the folder and the number of rows in its message when the disk is full.
    """
    if not records:
        raise ValueError("a part must hold at least one record")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"part-{name}.parquet"
    half = folder / f".part-{name}.{os.getpid()}.tmp"
    try:
        with half.open("wb") as file:
            write_groups(file, records)
            file.flush()
            os.fsync(file.fileno())
        half.replace(path)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            told = (
                f"no space left for {len(records)} rows in {folder}; what was written stays valid"
            )
            raise OSError(errno.ENOSPC, told) from error
        raise
    finally:
        half.unlink(missing_ok=True)
    return path


def parts(folder: Path) -> list[Path]:
    """The finished parts of a stage folder, in name order; empty if there are none."""
    return sorted(folder.glob("part-*.parquet"))


def read_part(path: Path, record: type[R]) -> list[R]:
    """The records of one part. Raises SchemaError if its columns are not the record's."""
    file = pq.ParquetFile(path)
    if not file.schema_arrow.equals(schema(record)):
        raise SchemaError(
            f"{path} holds {file.schema_arrow.names}, but {record.__name__} needs "
            f"{schema(record).names}"
        )
    hints = get_type_hints(record)
    apart = pictured(record)
    names = [each.name for each in fields(record)]  # pyright: ignore[reportArgumentType]
    readers = {name: reader(hints[name]) for name in names if name not in apart}
    table = file.read(columns=list(readers))
    columns = {name: table.column(name).to_pylist() for name in readers}
    unread = {name: lazy_images(file.metadata, path, name) for name in apart}
    return [
        record(
            **{name: convert(columns[name][row]) for name, convert in readers.items()},
            **{name: cells[row] for name, cells in unread.items()},
        )
        for row in range(table.num_rows)
    ]


def columns(path: Path, names: Sequence[str]) -> list[list[Any]]:
    """Some columns of one part, in the order of the names; the others are not read."""
    table = pq.read_table(path, columns=list(names))
    return [table.column(name).to_pylist() for name in names]


def read(folder: Path, record: type[R]) -> list[R]:
    """All records of a stage folder, finished or not, in part order."""
    return [each for path in parts(folder) for each in read_part(path, record)]


def read_finished(folder: Path, record: type[R], made_by: str) -> list[R]:
    """All records of a finished stage. Raises MissingArtifact naming the command `made_by`."""
    if not (folder / MANIFEST).is_file():
        raise MissingArtifact(f"no {record.__name__} rows at {folder}: run  {made_by}")
    return read(folder, record)


def next_part(folder: Path, rank: int) -> str:
    """A part name that this rank has not used yet in this folder.

    Its last letters are drawn, so that no other process can write over it.
    """
    taken = [path.stem.split("-")[2] for path in folder.glob(f"part-r{rank:03d}-*.parquet")]
    number = max(map(int, taken), default=-1) + 1
    return f"r{rank:03d}-{number:05d}-{secrets.token_hex(3)}"


def in_parts(records: Iterable[R], rows_per_part: int) -> Iterator[list[R]]:
    """The records in lists of at most so many rows and, but for the last row, PART_BYTES."""
    pending, held = [], 0
    for record in records:
        pending.append(record)
        held += weight(record)
        if len(pending) == rows_per_part or held >= PART_BYTES:
            yield pending
            pending, held = [], 0
    if pending:
        yield pending


def write_all(folder: Path, records: Iterable[R], rows_per_part: int = 2000) -> int:
    """Write the records of a stage that one process makes at once; returns how many."""
    total = 0
    for number, part in enumerate(in_parts(records, rows_per_part)):
        write_part(folder, f"{number:05d}", part)
        total += len(part)
    return total


class Unwritten(Generic[R]):
    """Answers that are not on disk yet, a killed process's loss: `write` gets them by the `most`,
    or when the first of them has waited for LONGEST_UNWRITTEN_SECONDS.
    """

    def __init__(self, write: Callable[[list[R]], None], most: int) -> None:
        self._write, self.most = write, most
        self.rows: list[R] = []
        self.since = time.monotonic()

    def add(self, row: R) -> None:
        """Keep a row until there are enough."""
        if not self.rows:
            self.since = time.monotonic()
        self.rows.append(row)
        if len(self.rows) >= self.most:
            self.write()

    def write_if_late(self) -> None:
        """Write what there is if its first row has waited for long."""
        if time.monotonic() - self.since > LONGEST_UNWRITTEN_SECONDS:
            self.write()

    def write(self) -> None:
        """Write what there is."""
        if self.rows:
            self._write(self.rows)
        self.rows = []


CACHED_ROW_GROUPS = 4
"""Row groups held in memory, about a megabyte each."""


@lru_cache(maxsize=CACHED_ROW_GROUPS)
def cached_row_group(path: str, stamp: tuple[int, ...], group: int, column: str) -> Any:
    """One column of one row group; `stamp` tells a file from another that took its place."""
    del stamp
    return pq.ParquetFile(path).read_row_group(group, columns=[column]).column(column)


@dataclass(frozen=True, slots=True, eq=False)
class LazyImages(Sequence[bytes]):
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
        cells = cached_row_group(str(self.path), stamp, self.group, self.column)
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


def lazy_images(metadata: pq.FileMetaData, path: Path, column: str) -> list[LazyImages]:
    """Every cell of a column of lists of bytes; nothing of them is read."""
    return [
        LazyImages(path, column, group, row)
        for group in range(metadata.num_row_groups)
        for row in range(metadata.row_group(group).num_rows)
    ]
