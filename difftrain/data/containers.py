"""Rows of jsonl, json and parquet files, one after another; a file is never held whole.

Every row comes with its place ("FILE:NUMBER", lines of a jsonl, rows elsewhere, from 1), and is an
object or says why it is none. Not here: what a row means (formats/).
"""

import codecs
import json
from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from difftrain.data.quarantine import RowError
from difftrain.data.store import Store

MOST_ROW = 64 << 20
"""Bytes of one row; a longer line or element is set aside without being read to its end."""
CHUNK = 1 << 20
ROWS_AT_ONCE = 16
"""Parquet rows that become Python objects together."""

Row = dict[str, Any]
Placed = tuple[str, Row | RowError]


def rows(store: Store, names: list[str]) -> Iterator[Placed]:
    """The rows of these files, in order."""
    for name in names:
        with store.open(name) as file:
            found = of_parquet(file) if name.endswith(".parquet") else of_text(file, name)
            for number, row in found:
                yield f"{name}:{number}", row


def of_text(file: IO[bytes], name: str) -> Iterator[tuple[int, Row | RowError]]:
    """Rows of a jsonl, or of a .json that holds one array (or, as some do, lines)."""
    if name.endswith(".json"):
        while (first := file.read(1)).isspace() or first in (b"\xef", b"\xbb", b"\xbf"):
            pass
        if first == b"[":
            return of_array(file)
        file.seek(0)
    return of_lines(file)


def of_lines(file: IO[bytes]) -> Iterator[tuple[int, Row | RowError]]:
    """One object a line; blank lines are no rows."""
    number = 0
    while line := file.readline(MOST_ROW):
        number += 1
        if len(line) == MOST_ROW and not line.endswith(b"\n"):
            while (rest := file.readline(MOST_ROW)) and not rest.endswith(b"\n"):
                pass
            yield number, too_long()
        elif line.strip():
            yield number, parsed(line)


def parsed(line: bytes) -> Row | RowError:
    """One line as an object, or why it is none."""
    try:
        return an_object(json.loads(line.decode("utf-8-sig")), "line")
    except RecursionError:
        return RowError("not JSON: nested too deeply")
    except ValueError as error:
        return RowError(f"not JSON: {error}")


def an_object(value: Any, what: str) -> Row | RowError:
    """The value if it is an object that a file can hold, or why it is not."""
    try:
        # Half a surrogate pair is JSON, but no file can hold it.
        json.dumps(value, ensure_ascii=False).encode()
    except ValueError as error:
        return RowError(f"not JSON: {error}")
    if isinstance(value, dict):
        return value
    return RowError(f"not an object: the {what} is a {type(value).__name__}, not {{...}}")


def too_long() -> RowError:
    """The refusal of a row that would fill the memory."""
    return RowError(f"row too long: over {MOST_ROW >> 20} MiB; keep pictures in files of their own")


def of_array(file: IO[bytes]) -> Iterator[tuple[int, Row | RowError]]:
    """The elements of one JSON array whose bracket has been read.

    What cannot be read ends the array: the element is set aside, and the rest cannot be found.
    """
    decode = codecs.getincrementaldecoder("utf-8")().decode
    scanner, held, number, step = json.JSONDecoder(), "", 1, CHUNK
    ended = False
    while True:
        held = held.lstrip(" \t\r\n,")
        if held.startswith("]"):
            return
        try:
            value, end = scanner.raw_decode(held)
        except RecursionError:
            yield number, RowError("not JSON: nested too deeply; the rest of the array is lost")
            return
        except ValueError as error:
            if ended:
                yield number, RowError(f"not JSON: {error}; the array stops here")
                return
            value, end = None, len(held)
        # A number at the very end of what was read may have further digits.
        if end < len(held) or ended:
            yield number, an_object(value, "element")
            held, number, step = held[end:], number + 1, CHUNK
            continue
        if len(held) > MOST_ROW:
            yield number, too_long()
            return
        try:
            chunk = file.read(step)
            held += decode(chunk, not chunk)
        except UnicodeDecodeError as error:
            yield number, RowError(f"not JSON: {error}; the rest of the array is lost")
            return
        ended, step = not chunk, min(step * 2, MOST_ROW)


def of_parquet(file: IO[bytes]) -> Iterator[tuple[int, Row | RowError]]:
    """The rows of a parquet file; pages are read as they are needed, not whole columns.

    A file that is damaged or no parquet at all is one row that says so.
    """
    number = 0
    try:
        held = pq.ParquetFile(file, buffer_size=CHUNK, pre_buffer=False)
        for batch in held.iter_batches(batch_size=ROWS_AT_ONCE):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (pa.ArrowException, OSError) as error:
        told = str(error).splitlines()[0]
        yield number + 1, RowError(f"broken file: no readable parquet from here on ({told})")
