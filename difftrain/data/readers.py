"""Reading rows of jsonl, json and parquet files one by one; a file is never in memory whole.

Every row comes with its place ("FILE:NUMBER", lines of a jsonl, rows elsewhere, from 1), and is an
object or the RowError that says why it is none. Not here: what a row means (formats.py).
"""

import codecs
import json
from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from difftrain.data.quarantine import RowError
from difftrain.data.storage import Storage

MAX_ROW_BYTES = 64 << 20
"""A longer line or element is rejected without being read to its end."""
TOO_LONG = f"row too long: over {MAX_ROW_BYTES >> 20} MiB; keep images in files of their own"
CHUNK_BYTES = 1 << 20

Row = dict[str, Any]


def read_rows(storage: Storage, names: list[str]) -> Iterator[tuple[str, Row | RowError]]:
    """The rows of these files, in order, each with its place."""
    for name in names:
        with storage.open(name) as file:
            if name.endswith(".parquet"):
                rows = read_parquet(file)
            else:
                rows = read_array(file) if is_array(file, name) else read_lines(file)
            for number, row in rows:
                yield f"{name}:{number}", row


def is_array(file: IO[bytes], name: str) -> bool:
    """Whether a .json holds one array, whose bracket is then read; some hold lines."""
    if not name.endswith(".json"):
        return False
    while (first := file.read(1)).isspace() or first in (b"\xef", b"\xbb", b"\xbf"):
        pass
    if first != b"[":
        file.seek(0)
    return first == b"["


def read_lines(file: IO[bytes]) -> Iterator[tuple[int, Row | RowError]]:
    """One object a line; blank lines are no rows."""
    number = 0
    while line := file.readline(MAX_ROW_BYTES):
        number += 1
        if len(line) == MAX_ROW_BYTES and not line.endswith(b"\n"):
            while (rest := file.readline(MAX_ROW_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield number, RowError(TOO_LONG)
        elif line.strip():
            try:
                yield number, check_object(json.loads(line.decode("utf-8-sig")), "line")
            except RecursionError:
                yield number, RowError("not JSON: nested too deeply")
            except ValueError as error:
                yield number, RowError(f"not JSON: {error}")


def check_object(value: Any, what: str) -> Row | RowError:
    """The value if it is an object that can be written to a file, or why it is not."""
    try:
        # Half a surrogate pair is valid JSON, but cannot be encoded as UTF-8.
        json.dumps(value, ensure_ascii=False).encode()
    except ValueError as error:
        return RowError(f"not JSON: {error}")
    problem = f"not an object: the {what} is a {type(value).__name__}, not {{...}}"
    return value if isinstance(value, dict) else RowError(problem)


def read_array(file: IO[bytes]) -> Iterator[tuple[int, Row | RowError]]:
    """The elements of one JSON array after its opening bracket.

    An element that cannot be parsed ends the array, because the next one cannot be found.
    """
    decode = codecs.getincrementaldecoder("utf-8")().decode
    scanner, buffer, number, step = json.JSONDecoder(), "", 1, CHUNK_BYTES
    at_end = False
    while not (buffer := buffer.lstrip(" \t\r\n,")).startswith("]"):
        try:
            value, end = scanner.raw_decode(buffer)
        except RecursionError:
            yield number, RowError("not JSON: nested too deeply; the rest of the array is lost")
            return
        except ValueError as error:
            if at_end:
                yield number, RowError(f"not JSON: {error}; the array stops here")
                return
            value, end = None, len(buffer)
        # A number at the very end of the buffer may have further digits.
        if end < len(buffer) or at_end:
            yield number, check_object(value, "element")
            buffer, number, step = buffer[end:], number + 1, CHUNK_BYTES
            continue
        if len(buffer) > MAX_ROW_BYTES:
            yield number, RowError(TOO_LONG)
            return
        try:
            chunk = file.read(step)
            buffer += decode(chunk, not chunk)
        except UnicodeDecodeError as error:
            yield number, RowError(f"not JSON: {error}; the rest of the array is lost")
            return
        at_end, step = not chunk, min(step * 2, MAX_ROW_BYTES)


def read_parquet(file: IO[bytes]) -> Iterator[tuple[int, Row | RowError]]:
    """The rows of a parquet file; pages are read as they are needed, not whole columns.

    A file that is damaged or no parquet at all gives one RowError.
    """
    number = 0
    try:
        table = pq.ParquetFile(file, buffer_size=CHUNK_BYTES, pre_buffer=False)
        for batch in table.iter_batches(batch_size=16):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (pa.ArrowException, OSError) as error:
        message = str(error).splitlines()[0]
        yield number + 1, RowError(f"broken file: no readable parquet from here on ({message})")
