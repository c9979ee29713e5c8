"""TRL's GRPOConfig and SFTConfig, built from our settings; the keys of `trl` pass unchanged."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.sft_config import SFTConfig

from difftrain.config.model import Dtype, ModelConfig
from difftrain.config.run_config import ConfigError, RunConfig
from difftrain.config.train import GrpoConfig, RateSchedule, SftConfig, VllmMode
from difftrain.model import loading
from difftrain.pipeline.coordination import World
from difftrain.records import TrainStage


@dataclass(frozen=True, slots=True)
class TrainJob:
    """One training stage (SFT or GRPO) of one arm (tuned or control), for this process.

    `start` is a checkpoint that replaces the weights of `model.name`; `inputs` go to manifest.json.
    `callbacks` are further callbacks of the trainer.
    """

    stage: TrainStage
    config: RunConfig
    folder: Path
    world: World
    title: str
    start: Path | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    callbacks: Sequence[TrainerCallback] = ()

    @property
    def settings(self) -> GrpoConfig | SftConfig:
        return getattr(self.config, self.stage)

    @property
    def start_model(self) -> ModelConfig:
        """The settings of the model that training starts from."""
        model = self.config.model
        return replace(model, name=str(self.start), revision=None) if self.start else model

    def load_processor(self) -> Any:
        """The processor of `start_model`, with the data's pixel budget."""
        data = self.config.data
        return loading.load_processor(self.start_model, data.min_pixels, data.max_pixels)


def batch_shape(settings: GrpoConfig | SftConfig, world: World) -> tuple[int, int]:
    """The batch size of one device in one backward pass, and the gradient accumulation steps.

    The batch size is the largest up to per_device_train_batch_size that divides a device's share
    of the step. Raises ConfigError if the processes cannot share the step evenly.
    """
    if problem := settings.step_problem(world.size):
        raise ConfigError([problem])
    if isinstance(settings, GrpoConfig):
        share = settings.prompts_per_step * settings.num_generations // world.size
    else:
        share = settings.samples_per_step // world.size
    size = max(n for n in range(1, settings.per_device_train_batch_size + 1) if share % n == 0)
    return size, share // size


def step_summary(settings: GrpoConfig | SftConfig, world: World) -> str:
    """How one optimizer step is divided over processes and passes, as text."""
    size, passes = batch_shape(settings, world)
    total = f"{world.size * size * passes} samples"
    if isinstance(settings, GrpoConfig):
        total = f"{settings.prompts_per_step} prompts x {settings.num_generations} completions"
    return f"a step: {total} = {world.size} processes x batch size {size} x {passes} passes"


def placeholder_ban(banned: Mapping[str, int], mode: VllmMode = VllmMode.none) -> dict[str, Any]:
    """Generation arguments that keep these tokens (family.banned_tokens) from being sampled.

    transformers bans token ids (suppress_tokens). vLLM has no such argument, and TRL bans nothing
    there; vLLM bans bad_words and tokenizes them itself, in this process and on a server alike.
    """
    if mode is VllmMode.none:
        return {"suppress_tokens": list(banned.values())}
    return {"bad_words": list(banned)}


def loaded_dtype(model: ModelConfig, settings: GrpoConfig | SftConfig) -> Dtype:
    """The precision in which weights are loaded and updated.

    Plain bfloat16 loses updates at a learning rate of 1e-6: at 0.02, a typical weight, its numbers
    are 1e-4 apart. DeepSpeed itself keeps float32 copies. Without DeepSpeed, trained weights are
    float32 and only passes run in bfloat16. LoRA adapters are float32, base weights do not change.
    """
    deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"
    keeps_dtype = model.dtype is Dtype.float32 or deepspeed or settings.lora.rank > 0
    return model.dtype if keeps_dtype else Dtype.float32


def _shared_arguments(job: TrainJob) -> dict[str, Any]:
    settings, model = job.settings, job.config.model
    size, passes = batch_shape(settings, job.world)
    dtype, schedule = loaded_dtype(model, settings), settings.lr_scheduler_type
    is_constant = schedule is RateSchedule.constant
    return {
        "output_dir": str(job.folder / "checkpoints"),
        "model_init_kwargs": {"dtype": dtype.value, "revision": job.start_model.revision or "main"},
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "constant_with_warmup" if is_constant else schedule.value,
        "warmup_steps": settings.warmup_ratio,  # transformers takes a number below 1 for a ratio
        "num_train_epochs": settings.num_train_epochs,
        "max_steps": settings.max_steps or -1,  # -1: no limit
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": passes,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "save_steps": settings.save_steps,
        "save_total_limit": 2,
        "logging_steps": 1,
        "report_to": "none",
        "seed": job.config.seed,
        "bf16": model.dtype is Dtype.bfloat16,
        "use_cpu": not torch.cuda.is_available(),
    }


def grpo_arguments(job: TrainJob, banned: Mapping[str, int], evaluate: bool = False) -> GRPOConfig:
    """TRL's GRPOConfig; the keys of grpo.trl were checked with the other settings."""
    grpo, vllm = job.config.grpo, job.config.grpo.vllm
    arguments = _shared_arguments(job) | {
        "num_generations": grpo.num_generations,
        "temperature": grpo.temperature,
        "beta": grpo.beta,
        "max_completion_length": grpo.max_completion_length,
        "reward_weights": list(grpo.reward_weights.values()),
        "loss_type": "grpo",
        "generation_kwargs": placeholder_ban(banned, vllm.mode),
        "eval_strategy": "steps" if evaluate else "no",
        "eval_steps": grpo.eval_steps,
        "num_generations_eval": 1,
        "per_device_eval_batch_size": batch_shape(grpo, job.world)[0],
        "use_vllm": vllm.mode is not VllmMode.none,  # TRL's vllm_mode has no value `none`
        **{f"vllm_{key}": value for key, value in asdict(vllm).items()},
        "vllm_mode": "colocate" if vllm.mode is VllmMode.none else vllm.mode.value,
        "vllm_server_base_url": vllm.server_base_url if vllm.mode is VllmMode.server else None,
    }
    return _on_one_device(GRPOConfig(**arguments, **grpo.trl))


def sft_arguments(job: TrainJob) -> SFTConfig:
    """TRL's SFTConfig: nothing truncated, nothing packed, loss only on the completion."""
    arguments = _shared_arguments(job) | {
        "max_length": None,
        "packing": False,
        "padding_free": False,
        "completion_only_loss": True,
        "remove_unused_columns": False,
        "eval_strategy": "no",
    }
    return _on_one_device(SFTConfig(**arguments, **job.config.sft.trl))


def _on_one_device(arguments: Any) -> Any:
    """The same arguments, but each process trains on one GPU; vLLM may use more (tensor parallel).

    With several GPUs transformers uses nn.DataParallel. TRL refuses it and advises to set `_n_gpu`.
    """
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1
    return arguments
