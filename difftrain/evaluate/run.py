"""Six benchmarks asked of one checkpoint: items in, Mark rows and summary.json out.

Sharded by rank and resumable; the text of every response is kept, so that other rules or another
judge need no model.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from difftrain import artefacts, heartbeat, lineage, settings
from difftrain.evaluate import results, summary
from difftrain.evaluate.answering import fitting, responses
from difftrain.evaluate.asking import JUDGE, Asked, graded, items
from difftrain.evaluate.config import EvaluateConfig
from difftrain.model.load import Loaded
from difftrain.records import Mark
from difftrain.world import World


def run_share(
    loaded: Loaded, wanted: Sequence[Asked], folder: Path, config: settings.RunConfig, world: World
) -> None:
    """Ask and grade these items; each chunk is written as a part."""
    size = config.model.batch_size
    bar = tqdm(total=len(wanted), desc="evaluate", unit="item", disable=not world.is_first)
    for start in range(0, len(wanted), size * 4):
        chunk = wanted[start : start + size * 4]
        said = responses(loaded, chunk, config)
        marks = [
            graded(asked, each, config.evaluate) for asked, each in zip(chunk, said, strict=True)
        ]
        artefacts.write_part(folder, artefacts.next_part(folder, world.rank), marks)
        heartbeat.beat(folder, world)
        bar.update(len(chunk))
    bar.close()


def by_benchmark(marks: Sequence[Mark], names: Sequence[str]) -> dict[str, list[Mark]]:
    """The marks of each benchmark, in the order of the names."""
    return {name: [mark for mark in marks if mark.benchmark == name] for name in names}


def summaries(marks: Sequence[Mark], config: EvaluateConfig) -> dict[str, dict[str, float]]:
    """Score and 95 % interval of each benchmark and of their mean, fractions of 1."""
    groups = by_benchmark(marks, config.benchmarks)
    found = {
        name: asdict(summary.headline(name, group, resamples=config.resamples))
        for name, group in groups.items()
    }
    mean = summary.mean_headline(groups, resamples=config.resamples)
    return {**found, "mean": asdict(mean)}


def run(
    load: Callable[[], Loaded],
    folder: Path,
    checkpoint: str,
    config: settings.RunConfig,
    world: World,
) -> None:
    """Fill the folder with a Mark for every item, then summary.json, then made.json."""
    if lineage.read_made(folder) is not None:
        return
    started = time.time()
    heartbeat.beat(folder, world)
    wanted = items(config.evaluate)

    def missing() -> list[Asked]:
        done = {(mark.benchmark, mark.item_id) for mark in artefacts.read(folder, Mark)}
        return [asked for asked in wanted if asked.key not in done]

    here = {asked.key for asked in missing()}
    share = [asked for asked in world.share(wanted) if asked.key in here]
    if share:
        run_share(fitting(load(), config), share, folder, config, world)
    if not world.is_first:
        return heartbeat.wait(folder, world, lambda: lineage.read_made(folder) is not None)
    heartbeat.wait(folder, world, lambda: not missing())
    marks = artefacts.read(folder, Mark)
    lineage.write_json(folder / "summary.json", summaries(marks, config.evaluate))
    results.write(folder, checkpoint, JUDGE, wanted, marks, config)
    lineage.write_made(
        folder,
        settings={**settings.plain(config.evaluate), "judge": JUDGE},
        inputs={"checkpoint": checkpoint},
        seconds=time.time() - started,
        counts={"items": len(marks)},
    )
    heartbeat.clear(folder)
