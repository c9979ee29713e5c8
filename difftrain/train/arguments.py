"""Our settings in TRL's words: the dozen the paper speaks of, and what `grpo.trl` adds."""

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


def batch(config: RunConfig, world: World) -> tuple[int, int]:
    """Answers of one device in one backward pass, and the passes of one step.

    per_device_batch is the most that fits; the largest number up to it that divides a device's
    share of prompts_per_step x group_size is taken. Raises ConfigError if there is no whole share.
    """
    grpo = config.grpo
    if trouble := grpo.uneven(world.size):
        raise ConfigError([trouble])
    share = grpo.prompts_per_step * grpo.group_size // world.size
    size = max(n for n in range(1, grpo.per_device_batch + 1) if share % n == 0)
    return size, share // size


def weights(config: RunConfig) -> list[tuple[str, float]]:
    """The rewards by name, each with its weight; a length term of weight 0 is left out."""
    grpo = config.grpo
    told = [("correct", 1.0), ("layout", grpo.layout_weight)]
    return [*told, ("length", grpo.length_weight)] if grpo.length_weight else told


def banned(tokenizer_ids: dict[str, int]) -> dict[str, list[int]]:
    """Generation's words for: never sample a picture placeholder."""
    return {"suppress_tokens": [tokenizer_ids[t] for t in PLACEHOLDERS if t in tokenizer_ids]}


def arguments(
    config: RunConfig,
    folder: Path,
    world: World,
    tokenizer_ids: dict[str, int],
    watched: bool = False,
) -> GRPOConfig:
    """TRL's own configuration; the keys of grpo.trl have been checked with the other settings."""
    grpo = config.grpo
    on_gpu = torch.cuda.is_available()
    size, passes = batch(config, world)
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
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": passes,
        "temperature": grpo.temperature,
        "beta": grpo.kl,
        "max_completion_length": grpo.max_completion_tokens,
        "reward_weights": [weight for _, weight in weights(config)],
        "loss_type": "grpo",
        "gradient_checkpointing": grpo.gradient_checkpointing,
        "generation_kwargs": banned(tokenizer_ids),
        "eval_strategy": "steps" if watched else "no",
        "eval_steps": grpo.held_out_every,
        "num_generations_eval": 1,
        "per_device_eval_batch_size": size,
        "save_steps": grpo.save_every,
        "save_total_limit": 2,
        "logging_steps": 1,
        "report_to": "none",
        "seed": config.seed,
        "bf16": on_gpu and config.model.dtype == "bfloat16",
        "use_cpu": not on_gpu,
    }
    return GRPOConfig(**given, **grpo.trl)
