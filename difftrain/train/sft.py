"""SFT with TRL's trainer as it is: loss on the completion alone, nothing truncated or packed."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trl.trainer.sft_trainer import SFTTrainer

from difftrain.config.difficulty import GradeConfig
from difftrain.config.train import Dropped, GrpoConfig, SftConfig
from difftrain.grade import GradeResult, grade_batch
from difftrain.grade.pool import GradeFailure, GraderPool
from difftrain.model import resolve
from difftrain.pipeline import coordination, manifest
from difftrain.records import Sample
from difftrain.train import callbacks, checkpointing, param_groups, sft_targets, trl_args
from difftrain.train.dataset import with_images
from difftrain.train.trl_args import TrainJob

logger = logging.getLogger(__name__)

TARGETS = "sft_targets.json"
"""In the stage's folder: each sample's target, and how many were dropped for which reason."""


@dataclass(frozen=True, slots=True)
class SftData:
    """Samples in the order of their selection, the target of each, and counts of dropped ones."""

    samples: Sequence[Sample]
    targets: Mapping[str, str]
    dropped: Mapping[str, int]


def check_targets(
    job: TrainJob,
    sft: SftConfig,
    replies: Sequence[GradeResult | GradeFailure],
    samples: Sequence[Sample],
    targets: Mapping[str, str],
) -> dict[str, str | Dropped]:
    """The targets that were graded correct and fit; for each other sample, why it is dropped."""
    processor = job.load_processor()
    checked: dict[str, str | Dropped] = {}
    for sample, reply in zip(samples, replies, strict=True):
        target = targets[sample.sample_id]
        if isinstance(reply, GradeFailure) or reply.credit < 1:
            checked[sample.sample_id] = Dropped.not_correct
        elif sft_targets.token_count(processor, sample, target) > sft.cutoff_tokens:
            checked[sample.sample_id] = Dropped.too_long
        else:
            checked[sample.sample_id] = target
    return checked


def prepare(
    job: TrainJob,
    sft: SftConfig,
    grade: GradeConfig,
    grpo: GrpoConfig,
    samples: Sequence[Sample],
    targets: Mapping[str, str],
) -> SftData:
    """What SFT trains on; the first process writes it once, all read it, also after a kill.

    Samples whose target is graded incorrect (by the reward's graders) or is too long are dropped
    with their count. Raises FirstRankFailed with its reason if the first process stops.
    """
    path = job.folder / TARGETS
    if job.world.is_first and not path.is_file():
        with coordination.report_failure(job.folder, job.world):
            with GraderPool(grpo.reward_workers, grpo.grading_timeout_s) as graders:
                texts = [targets[sample.sample_id] for sample in samples]
                replies = grade_batch(graders, texts, samples, grade)
            checked = check_targets(job, sft, replies, samples, targets)
        kept = {key: text for key, text in checked.items() if not isinstance(text, Dropped)}
        dropped = sft_targets.count_dropped(checked)
        manifest.write_json(path, {"targets": kept, "dropped": dropped})
        if dropped:
            reasons = sft_targets.dropped_text(dropped)
            logger.info("SFT trains on %d samples%s", len(kept), reasons)

    coordination.wait_for_first_rank(job.folder, job.world, path.is_file)
    written = manifest.read_json(path)
    kept = [sample for sample in samples if sample.sample_id in written["targets"]]
    return SftData(kept, written["targets"], written["dropped"])


def build_trainer(job: TrainJob, sft: SftConfig, data: SftData) -> Any:
    """TRL's SFTTrainer for these targets."""
    model = job.start_model
    processor = job.load_processor()
    # Before TRL's arguments, which make ZeRO-3 shard every model that is built after them.
    adapter = param_groups.peft_config("sft", sft.lora, model)
    rows = [sft_targets.trl_row(s, data.targets[s.sample_id]) for s in data.samples]
    trainer: Any = SFTTrainer(
        model=resolve.source(model.name),
        args=trl_args.sft_arguments(job, sft),
        train_dataset=with_images(rows, data.samples),
        processing_class=processor,
        peft_config=adapter,
    )
    if sft.freeze_vision:
        param_groups.freeze_vision(trainer.model)
    return trainer


def fit(job: TrainJob, sft: SftConfig, data: SftData) -> Path:
    """Train on the targets; returns job.folder/checkpoint, which `from_pretrained` loads.

    Resumes an interrupted run from its last complete checkpoint; does nothing if finished.
    """
    if (checkpoint := checkpointing.finished_checkpoint(job.folder)) is not None:
        return checkpoint
    trainer = build_trainer(job, sft, data)
    seconds = checkpointing.train(trainer, job, sft, data.samples)
    log = callbacks.read_log(job.folder)
    counts = {
        "steps": len(log),
        "samples": len(data.samples),
        "dropped": dict(data.dropped),
        "first_loss": log[0]["loss"],
        "last_loss": log[-1]["loss"],
    }
    return checkpointing.finish(trainer, job, sft, seconds, counts)
