"""The data stage: writes Sample parts, quarantine.jsonl and .md, near_duplicates.jsonl, and
manifest.json last.
"""

import json
import logging
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from difftrain.config.data import TOKEN_PIXELS, DataConfig, Source
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
        manifest.atomic_file(folder / QUARANTINE) as quarantine,
        manifest.atomic_file(folder / NEAR_DUPLICATES) as near_duplicates,
    ):

        def write_near_duplicate(source: str, first: str) -> None:
            print(json.dumps({"source": source, "similar_to": first}), file=near_duplicates)

        stats = DatasetStats(write_near_duplicate)

        def samples() -> Iterator[Sample]:
            for row in dataset.load_samples(config, stats):
                if isinstance(row, RejectedRow):
                    rejects.add(row)
                    print(json.dumps(asdict(row)), file=quarantine)
                else:
                    tasks[row.task] += 1
                    yield row

        num_samples = parquet.write_all(folder, samples(), ROWS_PER_PART)
    num_rows = num_samples + rejects.total
    (folder / "quarantine.md").write_text(render_page(num_rows, rejects), encoding="utf-8")
    if not num_samples:
        raise EmptyDatasetError(describe_empty(config, rejects, folder))
    counts: dict[str, Any] = {
        "rows": num_rows,
        "samples": num_samples,
        "quarantined": rejects.total,
    }
    counts |= {"reasons": rejects.by_reason(), "tasks": dict(sorted(tasks.items()))}
    if config.source is not Source.shapes:
        max_tokens = config.max_pixels // TOKEN_PIXELS
        budget = {
            "budget_pixels": [config.min_pixels, config.max_pixels],
            "budget_tokens": [math.ceil(config.min_pixels / TOKEN_PIXELS), max_tokens],
        }
        counts |= {"other_tasks": stats.other_tasks, "duplicates": stats.duplicates}
        counts["images"] = stats.images | budget
        log_counts(counts)
    return counts


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


def log_counts(counts: dict[str, Any]) -> None:
    """Log the counts in two or three lines."""
    images, duplicates = counts["images"], counts["duplicates"]
    reasons = format_reasons(counts["reasons"])
    logger.info(
        f"data: {counts['rows']} rows, {counts['samples']} samples, {counts['quarantined']} "
        f"quarantined{f' ({reasons}; see {QUARANTINE})' if reasons else ''}"
    )
    pixels, tokens = ("{} to {}".format(*images[f"budget_{unit}"]) for unit in ("pixels", "tokens"))
    logger.info(
        f"data: {images['count']} images, {images['tokens']} image tokens, at most "
        f"{images['max_tokens']} in one (budget {pixels} pixels = {tokens} tokens)"
    )
    if any(duplicates.values()):
        logger.info(
            f"data: {duplicates['exact']} rows are exact duplicates, {duplicates['near']} near "
            f"duplicates (see {NEAR_DUPLICATES})"
        )
