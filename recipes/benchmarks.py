"""Did it help? The same benchmarks under the same settings, before and after (P, section 5)."""

import itertools
from dataclasses import replace
from pathlib import Path

from difftrain.config.run_config import RunConfig
from difftrain.evaluate import grade, summary, unscored, write_results
from difftrain.evaluate.items import load_items
from difftrain.pipeline import parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.paths import BASE, Places
from difftrain.recipes.asking import Asking
from difftrain.records import ItemResult


def readable(config: RunConfig, places: Places) -> None:
    """5.0  The official items are there and can be graded: told before anything is spent on them.

    Raises SchemaError, or BenchmarkNotFound for a hub id without network.
    """
    if config.evaluate.official and not write_results.is_done(places.marks(BASE)):
        load_items(replace(config.evaluate, benchmarks=config.evaluate.official))


def greet(places: Places, asking: Asking) -> None:
    """Told before items are read: whether the engine is there. Raises ConfigError if it is not.

    Where responses are kept, only the items say whether one is missing: `base` greets then.
    """
    if not parquet.parts(places.responses(BASE)) and not write_results.is_done(places.marks(BASE)):
        asking.greet()


def base(config: RunConfig, places: Places, world: World, asking: Asking) -> Path:
    """5.1  The model as it came; every comparison carries it."""
    return evaluate(config, places, world, asking, BASE, config.model.name)


def tuned(config: RunConfig, places: Places, world: World, arm: str) -> Path:
    """5.2  A trained arm's checkpoint."""
    checkpoint = places.train(arm) / "checkpoint"
    model = replace(config.model.here, name=str(checkpoint), revision=None)
    asking = Asking(config, model)
    folder = evaluate(config, places, world, asking, arm, f"train/{checkpoint.parent.name}")
    asking.release()
    return folder


def evaluate(
    config: RunConfig, places: Places, world: World, asking: Asking, arm: str, checkpoint: str
) -> Path:
    """One checkpoint on the benchmarks; returns the folder of its item results."""
    folders = grade.EvaluationFolders(places.responses(arm), places.marks(arm), places.replies)
    data_pixels = config.data.min_pixels, config.data.max_pixels
    grade.evaluate(
        asking.engine, folders, checkpoint, config.evaluate, config.model, data_pixels, world
    )
    return folders.results


def differences(marks: dict[str, Path], resamples: int) -> dict[str, dict[str, float]]:
    """5.3  Paired differences with 95 % intervals: the very same items, drawn again together.

    None are taken where a benchmark has no score: its failures would count as a difference of 0.
    """
    rows = {
        name: parquet.read_finished(folder, ItemResult, "python launch/train.py")
        for name, folder in marks.items()
    }
    for each in rows.values():
        if unscored.no_mean_reason(
            write_results.by_benchmark(each, {mark.benchmark for mark in each})
        ):
            return {}
    return {
        f"{after} - {before}": summary.paired_difference(
            rows[before], rows[after], resamples=resamples
        ).to_json()
        for after, before in itertools.combinations(reversed(list(rows)), 2)
    }
