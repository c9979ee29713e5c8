"""GRPO with TRL's trainer as it is: our settings in, a checkpoint and a step log out."""

from pathlib import Path
from typing import Any

from trl.trainer.grpo_trainer import GRPOTrainer

from difftrain.config.difficulty import GradeConfig
from difftrain.config.train import GrpoConfig, VllmMode
from difftrain.grade.pool import GraderPool
from difftrain.model import resolve
from difftrain.train import callbacks, checkpointing, param_groups, rewards, trl_args, trl_vllm
from difftrain.train.dataset import TrainData, to_dataset
from difftrain.train.rewards import Subsets
from difftrain.train.trl_args import TrainJob


def build_trainer(
    job: TrainJob, grpo: GrpoConfig, grade: GradeConfig, data: TrainData, graders: GraderPool
) -> Any:
    """TRL's GRPOTrainer for this data, with our rewards."""
    model = job.start_model
    processor = job.load_processor()
    # Before TRL's arguments, which make ZeRO-3 shard every model that is built after them.
    adapter = param_groups.peft_config("grpo", grpo.lora, model)
    subsets = Subsets([*data.samples, *data.eval_samples], data.strata)
    uses_vllm = grpo.vllm.mode is not VllmMode.none
    if uses_vllm:
        trl_vllm.refuse_second_resize(model, data.samples)
    vocabulary = processor.tokenizer.get_vocab()
    reward_funcs: list[Any] = [*rewards.reward_functions(grpo, grade, subsets, graders)]
    trainer: Any = GRPOTrainer(
        model=resolve.source(model.name),
        reward_funcs=reward_funcs,
        args=trl_args.grpo_arguments(job, grpo, vocabulary, bool(data.eval_samples)),
        train_dataset=to_dataset(data.samples),
        eval_dataset=to_dataset(data.eval_samples) if data.eval_samples else None,
        processing_class=processor,
        peft_config=adapter,
    )
    if grpo.freeze_vision:
        param_groups.freeze_vision(trainer.model)
    if uses_vllm:
        trl_vllm.reset_encoder_cache_on_update(trainer)
    return trainer


def fit(job: TrainJob, grpo: GrpoConfig, grade: GradeConfig, data: TrainData) -> Path:
    """Train on the data; returns job.folder/checkpoint, which `from_pretrained` loads.

    Resumes an interrupted run from its last complete checkpoint; does nothing if finished.
    """
    if (checkpoint := checkpointing.finished_checkpoint(job.folder)) is not None:
        return checkpoint
    job.folder.mkdir(parents=True, exist_ok=True)
    with GraderPool(grpo.reward_workers, grpo.grading_timeout_s) as graders:
        trainer = build_trainer(job, grpo, grade, data, graders)
        seconds = checkpointing.train(trainer, job, grpo, data.samples)
    log = callbacks.read_log(job.folder)
    completions = trl_args.rows_per_step(grpo)
    tokens = sum(row.get("completions/mean_length", 0.0) for row in log) * completions
    counts = {
        "steps": len(log),
        "samples": len(data.samples),
        "eval_samples": len(data.eval_samples),
        "graders_killed": graders.killed,
        "generations": len(log) * completions,
        "tokens": round(tokens),
    }
    return checkpointing.finish(trainer, job, grpo, seconds, counts)
