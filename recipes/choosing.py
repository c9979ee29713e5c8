"""Which samples each training stage is given (P, section 4): GRPO's choice and SFT's."""

import time
from collections.abc import Callable

from difftrain.config import run_config
from difftrain.config.run_config import RunConfig
from difftrain.config.train import Dropped
from difftrain.pipeline import coordination, manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.paths import TUNED, Places
from difftrain.recipes import difficulty, sft_then_grpo
from difftrain.records import Sample, Score, Selection, TrainStage
from difftrain.select import strata
from difftrain.train import sft_targets


def for_sft(config: RunConfig, places: Places, world: World, arm: str) -> list[Selection]:
    """4.1  What the row gives to SFT: strata, or a random set of the same size.

    A sample without a target is dropped with a count, and a random set is drawn among those that
    have one, so that both have the very same size. Raises NothingChosen if that is less than one
    step.
    """
    folder = places.select(arm, TrainStage.sft)
    if world.is_first and manifest.read_manifest(folder) is None:
        with coordination.report_failure(folder, world):
            choose_for_sft(config, places, arm)
    lost = sft_targets.dropped_text(
        coordination.wait_for_manifest(folder, world)["counts"]["dropped"]
    )
    picks, least = parquet.read(folder, Selection), config.sft.samples_per_step
    counts = coordination.wait_for_manifest(places.score, world)["counts"]
    return strata.require_min(picks, least, counts, TrainStage.sft, lost)


def choose_for_sft(config: RunConfig, places: Places, arm: str) -> None:
    """Choose, and write the picks with what was dropped. Raises NothingChosen if there is none."""
    started, folder = time.time(), places.select(arm, TrainStage.sft)
    scores = parquet.read_finished(places.score, Score, difficulty.SCORE)
    measure, keep = config.difficulty.measure, config.select.sft_strata
    known = {each.sample_id for each in scores}
    samples = [each for each in parquet.read(places.data, Sample) if each.sample_id in known]
    made = sft_then_grpo.targets(config, places, samples)
    wanted = strata.select_by_stratum(scores, measure, keep, TrainStage.sft)
    dropped = sft_targets.count_dropped({pick.sample_id: made[pick.sample_id] for pick in wanted})
    picks = [pick for pick in wanted if not isinstance(made[pick.sample_id], Dropped)]
    if config.select.sft_random or arm != TUNED:
        able = [each for each, text in made.items() if not isinstance(text, Dropped)]
        draw = difficulty.draw_name(config, arm, TrainStage.sft)
        picks = strata.random_control(able, len(picks), config.seed, draw, TrainStage.sft)
    held = strata.count_strata(scores, measure)
    lost = sft_targets.dropped_text(dropped)
    strata.require_min(picks, 1, held, TrainStage.sft, lost)
    if lost:
        print(f"chosen for SFT, {arm}: {len(picks)} samples{lost}", flush=True)
    parquet.write_all(folder, picks)
    manifest.write_manifest(
        folder,
        settings={**run_config.plain(config.select), "arm": arm, "targets": config.sft.targets},
        inputs={"score": places.score.name},
        seconds=time.time() - started,
        counts={"picks": len(picks), "dropped": dropped},
    )


CHOOSE: dict[TrainStage, Callable[[RunConfig, Places, World, str], list[Selection]]] = {
    TrainStage.sft: for_sft,
    TrainStage.grpo: difficulty.select,
}
"""What chooses for each training stage."""
