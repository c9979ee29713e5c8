"""The data stage: writes Sample parts, quarantine.jsonl and .md, near_duplicates.jsonl, and
manifest.json last.
"""

import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from difftrain.config.data import DataConfig, Source
from difftrain.data import dataset
from difftrain.data.dataset import DatasetStats
from difftrain.data.quarantine import (
    EmptyDatasetError,
    RejectedRow,
    RejectStats,
    format_reasons,
    render_page,
)
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.stage import run_stage
from difftrain.records import Sample

ROWS_PER_PART = 2000
"""A part ends earlier where its images reach parquet.PART_BYTES."""
QUARANTINE = "quarantine.jsonl"
NEAR_DUPLICATES = "near_duplicates.jsonl"
"""Rows that look like an earlier one with the same question and answer; they are all kept."""

logger = logging.getLogger(__name__)


def build_dataset(config: DataConfig, folder: Path, world: World | None = None) -> dict[str, Any]:
    """Make the data stage's folder unless it is finished; returns its manifest.

    Raises EmptyDatasetError (after quarantine.jsonl is written) when there is no sample.
    """
    finished = manifest.read_manifest(folder)
    return finished or run_stage(
        folder,
        world or World(),
        lambda: write_dataset(config, folder),
        settings=asdict(config),
        inputs=dataset.inputs(config),
    )


def write_dataset(config: DataConfig, folder: Path) -> dict[str, Any]:
    """Write everything but the manifest; returns its counts."""
    folder.mkdir(parents=True, exist_ok=True)
    # Parts of an interrupted run are removed: reading rows is cheap, and two runs must not mix.
    for path in parquet.parts(folder):
        path.unlink()
    rejects, tasks = RejectStats(), Counter[str]()
    with (
        atomic_jsonl(folder / QUARANTINE) as write_rejected,
        atomic_jsonl(folder / NEAR_DUPLICATES) as write_near,
    ):
        stats = DatasetStats(
            lambda source, first: write_near({"source": source, "similar_to": first})
        )

        def samples() -> Iterator[Sample]:
            for row in dataset.load_samples(config, stats):
                if isinstance(row, RejectedRow):
                    rejects.add(row)
                    write_rejected(asdict(row))
                else:
                    tasks[row.task] += 1
                    yield row

        num_samples = parquet.write_all(folder, samples(), ROWS_PER_PART)
    num_rows = num_samples + rejects.total
    (folder / "quarantine.md").write_text(render_page(num_rows, rejects), encoding="utf-8")
    if not num_samples:
        raise EmptyDatasetError(describe_empty(config, rejects, folder))
    counts = {"rows": num_rows, "samples": num_samples, "quarantined": rejects.total}
    counts |= {"reasons": rejects.by_reason(), "tasks": dict(sorted(tasks.items()))}
    if config.source is not Source.shapes:
        counts |= image_counts(config, stats)
        for line in describe_counts(counts):
            logger.info(line)
    return counts


def image_counts(config: DataConfig, stats: DatasetStats) -> dict[str, Any]:
    """The manifest's counts of duplicates and images; the budget in pixels and in tokens."""
    return {
        "other_tasks": stats.other_tasks,
        "duplicates": {"exact": stats.exact_duplicates, "near": stats.near_duplicates},
        "images": {
            "count": stats.num_images,
            "resized": stats.resized,
            "tokens": stats.tokens,
            "max_tokens": stats.max_tokens,
            "budget_pixels": [config.min_pixels, config.max_pixels],
            "budget_tokens": list(config.budget_in_tokens),
        },
    }


def describe_counts(counts: dict[str, Any]) -> list[str]:
    """The counts in two or three lines for the log."""
    images, duplicates = counts["images"], counts["duplicates"]
    min_pixels, max_pixels = images["budget_pixels"]
    min_tokens, max_tokens = images["budget_tokens"]
    reasons = format_reasons(counts["reasons"])
    lines = [
        f"data: {counts['rows']} rows, {counts['samples']} samples, {counts['quarantined']} "
        f"quarantined{f' ({reasons}; see {QUARANTINE})' if reasons else ''}",
        f"data: {images['count']} images, {images['tokens']} image tokens, at most "
        f"{images['max_tokens']} in one (budget {min_pixels} to {max_pixels} pixels = "
        f"{min_tokens} to {max_tokens} tokens)",
    ]
    if duplicates["exact"] or duplicates["near"]:
        lines.append(
            f"data: {duplicates['exact']} rows are exact duplicates, {duplicates['near']} near "
            f"duplicates (see {NEAR_DUPLICATES})"
        )
    return lines


def describe_empty(config: DataConfig, rejects: RejectStats, folder: Path) -> str:
    """Why there is no sample: counts, the first row's reason, and where the rest is."""
    name = config.path or config.source.value
    if not rejects.total:
        return f"{name} holds no rows"
    first = next(iter(rejects.examples.values()))[0]
    return (
        f"none of the {rejects.total} rows of {name} can be used: "
        f"{format_reasons(rejects.by_reason())}; first: {first.source}: {first.reason}; "
        f"all: {folder / QUARANTINE}"
    )


@contextmanager
def atomic_jsonl(path: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A jsonl written line by line, so that no row is kept in memory; there whole or not at all."""
    tmp_path = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with tmp_path.open("w", encoding="utf-8") as file:
            yield lambda row: print(json.dumps(row), file=file)
            file.flush()
            os.fsync(file.fileno())
        tmp_path.replace(path)
    finally:
        tmp_path.unlink(missing_ok=True)


def read_quarantine(folder: Path) -> list[RejectedRow]:
    """The rejected rows of a data stage. Raises MissingArtifact where none was made."""
    path = folder / QUARANTINE
    if not path.is_file():
        raise parquet.MissingArtifact(f"no {QUARANTINE} at {folder}: run  python launch/train.py")
    with path.open(encoding="utf-8") as file:
        return [RejectedRow(**json.loads(line)) for line in file]
