"""Which samples are worth training on: data, probe, measures, selection (P, section 3)."""

import time
from pathlib import Path

from difftrain import artefacts, lineage, settings
from difftrain.data import stage as data_stage
from difftrain.difficulty import tabulate
from difftrain.places import TUNED, Places
from difftrain.probe import attention, stage
from difftrain.records import Attention, Measure, Pick, Rollout, Sample, Score
from difftrain.select import control, strata
from difftrain.settings import RunConfig
from difftrain.world import World
from recipes.asking import Asking

PROBE = "python launch/probe.py"
SCORE = "python launch/score.py"


def samples(config: RunConfig, places: Places, world: World) -> list[Sample]:
    """Every usable row as a Sample; the others are in quarantine.jsonl with their reasons."""
    if world.is_first and lineage.read_made(places.data) is None:
        data_stage.make(config.data, places.data)
    lineage.wait_for_made(places.data)
    return artefacts.read(places.data, Sample)


def probe(config: RunConfig, places: Places, world: World, asking: Asking) -> None:
    """3.1  Ask under growing masks until the label is settled (Eq. 1 to 3).
    3.2  Look where the first right answer looked (Eq. 4)."""
    pool = samples(config, places, world)
    inputs = {"data": places.data.name, "model": places.model}
    stage.run(asking.loaded, pool, places.probe, config, world, inputs)
    if Measure.cmab in config.difficulty.wanted:
        attention.run(asking.loaded, pool, places.probe, places.attention, config, world)


def score(config: RunConfig, places: Places, world: World) -> Path:
    """One Score for each sample and measure: pure formulas over the probe's tables."""
    if world.is_first and lineage.read_made(places.score) is None:
        started = time.time()
        rollouts = artefacts.read_finished(places.probe, Rollout, PROBE)
        table = tabulate.tables(rollouts, config.probe.percents, config.probe.draws)
        seen = {row.sample_id: row for row in artefacts.read(places.attention, Attention)}
        ids = [sample.sample_id for sample in artefacts.read(places.data, Sample)]
        found = tabulate.scores(ids, table, seen, config.probe.percents, config.difficulty)
        artefacts.write_all(places.score, found)
        lineage.write_made(
            places.score,
            settings=settings.plain(config.difficulty),
            inputs={"probe": places.probe.name, "data": places.data.name},
            seconds=time.time() - started,
            counts=strata.count_strata(found, config.difficulty.measure),
        )
    lineage.wait_for_made(places.score)
    return places.score


def select(config: RunConfig, places: Places, world: World, arm: str) -> list[Pick]:
    """4.1  The strata that the row keeps, or an equal-size random control.

    Raises NothingChosen when the strata hold fewer samples than one step needs.
    """
    folder = places.select(arm)
    if world.is_first and lineage.read_made(folder) is None:
        started = time.time()
        scores = artefacts.read_finished(places.score, Score, SCORE)
        counts = strata.count_strata(scores, config.difficulty.measure)
        picks = strata.chosen(scores, config.difficulty.measure, config.select.keep)
        picks = strata.enough(picks, 1, counts)
        if config.select.random or arm != TUNED:
            ids = [each.sample_id for each in artefacts.read(places.data, Sample)]
            picks = control.random_picks(ids, len(picks), config.seed, f"{config.name}-{arm}")
        artefacts.write_all(folder, picks)
        lineage.write_made(
            folder,
            settings={**settings.plain(config.select), "arm": arm},
            inputs={"score": places.score.name},
            seconds=time.time() - started,
            counts={"picks": len(picks)},
        )
    counts = lineage.wait_for_made(places.score)["counts"]
    lineage.wait_for_made(folder)
    picks = artefacts.read(folder, Pick)
    return strata.enough(picks, config.grpo.prompts_per_step, counts)
