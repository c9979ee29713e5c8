"""GRPO with TRL's trainer as it is: our settings in, a checkpoint and a step log out."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch
from transformers import PrinterCallback, ProgressCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from difftrain import lineage, settings
from difftrain.model import load, locate
from difftrain.model.generate.hf import PLACEHOLDERS
from difftrain.records import Sample
from difftrain.settings import RunConfig
from difftrain.train import callbacks, modules, rewards
from difftrain.train.config import RateSchedule
from difftrain.train.dataset import dataset
from difftrain.world import World

SCHEDULES = {
    RateSchedule.linear: "linear",
    RateSchedule.cosine: "cosine",
    RateSchedule.constant: "constant_with_warmup",
}


def accumulation(config: RunConfig, world: World) -> int:
    """Backward passes of one device in one step. Raises ConfigError naming what would fit."""
    grpo = config.grpo
    answers = grpo.prompts_per_step * grpo.group_size
    together = grpo.per_device_batch * world.size
    if answers % together:
        fits = [n for n in range(1, answers + 1) if answers % (n * world.size) == 0]
        raise settings.ConfigError(
            [
                f"grpo.per_device_batch={grpo.per_device_batch}: times {world.size} processes must "
                f"divide prompts_per_step x group_size = {answers}; these do: {fits}"
            ]
        )
    return answers // together


def arguments(
    config: RunConfig, folder: Path, world: World, tokenizer_ids: dict[str, int]
) -> GRPOConfig:
    """TRL's own configuration. Raises ConfigError for a key of grpo.trl that TRL does not know."""
    grpo = config.grpo
    known = {field.name for field in fields(GRPOConfig)}
    if unknown := sorted(set(grpo.trl) - known):
        raise settings.ConfigError(
            [f"grpo.trl.{key}: TRL's GRPOConfig has no such key" for key in unknown]
        )
    on_gpu = torch.cuda.is_available()
    given = {
        "output_dir": str(folder / "checkpoints"),
        "model_init_kwargs": {
            "dtype": config.model.dtype.value,
            "revision": config.model.revision or "main",
        },
        "learning_rate": grpo.learning_rate,
        "lr_scheduler_type": SCHEDULES[grpo.rate_schedule],
        "warmup_steps": grpo.warmup_ratio,
        "num_train_epochs": grpo.epochs,
        "max_steps": grpo.max_steps or -1,
        "num_generations": grpo.group_size,
        "per_device_train_batch_size": grpo.per_device_batch,
        "gradient_accumulation_steps": accumulation(config, world),
        "temperature": grpo.temperature,
        "beta": grpo.kl,
        "max_completion_length": grpo.max_completion_tokens,
        "reward_weights": [1.0, grpo.layout_weight],
        "loss_type": "grpo",
        "gradient_checkpointing": grpo.gradient_checkpointing,
        "generation_kwargs": {
            "suppress_tokens": [tokenizer_ids[t] for t in PLACEHOLDERS if t in tokenizer_ids]
        },
        "save_steps": grpo.save_every,
        "save_total_limit": 2,
        "logging_steps": 1,
        "report_to": "none",
        "seed": config.seed,
        "bf16": on_gpu and config.model.dtype == "bfloat16",
        "use_cpu": not on_gpu,
    }
    return GRPOConfig(**{**given, **grpo.trl})


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end (trainer_state.json comes last)."""
    whole = [
        path.parent for path in (folder / "checkpoints").glob("checkpoint-*/trainer_state.json")
    ]
    return max(whole, key=lambda path: int(path.name.split("-")[1]), default=None)


def save(trainer: GRPOTrainer, folder: Path, world: World) -> None:
    """Write folder/checkpoint, processor included, so that it is there whole or not at all."""
    half = folder / ".checkpoint.half"
    trainer.save_model(str(half))
    if world.is_first:
        trainer.processing_class.save_pretrained(half)
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)
        half.replace(folder / "checkpoint")
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def counts(config: RunConfig, folder: Path, samples: Sequence[Sample]) -> dict[str, float]:
    """What the training cost, from its own step log."""
    log = callbacks.read_log(folder)
    answers = config.grpo.prompts_per_step * config.grpo.group_size
    return {
        "steps": len(log),
        "samples": len(samples),
        "generations": len(log) * answers,
        "tokens": round(sum(row.get("length", 0.0) for row in log) * answers),
    }


def fit(
    config: RunConfig, samples: Sequence[Sample], folder: Path, world: World, title: str
) -> Path:
    """Train on these samples; returns folder/checkpoint, which `from_pretrained` loads.

    Continues from the last whole checkpoint of an interrupted run; does nothing if finished.
    """
    checkpoint = folder / "checkpoint"
    if lineage.read_made(folder) is not None and checkpoint.is_dir():
        return checkpoint
    folder.mkdir(parents=True, exist_ok=True)
    processor = load.load_processor(config.model, config.data.min_pixels, config.data.max_pixels)
    trainer = GRPOTrainer(
        model=locate.source(config.model.name),
        reward_funcs=[rewards.correct(samples), rewards.layout],
        args=arguments(config, folder, world, processor.tokenizer.get_vocab()),
        train_dataset=dataset(samples),
        processing_class=processor,
    )
    if config.grpo.freeze_vision:
        modules.freeze_vision(trainer.model)
    resume = last_checkpoint(folder)
    step = int(resume.name.split("-")[1]) if resume else 0
    spent = callbacks.truncate_log(folder, step) if world.is_first else 0.0
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(callbacks.StepLog(folder, spent, title))
    if world.is_first:
        print(modules.table(trainer.model), flush=True)
    started = time.time()
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    save(trainer, folder, world)
    if world.is_first:
        lineage.write_made(
            folder,
            settings=settings.plain(config.grpo),
            inputs={"model": config.model.name},
            seconds=spent + time.time() - started,
            counts=counts(config, folder, samples),
        )
    trainer.accelerator.wait_for_everyone()
    return checkpoint
