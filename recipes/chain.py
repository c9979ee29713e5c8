"""The whole chain, and its first stages alone: what the launchers run.

score -> select -> train -> evaluate -> compare; each step does only what is missing.
"""

import os
import shutil
from dataclasses import replace
from pathlib import Path

from difftrain.config import run_config
from difftrain.config.report import Tracker
from difftrain.config.run_config import Control, RunConfig, TrainStages
from difftrain.pipeline import manifest
from difftrain.pipeline.coordination import World, stage_lock
from difftrain.pipeline.paths import BASE, CONTROL, TUNED, Places
from difftrain.recipes import (
    benchmarks,
    choosing,
    difficulty,
    grpo,
    overlap,
    pool,
    preflight,
    reliability,
    sft_then_grpo,
)
from difftrain.recipes.asking import Asking
from difftrain.records import TrainStage
from difftrain.report.inputs import ArmFolders, RunInputs
from difftrain.report.tracking import check_login, track
from difftrain.report.write import write

PROGRAMS = {TrainStages.grpo: grpo.run, TrainStages.sft_then_grpo: sft_then_grpo.run}
"""What trains one arm."""


def probe(config: RunConfig, world: World, _: list[str]) -> Path:
    """Data and probe; returns the probe's folder."""
    places, asking = Places(config), Asking(config)
    greet(asking, places.probe)
    with stage_lock(places.probe, world):
        difficulty.probe(config, places, world, asking)
    return places.probe


def score(config: RunConfig, world: World, difference: list[str]) -> Path:
    """Data, probe and scores; returns the scores' folder."""
    probe(config, world, difference)
    places = Places(config)
    with stage_lock(places.score, world):
        return difficulty.score(config, places, world)


def evaluate(config: RunConfig, world: World, _: list[str]) -> Path:
    """The benchmarks of the model that model.name names; returns the marks' folder."""
    places, asking = Places(config), Asking(config)
    benchmarks.greet(places, asking)
    with stage_lock(places.responses(BASE), world):
        return benchmarks.base(config, places, world, asking)


def train(config: RunConfig, world: World, difference: list[str]) -> Path:
    """Everything; returns the run's folder.

    A server has no trained weights, so all benchmarks are asked of weights in this process.
    """
    if world.is_first:
        check_login(config.report_to)
    places, asking = Places(config, trained=True), Asking(config)
    greet(asking, places.probe)
    with stage_lock(preflight.folder_of(config, places), world):
        samples = pool.samples(config, places, world)
        preflight.before_training(config, places, world, asking, samples)
    with stage_lock(places.probe, world):
        difficulty.ask(config, places, world, asking, samples)
    with stage_lock(places.score, world):
        difficulty.score(config, places, world)
    arms = [TUNED, CONTROL] if config.control is Control.random else [TUNED]
    for arm in arms:
        for stage in config.stages:
            with stage_lock(places.select(arm, stage), world):
                choosing.CHOOSE[stage](config, places, world, arm)
    with stage_lock(places.contamination, world):
        overlap.check(config, places, world, arms)
    steady = reliability.run(config, places, world, asking)
    with stage_lock(places.responses(BASE), world):
        asking = asking.here()
        marks = {BASE: benchmarks.base(config, places, world, asking)}
    asking.release()
    for arm in arms:
        with stage_lock(places.train(arm), world):
            PROGRAMS[config.train_stages](config, places, world, arm)
        with stage_lock(places.responses(arm), world):
            marks[arm] = benchmarks.tuned(config, places, world, arm)
    if world.is_first:
        finish(config, places, marks, difference, steady)
    return places.run


def greet(asking: Asking, folder: Path) -> None:
    """Raises ConfigError if the engine cannot be reached and this stage is not finished."""
    if manifest.read_manifest(folder) is None:
        asking.greet()


def report(config: RunConfig, world: World, difference: list[str]) -> Path:
    """Write the report of a finished run again. Raises MissingArtifact if a stage is missing."""
    if world.is_first:
        check_login(config.report_to)
    places = Places(config, trained=True)
    arms = [TUNED, CONTROL] if config.control is Control.random else [TUNED]
    marks = {name: places.marks(name) for name in (BASE, *arms)}
    steady = reliability.place(config, places)
    if world.is_first:
        finish(config, places, marks, difference, steady)
    return places.run


def finish(
    config: RunConfig,
    places: Places,
    marks: dict[str, Path],
    difference: list[str],
    steady: Path | None,
) -> None:
    """The report, the tracker, and the checkpoint beside them."""
    inputs = RunInputs(
        folder=places.run,
        settings=run_config.plain(config),
        recipe_difference=difference,
        data=places.data,
        probe=places.probe,
        attention=places.attention if manifest.read_manifest(places.attention) else None,
        score=places.score,
        reliability=steady,
        arms={arm: arm_folders(config, places, arm) for arm in marks if arm != BASE},
        marks=marks,
        differences=benchmarks.differences(marks, config.evaluate.resamples),
        contamination=places.contamination
        if manifest.read_manifest(places.contamination)
        else None,
    )
    found = write(inputs)
    for name in ("adapter", "checkpoint"):  # a sweep takes a run with a checkpoint as finished
        if (made := places.train(TUNED) / name).is_dir():
            link_tree(made, places.run / name)
    if config.report_to is not Tracker.none:
        track(config.report_to, inputs, found)


def arm_folders(config: RunConfig, places: Places, arm: str) -> ArmFolders:
    """Where the stages of one trained arm lie."""
    folders = ArmFolders(select=places.select(arm), train=places.train(arm))
    if TrainStage.sft not in config.stages:
        return folders
    return replace(folders, sft_select=places.select(arm, TrainStage.sft), sft=places.sft(arm))


def link_tree(source: Path, target: Path) -> None:
    """The same files in a second place without a second copy, where the disk allows links.

    The target is there with all files or not at all, whenever this is cut off.
    """

    def link(one: str, two: str) -> None:
        try:
            os.link(one, two)
        except OSError:
            shutil.copy2(one, two)

    half = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(half, ignore_errors=True)
    shutil.copytree(source, half, copy_function=link)
    shutil.rmtree(target, ignore_errors=True)
    half.replace(target)
