"""Which samples each training stage is given (P, section 4): GRPO's choice and SFT's."""

import time
from collections.abc import Callable

from difftrain import artefacts, heartbeat, lineage, settings
from difftrain.places import TUNED, Places
from difftrain.records import Arm, Pick, Sample, Score
from difftrain.select import control, strata
from difftrain.settings import RunConfig
from difftrain.train import lessons
from difftrain.train.lessons import Dropped
from difftrain.world import World
from recipes import difficulty, sft_then_grpo


def for_sft(config: RunConfig, places: Places, world: World, arm: str) -> list[Pick]:
    """4.1  What the row gives to SFT: strata, or a random set of the same size.

    A sample without a target is dropped with a count, and a random set is drawn among those that
    have one, so that both have the very same size. Raises NothingChosen if that is less than one
    step.
    """
    folder = places.select(arm, Arm.sft)
    if world.is_first and lineage.read_made(folder) is None:
        with heartbeat.working(folder, world):
            choose_for_sft(config, places, arm)
    lost = lessons.told(heartbeat.made_by_first(folder, world)["counts"]["dropped"])
    picks, least = artefacts.read(folder, Pick), config.sft.samples_per_step
    counts = heartbeat.made_by_first(places.score, world)["counts"]
    return strata.enough(picks, least, counts, Arm.sft, lost)


def choose_for_sft(config: RunConfig, places: Places, arm: str) -> None:
    """Choose, and write the picks with what was dropped. Raises NothingChosen if there is none."""
    started, folder = time.time(), places.select(arm, Arm.sft)
    scores = artefacts.read_finished(places.score, Score, difficulty.SCORE)
    measure, keep = config.difficulty.measure, config.select.sft_keep
    known = {each.sample_id for each in scores}
    samples = [each for each in artefacts.read(places.data, Sample) if each.sample_id in known]
    made = sft_then_grpo.targets(config, places, samples)
    wanted = strata.chosen(scores, measure, keep, Arm.sft)
    dropped = lessons.counted({pick.sample_id: made[pick.sample_id] for pick in wanted})
    picks = [pick for pick in wanted if not isinstance(made[pick.sample_id], Dropped)]
    if config.select.sft_random or arm != TUNED:
        able = [each for each, text in made.items() if not isinstance(text, Dropped)]
        draw = difficulty.draw_name(config, arm, Arm.sft)
        picks = control.random_picks(able, len(picks), config.seed, draw, Arm.sft)
    held = strata.count_strata(scores, measure)
    lost = lessons.told(dropped)
    strata.enough(picks, 1, held, Arm.sft, lost)
    if lost:
        print(f"chosen for SFT, {arm}: {len(picks)} samples{lost}", flush=True)
    artefacts.write_all(folder, picks)
    lineage.write_made(
        folder,
        settings={**settings.plain(config.select), "arm": arm, "targets": config.sft.targets},
        inputs={"score": places.score.name},
        seconds=time.time() - started,
        counts={"picks": len(picks), "dropped": dropped},
    )


CHOOSE: dict[Arm, Callable[[RunConfig, Places, World, str], list[Pick]]] = {
    Arm.sft: for_sft,
    Arm.grpo: difficulty.select,
}
"""What chooses for each training stage."""
