"""Six benchmarks asked of one checkpoint: items in, Mark rows and summary.json out.

Sharded by rank and resumable; the text of every response is kept (responses.py), so that other
rules or another judge need no model. The first rank marks (grading.py).
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from difftrain.config import run_config
from difftrain.config.evaluate import EvaluateConfig
from difftrain.evaluate import closing, summary
from difftrain.evaluate.answering import ready, responses
from difftrain.evaluate.asking import Asked, items
from difftrain.evaluate.grading import grade_all
from difftrain.evaluate.judge.client import Judging
from difftrain.evaluate.responses import Key, Response, Store, items_identity, keep, key
from difftrain.model.engines.types import Engine
from difftrain.pipeline import coordination, manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.records import ItemResult


@dataclass(frozen=True, slots=True)
class Folders:
    """Where a checkpoint's words go, where its marks go, and where the judge's replies are kept."""

    responses: Path
    marks: Path
    replies: Path


def run_share(
    engine: Engine,
    wanted: Sequence[tuple[Key, Asked]],
    folder: Path,
    config: run_config.RunConfig,
    world: World,
) -> None:
    """Ask these items; their answers are written as they come, so that a kill costs few."""
    bar = tqdm(total=len(wanted), desc="evaluate", unit="item", disable=not world.is_first)
    unwritten = parquet.Unwritten[Response](
        lambda rows: keep(folder, world.rank, rows), config.model.at_once * 4
    )

    def alive() -> None:
        coordination.beat(folder, world)
        unwritten.write_if_late()

    items = [asked for _, asked in wanted]
    try:
        for place, words in responses(engine, items, config, alive):
            name, item_id, digest = wanted[place][0]
            row = Response(benchmark=name, item_id=item_id, asked=digest, response=words)
            unwritten.add(row)
            alive()
            bar.update()
    finally:
        unwritten.write()
        bar.close()


def by_benchmark(marks: Sequence[ItemResult], names: Iterable[str]) -> dict[str, list[ItemResult]]:
    """The marks of each benchmark, in the order of the names."""
    return {name: [mark for mark in marks if mark.benchmark == name] for name in names}


def summaries(marks: Sequence[ItemResult], config: EvaluateConfig) -> dict[str, dict[str, Any]]:
    """Score and 95 % interval of each benchmark and of their mean, fractions of 1."""
    groups = by_benchmark(marks, config.benchmarks)
    found = {
        name: asdict(summary.summarize(name, group, resamples=config.resamples))
        for name, group in groups.items()
    }
    mean = summary.summarize_mean(groups, resamples=config.resamples)
    return {**found, "mean": asdict(mean)}


def run(
    engine: Callable[[int, int], Engine],
    folders: Folders,
    checkpoint: str,
    config: run_config.RunConfig,
    world: World,
) -> None:
    """Fill the folders with a response and a Mark for every item, then summary.json, manifest.json.

    `engine` is called, with pixel limits, only if a response is missing. Raises ConfigError if
    the judge's server turns the key away.
    """
    if closing.is_done(folders.marks):
        return
    started = time.time()
    coordination.beat(folders.responses, world)
    wanted = {key(asked): asked for asked in items(config.evaluate)}
    store = Store(folders.responses)
    store.forget(world)
    kept = Judging(config.evaluate.judge, config.evaluate.judge_client, folders.replies)
    missing = store.missing(list(wanted))
    if missing and world.is_first and kept.endpoint is not None:
        kept.endpoint.check_key()
    share = [each for each in world.share(list(wanted.items())) if each[0] in missing]
    asked = ready(engine, config, folders.responses, world) if share else None
    if world.is_first:
        closing.reopen(folders.marks)
    if asked is not None:
        run_share(asked, share, folders.responses, config, world)
    coordination.wait(folders.responses, world, store.holds(list(wanted)))
    if not world.is_first:
        return coordination.wait(
            folders.marks, world, lambda: manifest.read_manifest(folders.marks) is not None
        )
    coordination.remove_heartbeats(folders.responses)
    said = [(asked, store.of(each)) for each, asked in wanted.items()]
    marks = grade_all(said, config.evaluate, kept, lambda: coordination.beat(folders.marks, world))
    closing.close(
        folders.marks,
        list(wanted.values()),
        marks,
        summaries(marks, config.evaluate),
        closing.Origin(
            config=config,
            checkpoint=checkpoint,
            responses=folders.responses.name,
            started=started,
            judge=kept.counts(),
            items=items_identity(wanted),
        ),
    )
