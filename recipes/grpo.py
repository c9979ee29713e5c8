"""GRPO on selected samples (Qi et al. 2026, section 4, "GRPO-only")."""

from collections.abc import Sequence
from pathlib import Path

from transformers import TrainerCallback

from difftrain.config.run_config import RunConfig
from difftrain.difficulty.draws import full_image_verdicts
from difftrain.pipeline import parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.paths import RunPaths
from difftrain.recipes import difficulty
from difftrain.records import Arm, Measure, Sample, Score, Selection, TrainStage
from difftrain.train import grpo
from difftrain.train.dataset import TrainData, held_out, selected
from difftrain.train.trl_args import TrainJob


def run(
    config: RunConfig,
    paths: RunPaths,
    world: World,
    arm: str,
    start: Path | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> Path:
    """Train one arm (tuned or control); returns its checkpoint.

    Training starts from `start`, else from the round before, else from the base model. `callbacks`
    are further callbacks of TRL's trainer.
    """
    if start is None and paths.previous:
        start = paths.previous.grpo(arm) / "checkpoint"
    # 4.1  The selected samples: those of some difficulty strata, or a random set of the same size.
    pool = parquet.read_rows(paths.data, Sample)
    selection = parquet.read_rows(paths.selection(arm), Selection)
    # GRPO is evaluated on samples that neither SFT nor GRPO trains on, in this round or before.
    trained_on = [
        row for path in paths.selections(arm) for row in parquet.read_rows(path, Selection)
    ]
    scores, measure = parquet.read_rows(paths.score, Score), config.difficulty.measure
    by_measure = [score for score in scores if score.measure is measure]
    strata = {score.sample_id: score.stratum for score in by_measure if score.stratum is not None}
    eval_samples = held_out(pool, trained_on, config.grpo.eval_samples)
    # A sampler that chooses prompts starts from the probe's responses to the full image. In later
    # rounds these are the tuned arm's, so the control's sampler starts without evidence.
    is_probed = arm == Arm.tuned or paths.previous is None
    answers = probe_answers(config, paths) if config.grpo.chooses_prompts and is_probed else {}
    by_pism = [s for s in scores if s.measure is Measure.pism and s.stratum is not None]
    ratios = {score.sample_id: score.value for score in by_pism}
    data = TrainData(selected(pool, selection), eval_samples, strata, answers, ratios)

    # 4.2  Reward: 1 for a correct answer (by the probe's grader), plus the format reward.
    # 4.3  Group-relative policy optimization. From here on it is TRL's loop.
    model = start.parent.name if start else paths.model
    inputs = {"select": paths.selection(arm).name, "model": model}
    folder, title = paths.grpo(arm), f"grpo {arm}"
    job = TrainJob(TrainStage.grpo, config, folder, world, title, start, inputs, callbacks)
    return grpo.fit(job, data)


def probe_answers(config: RunConfig, paths: RunPaths) -> dict[str, tuple[int, int]]:
    """By sample the numbers of correct and of other responses to the full image.

    Only draws that this run needs count: another run may have added draws to the probe's folder.
    """
    evidence = difficulty.read_evidence(config, paths)
    scored = {score.sample_id for score in parquet.read_rows(paths.score, Score)}
    counts = {}
    for sample_id in evidence.keys() & scored:
        verdicts = full_image_verdicts(evidence[sample_id], config.difficulty, config.probe)
        counts[sample_id] = int(verdicts.sum()), int(len(verdicts) - verdicts.sum())
    return counts
