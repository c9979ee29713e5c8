"""Our settings in TRL's words: those the papers speak of, and what `grpo.trl`, `sft.trl` add."""

import os
from pathlib import Path
from typing import Any, TypeVar

import torch
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.sft_config import SFTConfig

from difftrain.config.model import Dtype
from difftrain.config.run_config import ConfigError, RunConfig
from difftrain.config.train import GrpoConfig, RateSchedule, SftConfig, VllmMode
from difftrain.model.generate.hf import PLACEHOLDERS
from difftrain.pipeline.coordination import World

T = TypeVar("T", GRPOConfig, SFTConfig)
SCHEDULES = {
    RateSchedule.linear: "linear",
    RateSchedule.cosine: "cosine",
    RateSchedule.constant: "constant_with_warmup",
}


def rows_per_step(stage: GrpoConfig | SftConfig) -> int:
    """Answers (GRPO) or samples (SFT) of one optimizer step, over all processes."""
    if isinstance(stage, GrpoConfig):
        return stage.prompts_per_step * stage.num_generations
    return stage.samples_per_step


def batch(stage: GrpoConfig | SftConfig, world: World) -> tuple[int, int]:
    """Rows of one device in one backward pass, and the passes of one step.

    per_device_batch is the most that fits; the largest number up to it that divides a device's
    share of the step is taken. Raises ConfigError if there is no whole share.
    """
    if trouble := stage.uneven(world.size):
        raise ConfigError([trouble])
    share = rows_per_step(stage) // world.size
    size = max(n for n in range(1, stage.per_device_train_batch_size + 1) if share % n == 0)
    return size, share // size


def algebra(stage: GrpoConfig | SftConfig, world: World) -> str:
    """What one optimizer step is made of, in words."""
    size, passes = batch(stage, world)
    stated = f"{rows_per_step(stage)} samples"
    if isinstance(stage, GrpoConfig):
        stated = f"{stage.prompts_per_step} prompts x {stage.num_generations} answers"
    return f"a step: {stated} = {world.size} processes x {size} at once x {passes} passes"


def weights(config: RunConfig) -> list[tuple[str, float]]:
    """The rewards by name, each with its weight; a length term of weight 0 is left out."""
    grpo = config.grpo
    told = [("correct", 1.0), ("layout", grpo.format_weight)]
    return [*told, ("length", grpo.overlong_weight)] if grpo.overlong_weight else told


def banned(tokenizer_ids: dict[str, int], engine: VllmMode = VllmMode.none) -> dict[str, list[Any]]:
    """Generation's words for: never sample a picture placeholder.

    transformers wants token ids. vLLM knows no suppress_tokens and TRL bans nothing there; its
    bad_words are turned into ids by its own tokenizer, in this process and on a server alike.
    """
    known = [token for token in PLACEHOLDERS if token in tokenizer_ids]
    if engine is VllmMode.none:
        return {"suppress_tokens": [tokenizer_ids[token] for token in known]}
    return {"bad_words": known}


def loaded_dtype(config: RunConfig, stage: GrpoConfig | SftConfig) -> Dtype:
    """The precision that weights are loaded and updated in.

    bfloat16 alone loses updates of the papers' size: a weight of 0.02 has steps of 1e-4. DeepSpeed
    keeps float32 copies itself; without it trained weights are float32 and only the passes run in
    bfloat16. Under LoRA the additions are float32 and the other weights never change.
    """
    sharded = os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"
    whole = config.model.dtype is Dtype.float32 or sharded or stage.lora.rank > 0
    return config.model.dtype if whole else Dtype.float32


def shared(
    config: RunConfig, stage: GrpoConfig | SftConfig, folder: Path, world: World
) -> dict[str, Any]:
    """What TRL is told of either stage."""
    on_gpu = torch.cuda.is_available()
    size, passes = batch(stage, world)
    return {
        "output_dir": str(folder / "checkpoints"),
        "model_init_kwargs": {
            "dtype": loaded_dtype(config, stage).value,
            "revision": config.model.revision or "main",
        },
        "learning_rate": stage.learning_rate,
        "lr_scheduler_type": SCHEDULES[stage.lr_scheduler_type],
        "warmup_steps": stage.warmup_ratio,
        "num_train_epochs": stage.num_train_epochs,
        "max_steps": stage.max_steps or -1,
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": passes,
        "gradient_checkpointing": stage.gradient_checkpointing,
        "save_steps": stage.save_steps,
        "save_total_limit": 2,
        "logging_steps": 1,
        "report_to": "none",
        "seed": config.seed,
        "bf16": config.model.dtype is Dtype.bfloat16,
        "use_cpu": not on_gpu,
    }


def arguments(
    config: RunConfig,
    folder: Path,
    world: World,
    tokenizer_ids: dict[str, int],
    watched: bool = False,
) -> GRPOConfig:
    """TRL's own configuration; the keys of grpo.trl have been checked with the other settings."""
    grpo = config.grpo
    given = shared(config, grpo, folder, world) | {
        "num_generations": grpo.num_generations,
        "temperature": grpo.temperature,
        "beta": grpo.beta,
        "max_completion_length": grpo.max_completion_length,
        "reward_weights": [weight for _, weight in weights(config)],
        "loss_type": "grpo",
        "generation_kwargs": banned(tokenizer_ids, grpo.vllm.mode),
        "eval_strategy": "steps" if watched else "no",
        "eval_steps": grpo.eval_steps,
        "num_generations_eval": 1,
        "per_device_eval_batch_size": batch(grpo, world)[0],
    }
    return on_one_device(GRPOConfig(**given, **by_vllm(grpo), **grpo.trl))


def on_one_device(told: T) -> T:
    """The same configuration, with one GPU for this process however many it sees.

    transformers would copy the model to each with nn.DataParallel and multiply the batch by their
    number, which TRL refuses; it names `_n_gpu` as the way out, as Trainer itself takes for a model
    that is split over devices. GPUs beyond the first may be vLLM's
    (model.vllm.tensor_parallel_size).
    """
    if told.n_gpu > 1:
        told._n_gpu = 1
    return told


def by_vllm(grpo: GrpoConfig) -> dict[str, Any]:
    """Who generates the rollouts, in TRL's words."""
    vllm = grpo.vllm
    return {
        "use_vllm": vllm.mode is not VllmMode.none,
        "vllm_mode": "colocate" if vllm.mode is VllmMode.none else vllm.mode.value,
        "vllm_gpu_memory_utilization": vllm.gpu_memory_utilization,
        "vllm_tensor_parallel_size": vllm.tensor_parallel_size,
        "vllm_max_model_length": vllm.max_model_length,
        "vllm_enable_sleep_mode": vllm.enable_sleep_mode,
        "vllm_server_base_url": vllm.server_base_url if vllm.mode is VllmMode.server else None,
    }


def sft_arguments(config: RunConfig, folder: Path, world: World) -> SFTConfig:
    """TRL's own configuration: nothing cut, nothing packed, loss on the answer alone."""
    given = shared(config, config.sft, folder, world) | {
        "max_length": None,
        "packing": False,
        "padding_free": False,
        "completion_only_loss": True,
        "remove_unused_columns": False,
        "eval_strategy": "no",
    }
    return on_one_device(SFTConfig(**given, **config.sft.trl))
