"""Read what W&B and TensorBoard have written."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportAttributeAccessIssue]

# LevelDB's log format: blocks of chunks. A chunk's header has a checksum, a size and a type.
BLOCK_SIZE = 32768
HEADER_SIZE = 7
LAST_CHUNK_TYPES = (1, 4)
"""Types of chunks that end a record: the only chunk of a record, and the last of several."""


def wandb_records(path: Path) -> Iterator[Record]:
    """The records of an offline run. They follow a header of seven bytes, which starts `:W&B`."""
    content = path.read_bytes()
    assert content[:4] == b":W&B"
    offset, pending = 7, b""
    while offset + HEADER_SIZE <= len(content):
        left_in_block = BLOCK_SIZE - offset % BLOCK_SIZE
        if left_in_block < HEADER_SIZE:  # the rest of a block is padding
            offset += left_in_block
            continue
        chunk_start = offset + HEADER_SIZE
        _, size, chunk_type = struct.unpack("<IHB", content[offset:chunk_start])
        offset = chunk_start + size
        pending += content[chunk_start:offset]
        if chunk_type in LAST_CHUNK_TYPES:
            yield Record.FromString(pending)
            pending = b""


def finished_records(path: Path) -> list[Record]:
    """All records; waits for the last one, which W&B's process writes after the run has ended."""
    deadline = time.time() + 30
    while True:
        records = list(wandb_records(path))
        if any(record.WhichOneof("record_type") == "exit" for record in records):
            return records
        assert time.time() < deadline, f"{path} has no last record after 30 s"
        time.sleep(0.05)


def item_values(items: list) -> dict:
    """The values of W&B's key-value items, by key; nested keys are joined with a slash."""
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def history(path: Path) -> list[dict]:
    """The rows of an offline run's history, so far; `_step` is W&B's number of the row."""
    return [
        item_values(record.history.item)
        for record in wandb_records(path)
        if record.WhichOneof("record_type") == "history"
    ]


def read_events(folder: Path) -> EventAccumulator:
    """The events of a folder, so far."""
    return EventAccumulator(str(folder)).Reload()
