"""A sample with its scores and its selection, and the parquet files that hold such rows."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, Image, List, Value

from difftrain.config.data import DataConfig
from difftrain.data import dataset, prompts
from difftrain.data.quarantine import EmptyDatasetError
from difftrain.records import AnswerKind, Measure, Sample, Score, Selection, Stratum

BOXED_KINDS = (AnswerKind.number, AnswerKind.choice, AnswerKind.count)
ROWS_PER_GROUP = 32
TEXT = Value("string")
IMAGES = List(Image())
TURNS = List({"role": TEXT, "content": TEXT})
SAMPLE_COLUMNS = ("sample_id", "source", "task", "task_set", "question", "answer", "answer_kind")


@dataclass(frozen=True, slots=True)
class ExportRow:
    """A sample, its scores by measure, its stratum by the run's measure, its selection if any."""

    sample: Sample
    scores: Mapping[Measure, Score]
    stratum: Stratum | None
    selection: Selection | None

    @property
    def prompt(self) -> str:
        """The user's text with options, without image placeholders."""
        return prompts.user_text(self.sample.question, self.sample.options)

    @property
    def prompt_with_images(self) -> str:
        """The user's text after one <image> for each image."""
        return "<image>" * len(self.sample.images) + self.prompt

    @property
    def solution(self) -> str:
        r"""The gold answer as other trainers' rewards read it: \boxed{} or <answer></answer>."""
        answer = self.sample.answer
        if self.sample.answer_kind in BOXED_KINDS:
            return f"\\boxed{{{answer}}}"
        return f"<answer>{answer}</answer>"

    @property
    def response(self) -> str:
        """The response for supervised training: the rationale if there is one, and the answer."""
        rationale = f"<think>{self.sample.rationale}</think>" if self.sample.rationale else ""
        return f"{rationale}<answer>{self.sample.answer}</answer>"

    @property
    def image_cells(self) -> list[dict[str, Any]]:
        """The images as cells of an IMAGES column."""
        return [
            {"bytes": png, "path": f"{self.sample.sample_id}-{index}.png"}
            for index, png in enumerate(self.sample.images)
        ]


def join_rows(
    samples: Iterable[Sample],
    scores: Iterable[Score],
    selections: Iterable[Selection],
    measure: Measure,
) -> list[ExportRow]:
    """Every sample with its scores and selection. Images stay on disk."""
    by_sample: dict[str, dict[Measure, Score]] = {}
    for score in scores:
        by_sample.setdefault(score.sample_id, {})[score.measure] = score
    selected = {selection.sample_id: selection for selection in selections}
    rows = []
    for sample in samples:
        own_scores = by_sample.get(sample.sample_id, {})
        stratum = own_scores[measure].stratum if measure in own_scores else None
        rows.append(ExportRow(sample, own_scores, stratum, selected.get(sample.sample_id)))
    return rows


def selected_rows(rows: Iterable[ExportRow], selections: Iterable[Selection]) -> list[ExportRow]:
    """The selected rows, in the order of the selection."""
    by_id = {row.sample.sample_id: row for row in rows}
    return [by_id[selection.sample_id] for selection in selections]


def write_parquet(path: Path, features: dict[str, Any], rows: Iterable[dict[str, Any]]) -> int:
    """Write a file whose images `datasets` opens as images; returns the number of rows.

    Keeps ROWS_PER_GROUP rows in memory.
    """
    schema = Features(features).arrow_schema
    path.parent.mkdir(parents=True, exist_ok=True)
    total, buffer = 0, []
    with pq.ParquetWriter(path, schema) as file:
        for row in rows:
            buffer.append(row)
            if len(buffer) == ROWS_PER_GROUP:
                file.write_table(pa.Table.from_pylist(buffer, schema=schema))
                total, buffer = total + len(buffer), []
        if buffer:
            file.write_table(pa.Table.from_pylist(buffer, schema=schema))
    return total + len(buffer)


def write_scores(path: Path, rows: Sequence[ExportRow], data: DataConfig) -> int:
    """Write scores.parquet: every sample, each measure's value and stratum, the selection, and in
    `original` the source's row as JSON (null for the embedded world). Returns the number of rows.

    `images` are the images as the model saw them; box answers refer to their pixels.
    """
    measures = [measure for measure in Measure if any(measure in row.scores for row in rows)]
    features: dict[str, Any] = {**dict.fromkeys(SAMPLE_COLUMNS, TEXT), "options": List(TEXT)}
    for measure in measures:
        features |= {measure.value: Value("float64"), f"{measure.value}_stratum": TEXT}
    features |= {"stratum": TEXT, "selected": Value("bool"), "stage": TEXT, "reason": TEXT}
    features |= {"images": IMAGES, "original": TEXT}
    cells = (
        score_cells(row, measures) | {"original": original}
        for row, original in with_originals(rows, data)
    )
    return write_parquet(path, features, cells)


def score_cells(row: ExportRow, measures: Sequence[Measure]) -> dict[str, Any]:
    """One row of scores.parquet but for `original`."""
    sample, selection = row.sample, row.selection
    cells: dict[str, Any] = {name: getattr(sample, name) for name in SAMPLE_COLUMNS}
    for measure in measures:
        score = row.scores.get(measure)
        cells[measure.value] = score.value if score else None
        cells[f"{measure.value}_stratum"] = score.stratum if score else None
    return cells | {
        "options": list(sample.options),
        "stratum": row.stratum,
        "selected": selection is not None,
        "stage": selection.stage if selection else None,
        "reason": selection.reason if selection else None,
        "images": row.image_cells,
    }


def with_originals(
    rows: Sequence[ExportRow], data: DataConfig
) -> Iterator[tuple[ExportRow, str | None]]:
    """Every sample with its source's row as JSON, in the source's order.

    The source is read again, as a stream. Raises EmptyDatasetError if a sample's row is gone.
    """
    remaining = {row.sample.source: row for row in rows}
    for source, original in dataset.original_rows(data):
        if not remaining:
            break
        if (row := remaining.pop(source, None)) is not None:
            yield row, json.dumps(original, ensure_ascii=False, default=describe_value)
    if remaining and next(iter(remaining)).startswith("shapes/"):
        yield from ((row, None) for row in remaining.values())
    elif remaining:
        raise EmptyDatasetError(
            f"{len(remaining)} samples have no row in {data.path} any more, such as "
            f"{next(iter(remaining))}: the file changed; run the same command again"
        )


def describe_value(value: Any) -> str:
    """What stands in JSON for a value that JSON cannot hold: the size of bytes."""
    return f"<{len(value)} bytes>" if isinstance(value, bytes) else str(value)
