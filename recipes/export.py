"""Scores and picks for other trainers: everything up to the selection, then files."""

from pathlib import Path

from difftrain.config.run_config import RunConfig, plain
from difftrain.export import stage
from difftrain.pipeline.coordination import World, report_failure, stage_lock, wait_for_manifest
from difftrain.pipeline.paths import TUNED, Places
from difftrain.recipes import difficulty
from difftrain.recipes.asking import Asking


def run(config: RunConfig, world: World, _: list[str]) -> Path:
    """Data, probe, scores and picks as the recipe makes them, then the export; its folder."""
    places = Places(config)
    with stage_lock(places.probe, world):
        difficulty.probe(config, places, world, Asking(config))
    with stage_lock(places.score, world):
        difficulty.score(config, places, world)
    with stage_lock(places.select(TUNED), world):
        difficulty.select(config, places, world, TUNED)
    folder = exported(config, places)
    if world.is_first:
        inputs = stage.Inputs(data=places.data, score=places.score, select=places.select(TUNED))
        with report_failure(folder, world):
            return stage.run(config, inputs, folder)
    wait_for_manifest(folder, world)
    return folder


def exported(config: RunConfig, places: Places) -> Path:
    """Where the export lies: where it is published does not matter to what it holds."""
    own = {"formats": plain(config.export)["formats"], "name": config.name, "seed": config.seed}
    return places.folder("export", own, places.select(TUNED), places.data)
