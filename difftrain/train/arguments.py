"""Our settings in TRL's words: the dozen the paper speaks of, and what `grpo.trl` adds."""

from dataclasses import fields
from pathlib import Path

import torch
from trl.trainer.grpo_config import GRPOConfig

from difftrain.model.generate.hf import PLACEHOLDERS
from difftrain.settings import ConfigError, RunConfig
from difftrain.train.config import RateSchedule
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
        raise ConfigError(
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
        raise ConfigError([f"grpo.trl.{key}: TRL's GRPOConfig has no such key" for key in unknown])
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
