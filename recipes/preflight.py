"""Is this model fit to be trained? Asked once for each model and setting, before anything else."""

import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from difftrain.config import run_config
from difftrain.config.run_config import RunConfig
from difftrain.data import dataset
from difftrain.pipeline import coordination, manifest
from difftrain.pipeline.coordination import World
from difftrain.pipeline.paths import Places
from difftrain.recipes import benchmarks, plan
from difftrain.recipes.asking import Asking
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


def folder_of(config: RunConfig, places: Places) -> Path:
    """Where the outcome lies; another model, precision or budget of pixels is asked again, and so
    are other parts to train."""
    trained = {stage.value: getattr(config, stage) for stage in config.stages}
    own = {
        "dtype": config.model.dtype,
        "freeze_vision": {name: stage.freeze_vision for name, stage in trained.items()},
        "lora": {name: run_config.plain(stage.lora) for name, stage in trained.items()},
        "pixels": [config.data.min_pixels, config.data.max_pixels],
    }
    return places.folder("preflight", own, places.data, places.model)


def check(
    config: RunConfig, samples: Sequence[Sample], asking: Asking, folder: Path
) -> list[CheckResult]:
    """Run the checks and print the table. Raises PreflightFailed naming every cause."""
    if not (few := some(samples)):
        raise PreflightFailed("no sample has a picture, so nothing can be said of the model")
    started = time.time()
    found = preflight.run_checks(Candidate(asking.model, few, config, folder))
    if trouble := failure_message(found):
        raise PreflightFailed(trouble)
    seconds = time.time() - started
    print(f"preflight, {seconds:.1f} s\n{results_table(found)}", flush=True)
    manifest.write_manifest(
        folder,
        settings=None,
        inputs={},
        seconds=seconds,
        counts={result.name: result.detail for result in found},
    )
    return found


def check_model(config: RunConfig, world: World, difference: list[str]) -> Path:
    """The plan, then eight ticks on four samples. Raises PreflightFailed."""
    folder = plan.show(config, world, difference)
    if world.is_first:
        rows = islice(dataset.load_samples(config.data), ROWS)
        samples = [row for row in rows if isinstance(row, Sample)]
        print()
        found = check(config, samples, Asking(config), folder / "preflight")
        (folder / "preflight.txt").write_text(results_table(found) + "\n")
    return folder


def before_training(
    config: RunConfig, places: Places, world: World, asking: Asking, samples: Sequence[Sample]
) -> None:
    """The checks by themselves, once; the other processes wait for the first."""
    folder = folder_of(config, places)
    if world.is_first:
        with coordination.report_failure(folder, world):
            benchmarks.readable(config, places)
            if manifest.read_manifest(folder) is None:
                check(config, samples, asking, folder)
    coordination.wait_for_manifest(folder, world)
