"""Predictions as the reference harness's own table, so that its scorer can be run on them.

`<model>_<data set>.tsv` with the columns of its data file, but the picture, and `prediction`:
what our scorer was given. The harness takes it with PRED_FORMAT=tsv. It finds items by `index`,
so the items must have come from its own TSV (evaluate.source=tsv).
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from difftrain.config.evaluate import OFFICIAL, TSV_FILES, AnswerTags, EvaluateConfig
from difftrain.evaluate import scoring
from difftrain.evaluate.asking import Asked
from difftrain.records import ItemResult


def file_name(checkpoint: str, benchmark: str) -> str:
    """The harness's name of a prediction file; a miniature keeps its own name."""
    model = "".join(c if c.isalnum() or c in "._-" else "-" for c in Path(checkpoint).name)
    known = benchmark in OFFICIAL
    return f"{model}_{TSV_FILES[benchmark] if known else benchmark.replace('/', '-') + '.tsv'}"


def prediction(response: str, config: EvaluateConfig) -> str:
    """What the scorer was given: <answer> opened if so set, nothing where nothing was said."""
    if scoring.why_nothing(response) is not None:
        return ""
    opened = config.answer_tags is AnswerTags.strip
    return scoring.open_tags(response) if opened else response


def write(
    folder: Path,
    checkpoint: str,
    asked: Sequence[Asked],
    marks: Sequence[ItemResult],
    config: EvaluateConfig,
) -> list[Path]:
    """One file for each benchmark, rows in the order of the items; returns the files."""
    said = {(mark.benchmark, mark.item_id): mark.response for mark in marks}
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for name in config.benchmarks:
        rows = [
            dict(each.item) | {"prediction": prediction(said[each.key], config)}
            for each in asked
            if each.benchmark == name and each.key in said
        ]
        found.append(write_table(folder / file_name(checkpoint, name), rows))
    return found


def write_table(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """A TSV with every cell quoted, as the harness writes its own; pictures are left out."""
    named = dict.fromkeys(name for row in rows for name in row)
    columns = [name for name in named if name not in ("image", "sample_id")]
    with path.open("w", newline="", encoding="utf-8", errors="replace") as file:
        writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            cells = ("" if row.get(name) is None else str(row[name]) for name in columns)
            # A table's reader stops at a zero byte.
            writer.writerow([cell.replace("\0", "") for cell in cells])
    return path
