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

MAX_ROW_BYTES = 64 << 20  # a longer line or element is rejected without being read to its end
TOO_LONG = f"row too long: over {MAX_ROW_BYTES >> 20} MiB; keep images in files of their own"
CHUNK_BYTES = 1 << 20

Row = dict[str, Any]


def read_rows(storage: Storage, names: list[str]) -> Iterator[tuple[str, Row | RowError]]:
    """The rows of these files, in order, each with its place."""
    for name in names:
        with storage.open(name) as file:
            if name.endswith(".parquet"):
                rows = _read_parquet(file)
            else:
                is_array = name.endswith(".json") and _is_array(file)
                rows = _read_array(file) if is_array else _read_lines(file)
            number = 0
            try:
                for number, row in enumerate(rows, 1):
                    if row is not None:
                        yield f"{name}:{number}", row
            except RowError as error:  # the next row cannot be found
                yield f"{name}:{number + 1}", error


def _is_array(file: IO[bytes]) -> bool:
    """Whether a .json holds one array, whose bracket is then read; some hold lines."""
    while (first := file.read(1)).isspace() or first in (b"\xef", b"\xbb", b"\xbf"):
        pass
    if first != b"[":
        file.seek(0)
    return first == b"["


def _read_lines(file: IO[bytes]) -> Iterator[Row | RowError | None]:
    """One object a line; None for a blank one."""
    while line := file.readline(MAX_ROW_BYTES):
        if len(line) == MAX_ROW_BYTES and not line.endswith(b"\n"):
            while (rest := file.readline(MAX_ROW_BYTES)) and not rest.endswith(b"\n"):
                pass
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


def _check_object(value: Any, what: str) -> Row | RowError:
    """The value if it is an object that can be written to a file, or why it is not."""
    try:
        # Half a surrogate pair is valid JSON, but cannot be encoded as UTF-8.
        json.dumps(value, ensure_ascii=False).encode()
    except ValueError as error:
        return RowError(f"not JSON: {error}")
    problem = f"not an object: the {what} is a {type(value).__name__}, not {{...}}"
    return value if isinstance(value, dict) else RowError(problem)


def _read_array(file: IO[bytes]) -> Iterator[Row | RowError]:
    """The elements of a JSON array after its bracket. Raises RowError where one is damaged."""
    decode = codecs.getincrementaldecoder("utf-8")().decode
    scanner, buffer, step, at_end = json.JSONDecoder(), "", CHUNK_BYTES, False
    while not (buffer := buffer.lstrip(" \t\r\n,")).startswith("]"):
        try:
            value, end = scanner.raw_decode(buffer)
        except RecursionError as error:
            message = "not JSON: nested too deeply; the rest of the array is lost"
            raise RowError(message) from error
        except ValueError as error:
            if at_end:
                raise RowError(f"not JSON: {error}; the array stops here") from error
            value, end = None, len(buffer)
        # A number at the very end of the buffer may have further digits.
        if end < len(buffer) or at_end:
            yield _check_object(value, "element")
            buffer, step = buffer[end:], CHUNK_BYTES
            continue
        if len(buffer) > MAX_ROW_BYTES:
            raise RowError(TOO_LONG)
        try:
            chunk = file.read(step)
            buffer += decode(chunk, not chunk)
        except UnicodeDecodeError as error:
            raise RowError(f"not JSON: {error}; the rest of the array is lost") from error
        at_end, step = not chunk, min(step * 2, MAX_ROW_BYTES)


def _read_parquet(file: IO[bytes]) -> Iterator[Row]:
    """The rows, page by page. Raises RowError where the file is damaged or no parquet at all."""
    try:
        table = pq.ParquetFile(file, buffer_size=CHUNK_BYTES, pre_buffer=False)
        for batch in table.iter_batches(batch_size=16):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        message = str(error).splitlines()[0]
        raise RowError(f"broken file: no readable parquet from here on ({message})") from error
