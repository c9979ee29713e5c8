"""The export on disk: scores.parquet, a folder for each trainer, README.md, manifest.json last."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from difftrain.config import run_config
from difftrain.config.run_config import RunConfig
from difftrain.data.quarantine import EmptyDatasetError
from difftrain.export import card, publish, scores
from difftrain.export.chosen import in_order, joined
from difftrain.export.writers import WRITERS
from difftrain.pipeline import manifest, parquet
from difftrain.records import Sample, Score, Selection

MADE_BY = "python launch/export.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The finished stages that an export joins."""

    data: Path
    score: Path
    select: Path


def check(formats: Sequence[str], picks: Sequence[Selection]) -> None:
    """Raises EmptyDatasetError where there is nothing that a trainer could be given."""
    if formats and not picks:
        raise EmptyDatasetError("no sample was picked; export.formats=[] writes the scores alone")


def run(config: RunConfig, inputs: Inputs, folder: Path) -> Path:
    """Write the folder if it is not finished, and publish it where that is asked for.

    Raises MissingArtifact for a stage that is not finished, EmptyDatasetError without picks.
    """
    if manifest.read_manifest(folder) is None:
        write(config, inputs, folder)
    if repository := config.export.push_to_hub:
        print(
            f"published: {publish.publish(folder, repository, config.export.private)}", flush=True
        )
    return folder


def write(config: RunConfig, inputs: Inputs, folder: Path) -> None:
    """Everything but the publishing."""
    began = time.perf_counter()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    measure = config.difficulty.measure
    picks = parquet.read_finished(inputs.select, Selection, MADE_BY)
    check(config.export.formats, picks)
    rows = joined(
        parquet.read_finished(inputs.data, Sample, MADE_BY),
        parquet.read_finished(inputs.score, Score, MADE_BY),
        picks,
        measure,
    )
    number = scores.write(folder / "scores.parquet", rows, config.data)
    chosen = in_order(rows, picks)
    for form in config.export.formats:
        WRITERS[form](folder / form.value, chosen)
    made = manifest.read_manifest(inputs.data)
    about = card.About(
        settings=run_config.plain(config),
        model=config.model.name,
        measure=measure,
        formats=config.export.formats,
        quarantined=made["counts"]["quarantined"] if made else 0,
    )
    card.write(folder, about, rows)
    manifest.write_manifest(
        folder,
        settings=run_config.plain(config.export),
        inputs={"data": inputs.data.name, "score": inputs.score.name, "select": inputs.select.name},
        seconds=time.perf_counter() - began,
        counts={"samples": number, "picks": len(chosen)},
    )
