"""scores.parquet: every sample's scores, stratum and pick next to the row it came from."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from datasets import List, Value

from difftrain.config.data import DataConfig
from difftrain.data import dataset
from difftrain.data.quarantine import EmptyDatasetError
from difftrain.export import tables
from difftrain.export.chosen import Chosen
from difftrain.export.tables import PICTURES, TEXT
from difftrain.records import Measure

ABOUT = ("sample_id", "source", "task", "task_set", "question", "answer", "answer_kind")


def features(measures: Sequence[Measure]) -> dict[str, Any]:
    """The columns: what was asked, each measure's value and stratum, the pick, the original row.

    `original` is the source's row as JSON, picture bytes left out; null where the embedded world
    drew the sample. `images` are the pictures as the model saw them, and golds of boxes refer to
    them.
    """
    scored: dict[str, Any] = {}
    for each in measures:
        scored |= {each.value: Value("float64"), f"{each.value}_stratum": TEXT}
    picked = {"stratum": TEXT, "picked": Value("bool"), "stage": TEXT, "reason": TEXT}
    about = dict.fromkeys(ABOUT, TEXT)
    return {
        **about,
        "options": List(TEXT),
        **scored,
        **picked,
        "images": PICTURES,
        "original": TEXT,
    }


def row(chosen: Chosen, measures: Sequence[Measure], original: str | None) -> dict[str, Any]:
    """One row of scores.parquet."""
    sample, pick = chosen.sample, chosen.pick
    scored: dict[str, Any] = {}
    for each in measures:
        score = chosen.scores.get(each)
        scored[each.value] = score.value if score else None
        scored[f"{each.value}_stratum"] = score.stratum if score else None
    return {
        **{name: getattr(sample, name) for name in ABOUT},
        "options": list(sample.options),
        **scored,
        "stratum": chosen.stratum,
        "picked": pick is not None,
        "stage": pick.stage if pick else None,
        "reason": pick.reason if pick else None,
        "images": tables.embedded(sample),
        "original": original,
    }


def without_bytes(value: Any) -> str:
    """How a value that JSON cannot hold is told of."""
    return f"<{len(value)} bytes>" if isinstance(value, bytes) else str(value)


def beside_originals(
    rows: Sequence[Chosen], data: DataConfig
) -> Iterator[tuple[Chosen, str | None]]:
    """Every sample with its source's row as JSON, in the source's order.

    The source is read again, as a stream. Raises EmptyDatasetError if a sample's row is gone.
    """
    wanted = {each.sample.source: each for each in rows}
    for place, original in dataset.original_rows(data):
        if not wanted:
            break
        if (found := wanted.pop(place, None)) is not None:
            yield found, json.dumps(original, ensure_ascii=False, default=without_bytes)
    if wanted and next(iter(wanted.values())).sample.source.startswith("shapes/"):
        yield from ((each, None) for each in wanted.values())
    elif wanted:
        raise EmptyDatasetError(
            f"{len(wanted)} samples have no row in {data.path} any more, such as "
            f"{next(iter(wanted))}: the file changed; run the same command again"
        )


def write(path: Path, rows: Sequence[Chosen], data: DataConfig) -> int:
    """Write scores.parquet; returns its number of rows."""
    measures = [each for each in Measure if any(each in chosen.scores for chosen in rows)]
    found = (row(chosen, measures, original) for chosen, original in beside_originals(rows, data))
    return tables.write(path, features(measures), found)
