"""Selects the samples to train on (Qi et al. 2026, section 3; RAP, "Truth in the Few", section 3).

probe     3.1  generate responses while more and more of the image is hidden
          3.2  measure what the responses attend to
score     3.3  compute scores and difficulty strata by the measures PISM, CMAB, CDE, ACE and DRM
select    4.1  select the samples of some strata, or those that RAP selects, or random samples
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from difftrain.config.run_config import RunConfig
from difftrain.data.build import build_dataset
from difftrain.difficulty.score import gather_evidence, score_all, uncorrected_pism_scores
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.model_session import ModelSession
from difftrain.pipeline.paths import RunPaths
from difftrain.pipeline.stage import run_stage
from difftrain.probe.attention_pass import run_attention_pass
from difftrain.probe.run import run_probe
from difftrain.probe.schedule import without_failed
from difftrain.records import Arm, Attention, Measure, Rollout, Sample, Score, Selection, TrainStage
from difftrain.select import (
    count_strata,
    random_control,
    rap,
    require_min_size,
    select_by_id,
    select_by_stratum,
)

PROBE_COMMAND = "python launch/probe.py"
SCORE_COMMAND = "python launch/score.py"
UNCORRECTED = "pism_uncorrected"
"""Subfolder of the scores: PISM's without chance correction, if the correction is on."""


def load_samples(config: RunConfig, paths: RunPaths, world: World) -> list[Sample]:
    """Every usable row of the data as a Sample; quarantine.jsonl has the other rows."""
    build_dataset(config.data, paths.data, world)
    return parquet.read_rows(paths.data, Sample)


def probe(
    config: RunConfig, paths: RunPaths, world: World, session: ModelSession, samples: list[Sample]
) -> None:
    """Probe these samples and, if a measure needs it, run the attention pass on them."""
    # 3.1  K responses at each mask ratio, from the full image up to the first ratio that fails
    #      (Qi et al. 2026, Eq. 1 to 3), and M responses without the image for CDE (RAP).
    inputs = {"data": paths.data.name, "model": paths.model}
    run_probe(session.engine, samples, paths.probe, world, inputs, config, paths.seed)

    # 3.2  Attention on image and text tokens for the first correct response to the full image
    #      (Qi et al. 2026, Eq. 4), and ACE's value for the first response (RAP).
    if {Measure.cmab, Measure.ace} & set(config.difficulty.measures):
        session.close_engines()
        folders = paths.probe, paths.attention
        run_attention_pass(lambda: session.model, samples, *folders, world, config, paths.seed)


def score(config: RunConfig, paths: RunPaths, world: World) -> Path:
    """3.3  Write one Score for each sample and measure; returns the folder of the scores."""

    def write_scores() -> dict[str, int]:
        # Another run may extend this probe and fail on a sample that is scored here. So later
        # stages read the sample ids from the scores.
        samples = without_failed(parquet.read_rows(paths.data, Sample), paths.probe)
        sample_ids = [sample.sample_id for sample in samples]
        scores, uncorrected = score_samples(config, paths, sample_ids)
        parquet.write_all(paths.score / UNCORRECTED, uncorrected)
        parquet.write_all(paths.score, scores)
        return count_strata(scores, config.difficulty.measure)

    inputs = {"probe": paths.probe.name, "data": paths.data.name}
    run_stage(paths.score, world, write_scores, settings=asdict(config.difficulty), inputs=inputs)
    return paths.score


def score_samples(
    config: RunConfig, paths: RunPaths, sample_ids: list[str]
) -> tuple[list[Score], list[Score]]:
    """(scores of all measures, PISM's scores without chance correction if the correction is on)."""
    probe, difficulty = config.probe, config.difficulty
    rollouts = parquet.read_finished(paths.probe, Rollout, PROBE_COMMAND)
    evidence = gather_evidence(rollouts, parquet.read_rows(paths.attention, Attention), probe)
    scores = score_all(sample_ids, evidence, probe, difficulty)
    return scores, uncorrected_pism_scores(sample_ids, evidence, probe, difficulty.pism)


def select(config: RunConfig, paths: RunPaths, world: World, arm: str) -> list[Selection]:
    """4.1  GRPO's samples for an arm (tuned or control). Raises EmptySelectionError if too few."""
    folder = paths.selection(arm)

    def require_min(
        selected: list[Selection], minimum: int, strata: dict[str, int], funnel: dict | None
    ) -> list[Selection]:
        if funnel:
            return rap.require_min(selected, minimum, funnel, config.select.rap)
        return require_min_size(selected, minimum, strata)

    def write_selection() -> dict[str, Any]:
        scores = parquet.read_finished(paths.score, Score, SCORE_COMMAND)
        selected, rap_result = select_samples(config, scores)
        funnel = rap_result.funnel if rap_result else None  # how many samples each step left
        require_min(selected, 1, count_strata(scores, config.difficulty.measure), funnel)
        if config.select.random or arm != Arm.tuned:
            # Random recipes and control arms train on as many random samples instead.
            sample_ids = list(dict.fromkeys(score.sample_id for score in scores))
            name = random_set_name(config.name, arm, TrainStage.grpo)
            selected = random_control(sample_ids, len(selected), config.seed, name)
        elif rap_result:
            parquet.write_all(folder / rap.DECISIONS_FOLDER, rap_result.decisions)
        parquet.write_all(folder, selected)
        return {"selected": len(selected)} | ({"funnel": funnel} if funnel else {})

    settings, inputs = asdict(config.select) | {"arm": arm}, {"score": paths.score.name}
    content = run_stage(folder, world, write_selection, settings=settings, inputs=inputs)
    selected, funnel = parquet.read_rows(folder, Selection), content["counts"].get("funnel")
    strata = (manifest.read_manifest(paths.score) or {})["counts"]  # {} for the type checker
    return require_min(selected, config.grpo.prompts_per_step, strata, funnel)


def select_samples(
    config: RunConfig, scores: list[Score]
) -> tuple[list[Selection], rap.RapResult | None]:
    """The samples in select.ids, else in select.strata, else RAP's samples and its full result."""
    measure = config.difficulty.measure
    if config.select.ids:
        where = f"select.ids={config.select.ids}"
        return select_by_id(scores, measure, config.select.listed_ids, where), None
    if not config.select.rap:
        return select_by_stratum(scores, measure, config.select.strata), None
    values: dict[Measure, dict[str, Any]] = {}
    for score in scores:
        values.setdefault(score.measure, {})[score.sample_id] = score.value
    cde_N, ace_N, drm_N = (  # axis N: samples
        list(values[step].values()) if step in config.select.rap else None
        for step in (Measure.cde, Measure.ace, Measure.drm)
    )
    draws, lambda_c = config.probe.cde_rollouts, config.difficulty.cde.lambda_c
    lambda_a = config.difficulty.ace.lambda_a
    result = rap.run_rap(list(values[measure]), cde_N, ace_N, drm_N, draws, lambda_c, lambda_a)
    return result.selections, result


def random_set_name(run_name: str, arm: str, stage: TrainStage) -> str:
    """The name that seeds a random set, together with the run's seed.

    A recipe that trains on random samples gets the same name in every run, so that the recipes of
    one results table share these samples. The control set has another name in every run.
    """
    if arm == Arm.tuned:
        return f"rows-{stage}"
    return f"{run_name}-{arm}" if stage is TrainStage.grpo else f"{run_name}-{arm}-{stage}"
