"""Parquet files that `datasets` opens with their pictures as pictures, written row by row.

Not here: what a row holds (scores.py, writers.py).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, Image, List, Value

from difftrain.records import Sample

ROWS_AT_ONCE = 32
TURNS = List({"role": Value("string"), "content": Value("string")})
PICTURES = List(Image())
TEXT = Value("string")


def embedded(sample: Sample) -> list[dict[str, Any]]:
    """A sample's pictures as cells of a PICTURES column."""
    return [
        {"bytes": png, "path": f"{sample.sample_id}-{number}.png"}
        for number, png in enumerate(sample.images)
    ]


def write(path: Path, features: dict[str, Any], rows: Iterable[dict[str, Any]]) -> int:
    """Write a parquet file with these columns; returns the number of rows. A few are held."""
    schema = Features(features).arrow_schema
    path.parent.mkdir(parents=True, exist_ok=True)
    total, held = 0, []
    with pq.ParquetWriter(path, schema) as file:
        for row in rows:
            held.append(row)
            if len(held) == ROWS_AT_ONCE:
                file.write_table(pa.Table.from_pylist(held, schema=schema))
                total, held = total + len(held), []
        if held:
            file.write_table(pa.Table.from_pylist(held, schema=schema))
    return total + len(held)
