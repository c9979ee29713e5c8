"""The data stage: writes Sample parts, quarantine.jsonl and .md, near_duplicates.jsonl, and
manifest.json last.
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

from difftrain.config.data import TOKEN_PIXELS, DataConfig, Source
from difftrain.data import dataset
from difftrain.data.quarantine import EmptyDatasetError, RejectedRow
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.stage import run_stage
from difftrain.records import Sample

ROWS_PER_PART = 2000  # a part ends earlier where its images reach parquet.PART_BYTES
QUARANTINE = "quarantine.jsonl"
NEAR_DUPLICATES = "near_duplicates.jsonl"  # like an earlier row of the same text; they are kept
MAX_EXAMPLES = 3  # rows of each reason that the page shows

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RejectStats:
    """How many rows were rejected for which reason, and the first few; the others are on disk."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: defaultdict[str, list[RejectedRow]] = field(default_factory=lambda: defaultdict(list))

    def add(self, row: RejectedRow) -> None:
        self.counts[row.kind] += 1
        if self.counts[row.kind] <= MAX_EXAMPLES:
            self.examples[row.kind].append(row)

    def by_reason(self) -> dict[str, int]:
        """Reason -> number of rows, the most common first, then by name."""
        return dict(sorted(self.counts.items(), key=lambda pair: (-pair[1], pair[0])))

    def __str__(self) -> str:
        """In one line: "3 missing file, 1 not JSON"."""
        return ", ".join(f"{count} {reason}" for reason, count in self.by_reason().items())


def render_page(num_rows: int, stats: RejectStats) -> str:
    """A readable summary in Markdown: each reason with its rows, its share and a few examples."""
    template = Path(__file__).with_name("quarantine.md.jinja").read_text(encoding="utf-8")
    page = jinja2.Template(template, trim_blocks=True, keep_trailing_newline=True)
    return page.render(num_rows=num_rows, stats=stats)


def build_dataset(config: DataConfig, folder: Path, world: World | None = None) -> dict[str, Any]:
    """Make the data stage's folder unless it is finished; returns its manifest.

    Raises EmptyDatasetError (after quarantine.jsonl is written) when there is no sample.
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
    """Write everything but the manifest; returns its counts."""
    folder.mkdir(parents=True, exist_ok=True)
    # Parts of an interrupted run are removed: reading rows is cheap, and two runs must not mix.
    for path in parquet.parts(folder):
        path.unlink()
    stats, rejects, tasks = dataset.DatasetStats(), RejectStats(), Counter[str]()
    with manifest.atomic_file(folder / QUARANTINE) as rejected_rows:

        def samples() -> Iterator[Sample]:
            for row in dataset.load_samples(config, stats):
                if isinstance(row, RejectedRow):
                    rejects.add(row)
                    print(json.dumps(asdict(row)), file=rejected_rows)
                else:
                    tasks[row.task] += 1
                    yield row

        num_samples = parquet.write_all(folder, samples(), ROWS_PER_PART)
    lines = [{"source": row, "similar_to": first} for row, first in stats.near_duplicates]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    manifest.write_text(folder / NEAR_DUPLICATES, text)
    num_rejected = rejects.counts.total()
    num_rows = num_samples + num_rejected
    (folder / "quarantine.md").write_text(render_page(num_rows, rejects), encoding="utf-8")
    if not num_rows:
        raise EmptyDatasetError(f"{config.path} holds no rows")
    if not num_samples:
        first = next(iter(rejects.examples.values()))[0]
        raise EmptyDatasetError(
            f"none of the {num_rows} rows of {config.path} can be used: {rejects}; "
            f"first: {first.source}: {first.reason}; all: {folder / QUARANTINE}"
        )
    counts: dict[str, Any] = {"rows": num_rows, "samples": num_samples, "quarantined": num_rejected}
    counts |= {"reasons": rejects.by_reason(), "tasks": dict(sorted(tasks.items()))}
    if config.source is Source.shapes:
        return counts
    duplicates = {"exact": stats.exact_duplicates, "near": len(stats.near_duplicates)}
    counts |= {"other_tasks": stats.other_tasks, "duplicates": duplicates}
    pixels = [config.min_pixels, config.max_pixels]
    tokens = [math.ceil(config.min_pixels / TOKEN_PIXELS), config.max_pixels // TOKEN_PIXELS]
    counts["images"] = stats.images | {"budget_pixels": pixels, "budget_tokens": tokens}
    reasons = f" ({rejects}; see {QUARANTINE})" if num_rejected else ""
    rows = f"{num_rows} rows, {num_samples} samples, {num_rejected} quarantined"
    logger.info(f"data: {rows}{reasons}")
    budget = "budget {} to {} pixels = {} to {} tokens".format(*pixels, *tokens)
    images = "{count} images, {tokens} image tokens, at most {max_tokens} in one"
    logger.info(f"data: {images.format_map(stats.images)} ({budget})")
    if any(duplicates.values()):
        text = "{exact} rows are exact duplicates, {near} near duplicates".format_map(duplicates)
        logger.info(f"data: {text} (see {NEAR_DUPLICATES})")
    return counts
