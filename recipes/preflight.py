"""Is this model fit to be trained? Asked once for each model and setting, before anything else."""

import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from difftrain import plan
from difftrain.config.run_config import RunConfig
from difftrain.data import dataset
from difftrain.pipeline.coordination import World, stage_lock
from difftrain.pipeline.model_session import ModelSession
from difftrain.pipeline.paths import RunPaths
from difftrain.pipeline.stage import run_stage
from difftrain.recipes import benchmarks
from difftrain.records import Sample
from difftrain.train import PreflightFailed, preflight
from difftrain.train.preflight import Candidate, CheckResult, failure_message, results_table

SAMPLES = 4
ROWS = 256
"""Rows looked at for samples that can be used; the whole pool is not read."""


def some(samples: Sequence[Sample]) -> list[Sample]:
    """Four samples with pictures, of as many tasks as there are."""
    shown = [sample for sample in samples if sample.images]
    firsts = {sample.task: sample for sample in reversed(shown)}
    chosen = [sample for sample in shown if firsts[sample.task] is sample]
    return (chosen + [sample for sample in shown if sample not in chosen])[:SAMPLES]


def check(
    config: RunConfig, samples: Sequence[Sample], asking: ModelSession, folder: Path
) -> list[CheckResult]:
    """Run the checks and print the table. Raises PreflightFailed naming every cause."""
    if not (few := some(samples)):
        raise PreflightFailed("no sample has a picture, so nothing can be said of the model")
    started = time.time()
    stages = {stage.value: getattr(config, stage) for stage in config.stages}
    found = preflight.run_checks(Candidate(asking.model, few, config.model, stages, folder))
    if trouble := failure_message(found):
        raise PreflightFailed(trouble)
    print(f"preflight, {time.time() - started:.1f} s\n{results_table(found)}", flush=True)
    return found


def check_model(config: RunConfig, world: World, difference: list[str]) -> Path:
    """The plan, then eight ticks on four samples. Raises PreflightFailed."""
    folder = plan.show(config, world, difference)
    if world.is_first:
        rows = islice(dataset.load_samples(config.data), ROWS)
        samples = [row for row in rows if isinstance(row, Sample)]
        print()
        found = check(
            config, samples, ModelSession(config.model, config.data), folder / "preflight"
        )
        (folder / "preflight.txt").write_text(results_table(found) + "\n")
    return folder


def before_training(
    config: RunConfig,
    places: RunPaths,
    world: World,
    asking: ModelSession,
    samples: Sequence[Sample],
) -> None:
    """The checks by themselves, once; the other processes wait for the first."""
    folder = places.preflight
    with stage_lock(folder, world):
        if world.is_first:
            benchmarks.check_items(config, places)

    def work() -> dict[str, Any]:
        return {each.name: each.detail for each in check(config, samples, asking, folder)}

    run_stage(folder, world, work, inputs={})
