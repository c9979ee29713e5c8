"""Reads the rows of jsonl, json, parquet, arrow, csv and tsv files one by one, without loading a
whole file.

A row's location is "FILE:NUMBER", counted from 1: lines in a jsonl, rows in other files. A row that
is not a JSON object is replaced by a RowError with the reason. formats.py interprets the rows.
"""

import codecs
import csv
import io
import json
from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from difftrain.data.quarantine import RowError
from difftrain.data.storage import Folder, Storage

MAX_ROW_BYTES = 64 << 20  # a longer line or array element is rejected before it fills memory
TOO_LONG = f"row too long: over {MAX_ROW_BYTES >> 20} MiB; keep images in files of their own"
MAX_OBJECT_BYTES = 256 << 20  # an object with all rows is in memory as a whole
LINES_OR_ARRAY = "write one JSON object per line, or one array of objects"
MESSAGE_KEYS = {"messages", "conversations", "prompt"}  # their lists are turns, not rows
CHUNK_BYTES = 1 << 20
BATCH_ROWS = 16  # rows of a parquet or arrow file that are in memory at a time
ARROW_FILE_MAGIC = b"ARROW1"  # the start of Arrow's file format; `save_to_disk` writes streams

Row = dict[str, Any]


def read_rows(storage: Storage, names: list[str]) -> Iterator[tuple[str, Row | RowError]]:
    """Yields (location, row) for all rows of these files, in order."""
    for name in names:
        with storage.open(name) as file:
            if name.endswith(".parquet"):
                rows = _read_parquet(file)
            elif name.endswith(".arrow"):
                path = storage.root / name if isinstance(storage, Folder) else None
                rows = _read_arrow(file if path is None else pa.memory_map(str(path)))
            elif name.endswith((".csv", ".tsv")):
                rows = _read_table(file, "," if name.endswith(".csv") else "\t")
            elif name.endswith(".json"):
                rows = _read_array(file) if _is_array(file) else _read_objects(file)
            else:
                rows = _read_lines(file)
            row_number = 0
            try:
                for row_number, row in enumerate(rows, 1):
                    if row is not None:
                        yield f"{name}:{row_number}", row
            except RowError as error:  # the rest of the file cannot be read
                yield f"{name}:{row_number + 1}", error


def _is_array(file: IO[bytes]) -> bool:
    """Whether a .json holds one array (its `[` is then consumed) and not one object per line."""
    while (first := file.read(1)).isspace() or first in (b"\xef", b"\xbb", b"\xbf"):
        pass  # skip white space and the three bytes of a UTF-8 byte order mark
    if first != b"[":
        file.seek(0)
    return first == b"["


def _read_objects(file: IO[bytes]) -> Iterator[Row | RowError | None]:
    """Yields the object of each line, or those in the only list of one object: `{"data": [...]}`.

    Raises RowError if one object covers several lines and has no such list.
    """
    first, second = _filled_line(file), _filled_line(file)
    file.seek(0)
    value, problem = _parse_object(first)
    has_rows = value is not None and not second and _is_list_of_objects(value.get("data"))
    covers_lines = value is None and bool(second) and first.startswith(b"{")
    if covers_lines and _parse_object(second)[0] is None:  # else only the first line is damaged
        text = file.read(MAX_OBJECT_BYTES)
        file.seek(0)
        value, problem = _parse_object(text.removeprefix(codecs.BOM_UTF8))
        if len(text) == MAX_OBJECT_BYTES:
            problem = f"over {MAX_OBJECT_BYTES >> 20} MiB in one object"
        if value is None:
            raise RowError(f"not JSON: {problem}; {LINES_OR_ARRAY}")
        has_rows = True
    if value is None or not has_rows:
        yield from _read_lines(file)
        return
    lists = [key for key, rows in value.items() if _is_list_of_objects(rows)]
    if len(lists) != 1 or lists[0] in MESSAGE_KEYS:
        found = ", ".join(lists) or "none"
        raise RowError(f"no rows: lists of objects in the file's object: {found}; {LINES_OR_ARRAY}")
    for element in value[lists[0]]:
        yield _check_object(element, "element")


def _filled_line(file: IO[bytes]) -> bytes:
    """The next line that is not blank, without white space around it; empty at the end."""
    while line := file.readline(MAX_ROW_BYTES):
        if text := line.removeprefix(codecs.BOM_UTF8).strip():
            return text
    return b""


def _parse_object(text: bytes) -> tuple[Row | None, str]:
    """The JSON object, or None and the problem."""
    try:
        value = json.loads(text)
    except RecursionError:
        return None, "nested too deeply"
    except ValueError as error:
        return None, str(error)
    return (value, "") if isinstance(value, dict) else (None, "not an object")


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _read_lines(file: IO[bytes]) -> Iterator[Row | RowError | None]:
    """Yields the object of each line, None for a blank line."""
    while line := file.readline(MAX_ROW_BYTES):
        if len(line) == MAX_ROW_BYTES and not line.endswith(b"\n"):
            while (rest := file.readline(MAX_ROW_BYTES)) and not rest.endswith(b"\n"):
                pass  # skip the rest of the line
            yield RowError(TOO_LONG)
        elif not line.strip():
            yield None
        else:
            try:
                yield _check_object(json.loads(line.decode("utf-8-sig")), "line")
            except RecursionError:
                yield RowError("not JSON: nested too deeply")
            except ValueError as error:
                yield RowError(f"not JSON: {error}")


def _check_object(value: Any, unit: str) -> Row | RowError:
    """The value if it is an object that UTF-8 can encode, else a RowError with the reason."""
    try:
        # JSON allows half a surrogate pair, UTF-8 does not.
        json.dumps(value, ensure_ascii=False).encode()
    except ValueError as error:
        return RowError(f"not JSON: {error}")
    problem = f"not an object: the {unit} is a {type(value).__name__}, not {{...}}"
    return value if isinstance(value, dict) else RowError(problem)


def _read_array(file: IO[bytes]) -> Iterator[Row | RowError]:
    """Yields the elements of a JSON array after its `[`. Raises RowError at a damaged element."""
    decode = codecs.getincrementaldecoder("utf-8")().decode
    scanner, buffer, chunk_bytes, at_end = json.JSONDecoder(), "", CHUNK_BYTES, False
    while not (buffer := buffer.lstrip(" \t\r\n,")).startswith("]"):
        try:
            value, end = scanner.raw_decode(buffer)
        except RecursionError as error:
            message = "not JSON: nested too deeply; the rest of the array is not read"
            raise RowError(message) from error
        except ValueError as error:
            if at_end:
                raise RowError(f"not JSON: {error}; the rest of the array is not read") from error
            value, end = None, len(buffer)  # the element is incomplete: read more
        # A number at the end of the buffer may have more digits in the next chunk.
        if end < len(buffer) or at_end:
            yield _check_object(value, "element")
            buffer, chunk_bytes = buffer[end:], CHUNK_BYTES
            continue
        if len(buffer) > MAX_ROW_BYTES:
            raise RowError(TOO_LONG)
        try:  # chunk_bytes doubles, so that a large element is parsed only a few times
            chunk = file.read(chunk_bytes)
            buffer += decode(chunk, not chunk)
        except UnicodeDecodeError as error:
            raise RowError(f"not JSON: {error}; the rest of the array is not read") from error
        at_end, chunk_bytes = not chunk, min(chunk_bytes * 2, MAX_ROW_BYTES)


def _read_parquet(file: IO[bytes]) -> Iterator[Row]:
    """Yields the rows, BATCH_ROWS in memory at a time. Raises RowError if the file is damaged."""
    try:
        table = pq.ParquetFile(file, buffer_size=CHUNK_BYTES, pre_buffer=False)
        for batch in table.iter_batches(batch_size=BATCH_ROWS):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise _broken_file_error("parquet", error) from error


def _read_arrow(file: Any) -> Iterator[Row]:
    """Yields the rows of a file in Arrow's stream or file format. Raises RowError if it is damaged.

    A batch may have a thousand rows with images: of a memory map, only the rows in use are loaded.
    """
    try:
        magic = file.read(len(ARROW_FILE_MAGIC))
        file.seek(0)
        is_file_format = magic == ARROW_FILE_MAGIC
        reader = pa.ipc.open_file(file) if is_file_format else pa.ipc.open_stream(file)
        numbers = range(reader.num_record_batches) if is_file_format else None
        batches = reader if numbers is None else map(reader.get_batch, numbers)
        for batch in batches:
            for start in range(0, batch.num_rows, BATCH_ROWS):
                yield from batch.slice(start, BATCH_ROWS).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise _broken_file_error("arrow", error) from error


def _broken_file_error(file_format: str, error: Exception) -> RowError:
    message = str(error).splitlines()[0] if str(error) else type(error).__name__
    return RowError(f"broken file: no readable {file_format} from here on ({message})")


def _read_table(file: IO[bytes], delimiter: str) -> Iterator[Row | RowError | None]:
    """Yields the rows of a csv or tsv by its header; an empty cell is None.

    Raises RowError if two columns have one name, or the rest of the file cannot be read.
    """
    csv.field_size_limit(MAX_ROW_BYTES)  # the default is too small for an image in base64
    lines = _short_lines(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""))
    at_end: list[bool] = []
    try:
        # strict=True would end the file at a cell like `"Stop" sign?`.
        rows = csv.reader(_noting_end(lines, at_end), delimiter=delimiter, strict=False)
        names = next(rows, [])
        if repeated := [name for name in dict.fromkeys(names) if name and names.count(name) > 1]:
            rule = "rename or drop all but one"
            raise RowError(f"ambiguous columns: several are named {', '.join(repeated)}; {rule}")
        for cells in rows:
            if at_end:  # the reader looked for the rest of this row
                raise csv.Error("a quote is not closed")
            if not cells:
                yield None
            elif len(cells) != len(names):
                yield RowError(f"broken row: {len(cells)} cells, but {len(names)} columns")
            else:
                yield {n: cell or None for n, cell in zip(names, cells, strict=True)}
    except (csv.Error, UnicodeDecodeError) as error:
        raise RowError(f"broken file: no readable table from here on ({error})") from error


def _noting_end(lines: Iterator[str], at_end: list[bool]) -> Iterator[str]:
    """The lines; `at_end` gets an entry once the caller has read past the last."""
    yield from lines
    at_end.append(True)


def _short_lines(text: IO[str]) -> Iterator[str]:
    """The lines of a text. Raises RowError at one that would fill memory."""
    while line := text.readline(MAX_ROW_BYTES):
        if len(line) == MAX_ROW_BYTES and not line.endswith("\n"):
            raise RowError(TOO_LONG)
        yield line
