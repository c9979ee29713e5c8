"""Selects the samples to train on (Qi et al. 2026, section 3; RAP, "Truth in the Few", section 3).

probe     3.1  generate responses while more and more of the image is hidden
          3.2  measure what the responses attend to
          3.3  measure how likely the gold answers are with and without the image
score     3.4  compute scores and difficulty strata by the measures
select    4.1  select the samples of some strata, or those that RAP selects, or random samples
"""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from difftrain.config.model import EngineKind
from difftrain.config.run_config import ConfigError, RunConfig
from difftrain.data.build import build_dataset
from difftrain.difficulty.evidence import AnswerLikelihood, Evidence, gather_evidence
from difftrain.difficulty.score import score_all, score_details, uncorrected_pism_scores
from difftrain.model import family, family_check, loading
from difftrain.model.loading import LoadedModel
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.model_session import ModelSession
from difftrain.pipeline.paths import RunPaths
from difftrain.pipeline.stage import run_stage
from difftrain.probe.attention_pass import run_attention_pass
from difftrain.probe.likelihood_pass import run_likelihood_pass
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

logger = logging.getLogger(__name__)

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
    """Probe these samples and, if a measure needs them, run two other passes on them."""
    # 3.0  The model's attention must suit the measures, and its family must be read correctly.
    if manifest.read_manifest(paths.probe) is None:
        check_family(config, session, samples)

    # 3.1  K responses at each mask ratio, from the full image up to the first ratio that fails
    #      (Qi et al. 2026, Eq. 1 to 3), and M responses without the image for CDE (RAP).
    inputs = {"data": paths.data.name, "model": paths.policy}
    run_probe(session.engine, samples, paths.probe, world, inputs, config, paths.seed)

    # 3.2  Attention on image and text tokens for the first correct response to the full image
    #      (Qi et al. 2026, Eq. 4), and ACE's value for the first response (RAP).
    if {Measure.cmab, Measure.ace} & set(config.difficulty.measures):
        session.close_engines()
        folders = paths.probe, paths.attention

        def load_model() -> LoadedModel:
            require_known(config, session, samples)
            return session.model

        run_attention_pass(load_model, samples, *folders, world, config, paths.seed)

    # 3.3  The gold answer's log-probability with and without the image, for image_gain.
    if Measure.image_gain in config.difficulty.measures:
        session.close_engines()
        run_likelihood_pass(lambda: session.model, samples, paths.likelihood, world, config, inputs)


def check_family(config: RunConfig, session: ModelSession, samples: list[Sample]) -> None:
    """3.0  Refuse a model before responses are generated. Raises ConfigError with the reason.

    Measures of attention need layers with full attention. Where this process generates, or measures
    attention, its results are compared with those of transformers.
    """
    if reason := attention_problem(config):
        raise ConfigError([f"difficulty.measure={config.difficulty.measure}: {reason}"])
    if config.model.engine is EngineKind.hf:
        require_known(config, session, samples)


def require_known(config: RunConfig, session: ModelSession, samples: list[Sample]) -> None:
    """3.0  Compare the loaded model with transformers, unless training's checks did so before."""
    if not session.is_checked:
        family_check.require_known(session.model, samples, config.model.name)
        session.is_checked = True


def attention_problem(config: RunConfig) -> str | None:
    """Why the model has no attention for the measures, or None. Reads only its configuration."""
    measures = {Measure.cmab, Measure.ace} & set(config.difficulty.measures)
    if not measures:
        return None
    return family.attention_refusal(loading.load_architecture(config.model), measures)


def score(config: RunConfig, paths: RunPaths, world: World) -> Path:
    """3.4  Write one Score for each sample and measure; returns the folder of the scores."""

    def write_scores() -> dict[str, int]:
        # Another run may extend this probe and fail on a sample that is scored here. So later
        # stages read the sample ids from the scores.
        samples = without_failed(parquet.read_rows(paths.data, Sample), paths.probe)
        sample_ids = [sample.sample_id for sample in samples]
        evidence = read_evidence(config, paths)
        for measure, rows in score_details(sample_ids, evidence, config.probe, config.difficulty):
            parquet.write_all(paths.score / measure, rows)
        scores, uncorrected = score_samples(config, evidence, sample_ids)
        parquet.write_all(paths.score / UNCORRECTED, uncorrected)
        parquet.write_all(paths.score, scores)
        return count_strata(scores, config.difficulty.measure)

    inputs = {"probe": paths.probe.name, "data": paths.data.name}
    settings: dict[str, Any] = asdict(config.difficulty)
    model = family.read_config(config.model.name, config.model.revision)
    if model is not None and not family.is_calibrated(model_type := model.get("model_type")):
        settings["calibrated"] = False
        reason = f"their thresholds were set for Qwen2.5-VL, not for {model_type} models"
        logger.info("the strata are uncalibrated: %s (see `difftrain thresholds`)", reason)
    content = run_stage(paths.score, world, write_scores, settings=settings, inputs=inputs)
    strata = ", ".join(f"{count} {name}" for name, count in content["counts"].items())
    logger.info("strata by %s: %s", config.difficulty.measure, strata)
    return paths.score


def read_evidence(config: RunConfig, paths: RunPaths) -> dict[str, Evidence]:
    """What the passes of a probe measured of each sample."""
    rollouts = parquet.read_finished(paths.probe, Rollout, PROBE_COMMAND)
    attention, likelihoods = parquet.read_rows(paths.attention, Attention), []
    if Measure.image_gain in config.difficulty.measures:
        likelihoods = parquet.read_finished(paths.likelihood, AnswerLikelihood, PROBE_COMMAND)
    return gather_evidence(rollouts, attention, config.probe, likelihoods)


def score_samples(
    config: RunConfig, evidence: dict[str, Evidence], sample_ids: list[str]
) -> tuple[list[Score], list[Score]]:
    """(scores of all measures, PISM's scores without chance correction if the correction is on)."""
    probe, difficulty = config.probe, config.difficulty
    scores = score_all(sample_ids, evidence, probe, difficulty)
    return scores, uncorrected_pism_scores(sample_ids, evidence, probe, difficulty.pism)


def select(
    config: RunConfig, paths: RunPaths, world: World, arm: str, minimum: int | None = None
) -> list[Selection]:
    """4.1  GRPO's samples for an arm (tuned or control). Raises EmptySelectionError if too few:
    fewer than `minimum`, by default the prompts of a step."""
    folder = paths.selection(arm)

    def write_selection() -> dict[str, Any]:
        scores = parquet.read_finished(paths.score, Score, SCORE_COMMAND)
        selected, rap_result = require_selection(config, scores, 1)
        if config.select.random or arm != Arm.tuned:
            # Random recipes and control arms train on as many random samples instead.
            sample_ids = list(dict.fromkeys(score.sample_id for score in scores))
            name = random_set_name(config.name, arm, TrainStage.grpo)
            selected = random_control(sample_ids, len(selected), config.seed, name)
        elif rap_result:
            parquet.write_all(folder / rap.DECISIONS_FOLDER, rap_result.decisions)
        parquet.write_all(folder, selected)
        return {"selected": len(selected)} | ({"funnel": rap_result.funnel} if rap_result else {})

    settings, inputs = asdict(config.select) | {"arm": arm}, {"score": paths.score.name}
    content = run_stage(folder, world, write_selection, settings=settings, inputs=inputs)
    selected, funnel = parquet.read_rows(folder, Selection), content["counts"].get("funnel")
    strata = (manifest.read_manifest(paths.score) or {})["counts"]  # {} for the type checker
    minimum = config.grpo.prompts_per_step if minimum is None else minimum
    return require_min(config, selected, minimum, strata, funnel)


def require_min(
    config: RunConfig,
    selected: list[Selection],
    minimum: int,
    strata: dict[str, int],
    funnel: dict[str, int] | None,
) -> list[Selection]:
    """The same selections. Raises EmptySelectionError, with the counts, if they are too few."""
    if funnel:  # how many samples each step of RAP left
        return rap.require_min(selected, minimum, funnel, config.select.rap)
    return require_min_size(selected, minimum, strata)


def require_selection(
    config: RunConfig, scores: list[Score], minimum: int
) -> tuple[list[Selection], rap.RapResult | None]:
    """What select_samples returns. Raises EmptySelectionError if it selects too few."""
    selected, rap_result = select_samples(config, scores)
    strata, funnel = count_strata(scores, config.difficulty.measure), None
    if rap_result:
        funnel = rap_result.funnel
    return require_min(config, selected, minimum, strata, funnel), rap_result


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
