"""Which samples are worth training on: data, probe, measures, selection (P, section 3)."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from difftrain.config import run_config
from difftrain.config.run_config import RunConfig
from difftrain.difficulty import score as scoring
from difftrain.pipeline import coordination, manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.paths import TUNED, Places
from difftrain.probe import attention_pass, run, state
from difftrain.recipes.asking import Asking
from difftrain.recipes.pool import samples
from difftrain.records import Attention, Measure, Rollout, Sample, Score, Selection, TrainStage
from difftrain.select import rap, strata

PROBE = "python launch/probe.py"
SCORE = "python launch/score.py"
UNGUESSED = "pism_uncorrected"
"""Beside the scores, where PISM is chance-aware: its scores as the paper has them."""


def probe(config: RunConfig, places: Places, world: World, asking: Asking) -> None:
    """3.1  Ask under growing masks until the label is settled (Eq. 1 to 3).
    3.2  Look where the first right answer looked (Eq. 4), and ACE's first one (T).
    3.3  Ask without the picture, for CDE (T); the answers with it are those of 3.1."""
    ask(config, places, world, asking, samples(config, places, world))


def ask(
    config: RunConfig, places: Places, world: World, asking: Asking, pool: list[Sample]
) -> None:
    """The probe and the attention pass over these samples."""
    inputs = {"data": places.data.name, "model": places.model}
    run.run_probe(asking.engine, pool, places.probe, config, world, inputs)
    if {Measure.cmab, Measure.ace} & set(config.difficulty.measures):
        asking.rest()
        attention_pass.run_attention_pass(
            asking.loaded, pool, places.probe, places.attention, config, world
        )


def answered(places: Places) -> list[str]:
    """The samples that the probe has answers for, by id; it tells why of all others.

    That is asked once, to score them: a probe that grows for another run may set a sample aside
    that was scored before, so whatever comes later takes the samples from the scores.
    """
    samples = parquet.read(places.data, Sample)
    return [each.sample_id for each in state.without_failed(samples, places.probe)]


def score(config: RunConfig, places: Places, world: World) -> Path:
    """One Score for each sample and measure: pure formulas over the probe's tables."""
    if world.is_first and manifest.read_manifest(places.score) is None:
        with coordination.report_failure(places.score, world):
            started = time.time()
            found, plain = scored(config, places, answered(places))
            parquet.write_all(places.score / UNGUESSED, plain)
            parquet.write_all(places.score, found)
            manifest.write_manifest(
                places.score,
                settings=run_config.plain(config.difficulty),
                inputs={"probe": places.probe.name, "data": places.data.name},
                seconds=time.time() - started,
                counts=strata.count_strata(found, config.difficulty.measure),
            )
    coordination.wait_for_manifest(places.score, world)
    return places.score


def scored(config: RunConfig, places: Places, ids: list[str]) -> tuple[list[Score], list[Score]]:
    """The samples' scores; and, where PISM is chance-aware, those that the paper has."""
    percents = config.probe.mask_percents
    known = scoring.evidence(
        parquet.read_finished(places.probe, Rollout, PROBE),
        parquet.read(places.attention, Attention),
        percents,
        config.probe.draws,
        config.probe.cde_rollouts,
    )
    return (
        scoring.score_all(ids, known, percents, config.difficulty),
        scoring.uncorrected_pism_scores(ids, known, percents, config.difficulty.pism),
    )


def select(config: RunConfig, places: Places, world: World, arm: str) -> list[Selection]:
    """4.1  What the row gives to GRPO: strata or RAP's choice, or an equal-size random control.

    Raises NothingChosen when that is fewer samples than one step needs.
    """
    folder = places.select(arm)
    if world.is_first and manifest.read_manifest(folder) is None:
        with coordination.report_failure(folder, world):
            choose(config, places, arm)
    made = coordination.wait_for_manifest(folder, world)
    picks, least = parquet.read(folder, Selection), config.grpo.prompts_per_step
    if config.select.rap:
        return rap.require_min(picks, least, made["counts"]["funnel"], config.select.rap)
    return strata.require_min(
        picks, least, coordination.wait_for_manifest(places.score, world)["counts"]
    )


def choose(config: RunConfig, places: Places, arm: str) -> None:
    """Choose, and write the picks. Raises NothingChosen if there is none."""
    started, folder = time.time(), places.select(arm)
    scores = parquet.read_finished(places.score, Score, SCORE)
    random = config.select.random or arm != TUNED
    picks, counts = choice(config, scores, None if random else folder)
    if random:
        draw = draw_name(config, arm, TrainStage.grpo)
        able = list(dict.fromkeys(each.sample_id for each in scores))
        picks = strata.random_control(able, len(picks), config.seed, draw)
    parquet.write_all(folder, picks)
    manifest.write_manifest(
        folder,
        settings={**run_config.plain(config.select), "arm": arm},
        inputs={"score": places.score.name},
        seconds=time.time() - started,
        counts={"picks": len(picks), **counts},
    )


def draw_name(config: RunConfig, arm: str, stage: TrainStage) -> str:
    """What a random set is drawn by, beside the seed.

    Rows of one table share their random sets, so that two of them differ only in what their names
    say; a control is a draw of its run's own. Of one name a smaller set is part of a larger one.
    """
    if arm == TUNED:
        return f"rows-{stage}"
    return f"{config.name}-{arm}" if stage is TrainStage.grpo else f"{config.name}-{arm}-{stage}"


def choice(
    config: RunConfig, scores: list[Score], folder: Path | None
) -> tuple[list[Selection], dict[str, Any]]:
    """The picks and what manifest.json counts. RAP's reasons for every sample go below the folder.

    Raises NothingChosen if there is no pick.
    """
    picks, found = chosen(config, scores)
    if found is None:
        counts = strata.count_strata(scores, config.difficulty.measure)
        return strata.require_min(picks, 1, counts), {}
    if folder is not None:
        parquet.write_all(folder / rap.DECISIONS_FOLDER, found.decisions)
    funnel = found.funnel()
    return rap.require_min(picks, 1, funnel, config.select.rap), {"funnel": funnel}


def chosen(config: RunConfig, scores: list[Score]) -> tuple[list[Selection], rap.RapResult | None]:
    """The picks, maybe none, and RAP's whole choice where it chooses."""
    if not config.select.rap:
        return strata.select_by_stratum(
            scores, config.difficulty.measure, config.select.strata
        ), None
    found = rap.run_rap(table(config, scores))
    return found.picks, found


def table(config: RunConfig, scores: Iterable[Score]) -> rap.PoolScores:
    """The scores of the measures that choose, as columns (T, CDE, ACE and DRM)."""
    columns: dict[Measure, dict[str, float | None]] = {}
    for each in scores:
        columns.setdefault(each.measure, {})[each.sample_id] = each.value

    def column(measure: Measure) -> list[Any] | None:
        return list(columns[measure].values()) if measure in config.select.rap else None

    return rap.PoolScores(
        sample_id_N=list(columns[config.difficulty.measure]),
        discrepancy_N=column(Measure.cde),
        bias_N=column(Measure.ace),
        difficulty_N=column(Measure.drm),
        draws=config.probe.cde_rollouts,
        lambda_c=config.difficulty.cde.lambda_c,
        lambda_a=config.difficulty.ace.lambda_a,
    )
