"""The data stage. It writes samples (part-*.parquet), rejected rows (quarantine.jsonl and .md),
near_duplicates.jsonl and, at the end, manifest.json.
"""

import json
import logging
import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from difftrain.config.data import DataConfig, Source
from difftrain.data import dataset
from difftrain.data.quarantine import EmptyDatasetError, RejectedRow
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.stage import run_stage
from difftrain.records import Sample

ROWS_PER_PART = 2000  # fewer if the images of a part reach parquet.PART_BYTES
QUARANTINE = "quarantine.jsonl"
NEAR_DUPLICATES = "near_duplicates.jsonl"  # samples similar to an earlier one; all are used
MAX_EXAMPLES = 3  # rows that quarantine.md shows for each short reason

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RejectStats:
    """Number and first examples of rejected rows by short reason; QUARANTINE lists all of them."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: defaultdict[str, list[RejectedRow]] = field(default_factory=lambda: defaultdict(list))

    def add(self, row: RejectedRow) -> None:
        self.counts[row.short_reason] += 1
        if self.counts[row.short_reason] <= MAX_EXAMPLES:
            self.examples[row.short_reason].append(row)

    def sorted_counts(self) -> dict[str, int]:
        """Short reason -> number of rows; the largest number first, equal ones by name."""
        return dict(sorted(self.counts.items(), key=lambda pair: (-pair[1], pair[0])))

    def __str__(self) -> str:
        """In one line: "3 missing file, 1 not JSON"."""
        return ", ".join(f"{count} {reason}" for reason, count in self.sorted_counts().items())


def render_quarantine(num_rows: int, stats: RejectStats) -> str:
    """The text of quarantine.md: rows and share of each short reason, and a few examples."""
    template = Path(__file__).with_name("quarantine.md.jinja").read_text(encoding="utf-8")
    markdown = jinja2.Template(template, trim_blocks=True, keep_trailing_newline=True)
    return markdown.render(num_rows=num_rows, stats=stats)


def build_dataset(config: DataConfig, folder: Path, world: World | None = None) -> dict[str, Any]:
    """Write the data stage's folder if it is not finished yet; returns its manifest.

    Raises EmptyDatasetError, after writing quarantine.jsonl, if no row became a sample.
    """
    finished = manifest.read_manifest(folder)
    return finished or run_stage(
        folder,
        world or World(),
        lambda: _write_dataset(config, folder),
        settings=asdict(config),
        inputs=dataset.inputs(config),
    )


def _write_dataset(config: DataConfig, folder: Path) -> dict[str, Any]:
    """Write all files except manifest.json; returns the counts for the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    # Delete the parts of an interrupted run: reading rows again is cheap, mixing two runs is wrong.
    for path in parquet.parts(folder):
        path.unlink()
    stats, rejects, task_counts = dataset.DatasetStats(), RejectStats(), Counter[str]()
    with manifest.atomic_file(folder / QUARANTINE) as rejected_rows:

        def samples() -> Iterator[Sample]:
            for row in dataset.load_samples(config, stats):
                if isinstance(row, RejectedRow):
                    rejects.add(row)
                    print(json.dumps(asdict(row)), file=rejected_rows)
                else:
                    task_counts[row.task] += 1
                    yield row

        num_samples = parquet.write_all(folder, samples(), ROWS_PER_PART)
    lines = [{"source": later, "similar_to": first} for later, first in stats.near_duplicates]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    manifest.write_text(folder / NEAR_DUPLICATES, text)
    num_rejected = rejects.counts.total()
    num_rows = num_samples + num_rejected
    (folder / "quarantine.md").write_text(render_quarantine(num_rows, rejects), encoding="utf-8")
    if not num_rows:
        raise EmptyDatasetError(f"{config.path} holds no rows")
    if not num_samples:
        first = next(iter(rejects.examples.values()))[0]
        raise EmptyDatasetError(
            f"none of the {num_rows} rows of {config.path} can be used: {rejects}; "
            f"first: {first.source}: {first.reason}; all: {folder / QUARANTINE}"
        )
    counts: dict[str, Any] = {"rows": num_rows, "samples": num_samples, "quarantined": num_rejected}
    counts |= {"reasons": rejects.sorted_counts(), "tasks": dict(sorted(task_counts.items()))}
    if config.source is Source.shapes:  # generated without duplicates or resizing
        return counts
    duplicates = {"exact": stats.exact_duplicates, "near": len(stats.near_duplicates)}
    counts |= {"other_tasks": stats.other_tasks, "duplicates": duplicates}
    pixels = [config.min_pixels, config.max_pixels]
    token_pixels = config.side**2
    tokens = [math.ceil(config.min_pixels / token_pixels), config.max_pixels // token_pixels]
    counts["images"] = stats.images | {"budget_pixels": pixels, "budget_tokens": tokens}
    reasons = f" ({rejects}; see {QUARANTINE})" if num_rejected else ""
    totals = f"{num_rows} rows, {num_samples} samples, {num_rejected} quarantined"
    logger.info(f"data: {totals}{reasons}")
    budget = "budget {} to {} pixels = {} to {} tokens".format(*pixels, *tokens)
    images = "{count} images, {tokens} image tokens, at most {max_tokens} in one"
    logger.info(f"data: {images.format_map(stats.images)} ({budget})")
    if any(duplicates.values()):
        text = "{exact} rows are exact duplicates, {near} near duplicates".format_map(duplicates)
        logger.info(f"data: {text} (see {NEAR_DUPLICATES})")
    return counts
