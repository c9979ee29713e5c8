"""SFT on some samples, then GRPO on others (Qi et al. 2026, section 4, "SFT(a)+GRPO(b)").

select_sft  4.1  select the samples of the SFT stage, all of which have a target
run         4.2  get the targets (the responses that SFT trains the model to give)
            4.3  supervised fine-tuning
            4.4  GRPO from the SFT checkpoint
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from difftrain.config.difficulty import Until
from difftrain.config.run_config import RunConfig
from difftrain.config.train import Dropped, SftTargets
from difftrain.model import chat_format, loading
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.paths import RunPaths
from difftrain.pipeline.stage import run_stage
from difftrain.probe.schedule import requirements
from difftrain.recipes import grpo
from difftrain.recipes.difficulty import PROBE_COMMAND, SCORE_COMMAND, random_set_name
from difftrain.records import Arm, Rollout, Sample, Score, Selection, TrainStage
from difftrain.select import count_strata, random_control, require_min_size, select_by_stratum
from difftrain.train import dataset, sft
from difftrain.train.trl_args import TrainJob

logger = logging.getLogger(__name__)


def select_sft(config: RunConfig, paths: RunPaths, world: World, arm: str) -> list[Selection]:
    """4.1  The samples of the SFT stage: some difficulty strata, or a random set of the same size.

    A sample without a target is dropped and counted. A random set is drawn from the samples with a
    target. Raises EmptySelectionError if there are fewer samples than one step needs.
    """
    folder, measure = paths.selection(arm, TrainStage.sft), config.difficulty.measure

    def write_selection() -> dict[str, Any]:
        scores = parquet.read_finished(paths.score, Score, SCORE_COMMAND)
        scored = {score.sample_id for score in scores}
        samples = parquet.read_rows(paths.data, Sample)
        targets = make_targets(config, paths, [s for s in samples if s.sample_id in scored])
        strata = config.select.sft_strata
        candidates = select_by_stratum(scores, measure, strata, TrainStage.sft)
        dropped = sft.count_dropped({row.sample_id: targets[row.sample_id] for row in candidates})
        selected = [row for row in candidates if not isinstance(targets[row.sample_id], Dropped)]
        if config.select.sft_random or arm != Arm.tuned:
            teachable = [key for key, target in targets.items() if not isinstance(target, Dropped)]
            name = random_set_name(config.name, arm, TrainStage.sft)
            selected = random_control(teachable, len(selected), config.seed, name, TrainStage.sft)
        dropped_text, strata_counts = sft.dropped_text(dropped), count_strata(scores, measure)
        require_min_size(selected, 1, strata_counts, TrainStage.sft, dropped_text)
        if dropped_text:
            logger.info("selected for SFT, %s: %d samples%s", arm, len(selected), dropped_text)
        parquet.write_all(folder, selected)
        return {"selected": len(selected), "dropped": dropped}

    settings = asdict(config.select) | {"arm": arm, "targets": config.sft.targets}
    inputs = {"score": paths.score.name}
    content = run_stage(folder, world, write_selection, settings=settings, inputs=inputs)
    selected, dropped = parquet.read_rows(folder, Selection), content["counts"]["dropped"]
    return require_one_step(config, paths, selected, dropped)


def require_one_step(
    config: RunConfig, paths: RunPaths, selected: list[Selection], dropped: Mapping[str, int]
) -> list[Selection]:
    """The same selections. Raises EmptySelectionError if there are fewer than one step needs."""
    strata = (manifest.read_manifest(paths.score) or {})["counts"]  # {} for the type checker
    minimum, text = config.sft.samples_per_step, sft.dropped_text(dropped)
    return require_min_size(selected, minimum, strata, TrainStage.sft, text)


def make_targets(
    config: RunConfig, paths: RunPaths, samples: Iterable[Sample]
) -> dict[str, str | Dropped]:
    """Each sample's target (the response to learn), or the reason why it has none."""
    if config.sft.targets is SftTargets.rationale:
        boxes = config.grade.box_coordinates
        return {sample.sample_id: sft.from_rationale(sample, boxes) for sample in samples}
    needed = requirements(config.difficulty, config.probe)
    # Only draws that every sample has: other runs may add draws of some samples to the probe.
    draws = config.probe.draws if needed.until is Until.grid else needed.full_image
    rollouts = parquet.read_finished(paths.probe, Rollout, PROBE_COMMAND)
    correct = sft.correct_rollouts(rollouts, draws)
    ids = [sample.sample_id for sample in samples]
    data = config.data
    processor = loading.load_processor(config.model, data.min_pixels, data.max_pixels)
    prefix = chat_format.thought_prefix(processor)  # the rollouts begin behind it
    return {id_: sft.from_rollouts(correct.get(id_, []), config.seed, prefix) for id_ in ids}


def run(
    config: RunConfig,
    paths: RunPaths,
    world: World,
    arm: str,
    callbacks: Sequence[TrainerCallback] = (),
) -> Path:
    """Train one arm; returns its checkpoint. Raises EmptySelectionError if SFT lacks samples.

    `callbacks` are further callbacks of GRPO's trainer.
    """
    inputs = {"select": paths.selection(arm, TrainStage.sft).name, "model": paths.model}
    folder, title = paths.sft(arm), f"sft {arm}"
    job = TrainJob(TrainStage.sft, config, folder, world, title, inputs=inputs)

    # 4.2  The targets: thought and answer in the format that GRPO's reward expects.
    def load_data() -> sft.SftData:
        selection = parquet.read_rows(paths.selection(arm, TrainStage.sft), Selection)
        samples = dataset.selected(parquet.read_rows(paths.data, Sample), selection)
        by_id = make_targets(config, paths, samples)
        targets = {id_: target for id_, target in by_id.items() if not isinstance(target, Dropped)}
        teachable = [sample for sample in samples if sample.sample_id in targets]
        data = sft.prepare(job, teachable, targets)
        # Only the number of selections counts here: sft.prepare may have dropped samples.
        require_one_step(config, paths, selection[: len(data.samples)], data.dropped)
        return data

    # 4.3  Supervised fine-tuning, loss only on the response. From here on it is TRL's loop.
    checkpoint = sft.fit(job, load_data)

    # 4.4  GRPO as in the other recipes, but from the SFT checkpoint.
    return grpo.run(config, paths, world, arm, checkpoint, callbacks)
