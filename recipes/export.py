"""Scores and picks for other trainers: everything up to the selection, then files."""

from pathlib import Path

from difftrain.config.run_config import RunConfig
from difftrain.export import stage
from difftrain.pipeline.coordination import World, report_failure, wait_for_manifest
from difftrain.pipeline.model_session import ModelSession
from difftrain.pipeline.paths import RunPaths
from difftrain.recipes import difficulty
from difftrain.records import Arm


def run(config: RunConfig, world: World, _: list[str]) -> Path:
    """Data, probe, scores and picks as the recipe makes them, then the export; its folder."""
    places = RunPaths(config)
    samples = difficulty.load_samples(config, places, world)
    session = ModelSession(config.model, config.data)
    difficulty.probe(config, places, world, session, samples)
    difficulty.score(config, places, world)
    difficulty.select(config, places, world, Arm.tuned)
    folder = places.export
    if world.is_first:
        inputs = stage.Inputs(
            data=places.data, score=places.score, select=places.selection(Arm.tuned)
        )
        with report_failure(folder, world):
            return stage.run(config, inputs, folder)
    wait_for_manifest(folder, world)
    return folder
