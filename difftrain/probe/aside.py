"""Samples that the engine could not get an answer for: set aside with the reason, and counted.

Below the probe's folder, in parts as the rollouts are. They are asked no more in this folder:
delete `failed/` and manifest.json to have them asked again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from difftrain.model.generate.request import NoAnswer
from difftrain.pipeline import parquet
from difftrain.probe.rollouts import Draw
from difftrain.records import Sample, View

FOLDER = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unanswered:
    """A draw without an answer, and why; its sample is not scored."""

    sample_id: str
    view: View
    mask_percent: int
    draw: int
    reason: str


def row(draw: Draw, found: NoAnswer) -> Unanswered:
    """The record of a draw that brought no answer."""
    return Unanswered(
        sample_id=draw.sample.sample_id,
        view=draw.view,
        mask_percent=draw.percent,
        draw=draw.draw,
        reason=found.reason,
    )


def write(probe: Path, rank: int, rows: Sequence[Unanswered]) -> None:
    """Add a part, whole or not at all."""
    if rows:
        folder = probe / FOLDER
        parquet.write_part(folder, parquet.next_part(folder, rank), rows)


def read_part(path: Path) -> dict[str, str]:
    """The samples that a part sets aside, each with a reason."""
    return {each.sample_id: each.reason for each in parquet.read_part(path, Unanswered)}


def read(probe: Path) -> dict[str, str]:
    """Every sample set aside so far, with a reason."""
    found: dict[str, str] = {}
    for part in parquet.parts(probe / FOLDER):
        found |= read_part(part)
    return found


def answered(samples: Iterable[Sample], probe: Path) -> list[Sample]:
    """The samples that are not set aside."""
    without = read(probe)
    return [sample for sample in samples if sample.sample_id not in without]
