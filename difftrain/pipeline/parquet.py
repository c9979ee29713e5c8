"""Write records (dataclasses) to parquet parts, and read them back with a check of the schema.

A stage's folder is `<output_dir>/<stage>/<fingerprint>/`: `part-*.parquet`, and manifest.json last.
Images stay on disk: a record reads its images at each access, so that fifty thousand samples need
only the memory of their text.
"""

import errno
import itertools
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

from difftrain.pipeline.manifest import MANIFEST, SchemaError, atomic_file
from difftrain.pipeline.stop_request import note_saved

R = TypeVar("R")

SCALARS = {str: pa.string(), bytes: pa.binary(), bool: pa.bool_()}
SCALARS |= {int: pa.int64(), float: pa.float64()}
LIST_ITEMS = {int: pa.int32(), float: pa.float32()}  # numbers in lists have 32 bits
GROUP_BYTES = 1 << 20  # bytes of images in a row group, which one access reads as a whole
CACHED_ROW_GROUPS = 4  # row groups kept in memory, because neighbors are often read together
PART_BYTES = 64 << 20  # bytes of images after which a part ends; the writer keeps them in memory
MAX_BUFFER_SECONDS = 30.0  # how long a row may wait in a PartBuffer (write_if_late)


class MissingArtifact(FileNotFoundError):
    """A stage's input does not exist; the message names the command that makes it."""


def _column_type(hint: Any) -> tuple[pa.DataType, Callable[[Any], Any]]:
    """The parquet type of a field, and a function that converts a parquet value to the field's."""
    if get_origin(hint) is UnionType:
        (inner,) = (member for member in get_args(hint) if member is not NoneType)
        data_type, convert = _column_type(inner)
        return data_type, lambda value: None if value is None else convert(value)
    if get_origin(hint) in (tuple, Sequence):
        inner = get_args(hint)[0]
        data_type, convert = _column_type(inner)
        item_type = LIST_ITEMS.get(inner, data_type)
        return pa.list_(item_type), lambda values: tuple(map(convert, values))
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return pa.string(), hint
    return SCALARS[hint], lambda value: value


@cache
def schema(record: type) -> pa.Schema:
    """The parquet schema of a record class: one column per field, in order."""
    hints = get_type_hints(record)
    return pa.schema([(field.name, _column_type(hints[field.name])[0]) for field in fields(record)])


@cache
def _image_columns(record: type) -> tuple[str, ...]:
    return tuple(field.name for field in schema(record) if field.type == pa.list_(pa.binary()))


def _image_bytes(record: Any) -> int:
    names = _image_columns(type(record))
    return sum(len(image) for name in names for image in getattr(record, name))


def _write_groups(file: IO[bytes], records: Sequence[Any]) -> None:
    """Write the records row group by row group, so that Arrow holds only one group at a time."""
    record_type, group_rows = type(records[0]), len(records)
    images, names = _image_columns(record_type), schema(record_type).names
    if images:
        total_bytes = max(1, sum(map(_image_bytes, records)))
        group_rows = max(1, group_rows * GROUP_BYTES // total_bytes)
    # Dictionary encoding would not make images smaller.
    dictionary_columns: Any = [name for name in names if name not in images] if images else True
    types = schema(record_type)
    with pq.ParquetWriter(file, types, use_dictionary=dictionary_columns) as writer:
        for start in range(0, len(records), group_rows):
            group = records[start : start + group_rows]
            columns = {name: [getattr(record, name) for record in group] for name in names}
            writer.write_table(pa.table(columns, schema=types), row_group_size=group_rows)
    if images:
        pa.default_memory_pool().release_unused()  # Arrow would keep the memory


def write_part(folder: Path, name: str, records: Sequence[Any]) -> Path:
    """Write `part-<name>.parquet` completely or not at all.

    If the disk is full, raises OSError whose message names the folder and the number of rows.
    """
    if not records:
        raise ValueError("a part must hold at least one record")
    path = folder / f"part-{name}.parquet"
    try:
        with atomic_file(path, "wb") as file:
            _write_groups(file, records)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        message = f"no space left for {len(records)} rows in {folder}; finished parts stay valid"
        raise OSError(errno.ENOSPC, message) from error
    note_saved()
    return path


def parts(folder: Path) -> list[Path]:
    """The finished parts of a stage's folder, in name order; empty if there are none."""
    return sorted(folder.glob("part-*.parquet"))


def read_part(path: Path, record: type[R]) -> list[R]:
    """The records of one part. Raises SchemaError if it has other columns than the record."""
    file = _open_part(path, record)
    groups = range(file.num_row_groups)
    cells = [(g, row) for g in groups for row in range(file.metadata.row_group(g).num_rows)]
    return _to_records(path, record, file.read(columns=_text_columns(record)), cells)


def read_rows_at(path: Path, record: type[R], rows: Sequence[int]) -> list[R]:
    """The records in these rows of a part, in rising order; reads only their row groups.

    Raises SchemaError if the part has other columns than the record.
    """
    file, first, records, names = _open_part(path, record), 0, [], _text_columns(record)
    for group in range(file.num_row_groups):
        last = first + file.metadata.row_group(group).num_rows
        if in_group := sorted(row - first for row in rows if first <= row < last):
            table = file.read_row_group(group, columns=names).take(in_group)
            records += _to_records(path, record, table, [(group, row) for row in in_group])
        first = last
    return records


def _open_part(path: Path, record: type) -> pq.ParquetFile:
    file, names = pq.ParquetFile(path), schema(record).names
    if not file.schema_arrow.equals(schema(record)):
        problem = f"{path} holds {file.schema_arrow.names}, but {record.__name__} needs {names}"
        raise SchemaError(problem)
    return file


def _text_columns(record: type) -> list[str]:
    """The columns that are read at once; images are not."""
    return [name for name in schema(record).names if name not in _image_columns(record)]


def _to_records(
    path: Path, record: type[R], table: pa.Table, cells: Sequence[tuple[int, int]]
) -> list[R]:
    """The table's rows as records; `cells` are their row groups and rows in the part."""
    hints, names = get_type_hints(record), schema(record).names
    columns: dict[str, Iterable[Any]] = {
        name: map(_column_type(hints[name])[1], table.column(name).to_pylist())
        for name in table.column_names
    }
    for name in _image_columns(record):
        columns[name] = [LazyImages(path, name, *cell) for cell in cells]
    rows = zip(*(columns[name] for name in names), strict=True)
    return [record(**dict(zip(names, row, strict=True))) for row in rows]


def read_columns(path: Path, names: Sequence[str]) -> list[list[Any]]:
    """The named columns of one part, in this order; other columns are not read."""
    table = pq.read_table(path, columns=list(names))
    return [table.column(name).to_pylist() for name in names]


def read_rows(folder: Path, record: type[R]) -> list[R]:
    """All records in a stage's folder, finished or not, in the order of the parts."""
    return [row for path in parts(folder) for row in read_part(path, record)]


def read_finished(folder: Path, record: type[R], made_by: str) -> list[R]:
    """All records of a finished stage. Raises MissingArtifact naming the command `made_by`."""
    if not (folder / MANIFEST).is_file():
        raise MissingArtifact(f"no {record.__name__} rows at {folder}: run  {made_by}")
    return read_rows(folder, record)


def next_part_name(folder: Path, rank: int) -> str:
    """A part name that this rank has not used yet in this folder.

    Example: r003-00012-a1b2c3 for part 12 of rank 3. Its random end is different in any process.
    """
    numbers = [int(path.stem.split("-")[2]) for path in folder.glob(f"part-r{rank:03d}-*.parquet")]
    return f"r{rank:03d}-{max(numbers, default=-1) + 1:05d}-{secrets.token_hex(3)}"


def write_all(folder: Path, records: Iterable[Any], rows_per_part: int = 2000) -> int:
    """Write all records of a stage from a single process; returns their number.

    A part ends after `rows_per_part` rows, or as soon as its images reach PART_BYTES.
    """
    total, remaining = 0, iter(records)
    for number in itertools.count():
        part, size = [], 0
        for record in remaining:
            part.append(record)
            size += _image_bytes(record)
            if len(part) == rows_per_part or size >= PART_BYTES:
                break
        if not part:
            break
        write_part(folder, f"{number:05d}", part)
        total += len(part)
    return total


class PartBuffer(Generic[R]):
    """Collects rows and passes them to `write_rows`; a killed process loses the rows in it.

    `add` writes once there are `size` rows, write_if_late if the oldest row waited too long.
    """

    def __init__(self, write_rows: Callable[[list[R]], None], size: int) -> None:
        self._write_rows, self.size = write_rows, size
        self.rows: list[R] = []
        self.since = time.monotonic()

    def add(self, row: R) -> None:
        if not self.rows:
            self.since = time.monotonic()
        self.rows.append(row)
        if len(self.rows) >= self.size:
            self.write()

    def write_if_late(self) -> None:
        if time.monotonic() - self.since > MAX_BUFFER_SECONDS:
            self.write()

    def write(self) -> None:
        if self.rows:
            self._write_rows(self.rows)
        self.rows = []


@lru_cache(maxsize=CACHED_ROW_GROUPS)
def _cached_row_group(path: str, stamp: tuple[int, ...], group: int, column: str) -> Any:
    """One column of one row group; a different `stamp` means that the file was replaced."""
    del stamp
    return pq.ParquetFile(path).read_row_group(group, columns=[column]).column(column)


@dataclass(frozen=True, slots=True, eq=False)
class LazyImages(Sequence[bytes]):
    """The images in one cell of a parquet column, read at each access; equal to a tuple of them.

    Raises FileNotFoundError if the part no longer exists.
    """

    path: Path
    column: str
    group: int
    row: int

    def read(self) -> tuple[bytes, ...]:
        status = os.stat(self.path)
        stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
        cells = _cached_row_group(str(self.path), stamp, self.group, self.column)
        return tuple(cells[self.row].as_py())

    def __len__(self) -> int:
        return len(self.read())

    def __getitem__(self, index: Any) -> Any:
        return self.read()[index]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.read())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self.read() == tuple(other)

    def __hash__(self) -> int:
        return hash(self.read())
