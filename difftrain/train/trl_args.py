"""Our settings as TRL's GRPOConfig and SFTConfig: those the papers name, then `trl` as given."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.sft_config import SFTConfig

from difftrain.config.data import DataConfig
from difftrain.config.model import Dtype, ModelConfig
from difftrain.config.run_config import ConfigError
from difftrain.config.train import GrpoConfig, RateSchedule, SftConfig, VllmMode
from difftrain.model import loading
from difftrain.model.engines.hf import PLACEHOLDERS
from difftrain.pipeline.coordination import World

T = TypeVar("T", GRPOConfig, SFTConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainJob:
    """One training stage of one arm: what it starts from, where it writes, what shares it.

    `start` is a checkpoint that replaces the weights of `model.name`; `inputs` go to manifest.json.
    """

    folder: Path
    world: World
    title: str
    model: ModelConfig
    data: DataConfig
    seed: int
    start: Path | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)

    @property
    def start_model(self) -> ModelConfig:
        """The settings of the model that training starts from."""
        if self.start is None:
            return self.model
        return replace(self.model, name=str(self.start), revision=None)

    def load_processor(self) -> Any:
        """The processor of that model, with the data's pixel budget."""
        data = self.data
        return loading.load_processor(self.start_model, data.min_pixels, data.max_pixels)


def rows_per_step(settings: GrpoConfig | SftConfig) -> int:
    """Completions (GRPO) or samples (SFT) of one optimizer step, over all processes."""
    if isinstance(settings, GrpoConfig):
        return settings.prompts_per_step * settings.num_generations
    return settings.samples_per_step


def batch_shape(settings: GrpoConfig | SftConfig, world: World) -> tuple[int, int]:
    """Rows of one device in one backward pass, and gradient accumulation steps.

    The batch size is the largest up to per_device_train_batch_size that divides a device's share
    of the step. Raises ConfigError if the processes cannot share the step evenly.
    """
    if problem := settings.step_problem(world.size):
        raise ConfigError([problem])
    rows = rows_per_step(settings) // world.size
    size = max(n for n in range(1, settings.per_device_train_batch_size + 1) if rows % n == 0)
    return size, rows // size


def step_summary(settings: GrpoConfig | SftConfig, world: World) -> str:
    """How one optimizer step is divided over processes and passes, as text."""
    size, passes = batch_shape(settings, world)
    rows = f"{rows_per_step(settings)} samples"
    if isinstance(settings, GrpoConfig):
        rows = f"{settings.prompts_per_step} prompts x {settings.num_generations} completions"
    return f"a step: {rows} = {world.size} processes x {size} at once x {passes} passes"


def placeholder_ban(
    vocabulary: dict[str, int], mode: VllmMode = VllmMode.none
) -> dict[str, list[Any]]:
    """Generation arguments under which no image placeholder can be sampled.

    transformers takes token ids. vLLM has no suppress_tokens, and TRL bans nothing there; its
    bad_words are tokenized by vLLM itself, in this process and on a server alike.
    """
    tokens = [token for token in PLACEHOLDERS if token in vocabulary]
    if mode is VllmMode.none:
        return {"suppress_tokens": [vocabulary[token] for token in tokens]}
    return {"bad_words": tokens}


def loaded_dtype(model: ModelConfig, settings: GrpoConfig | SftConfig) -> Dtype:
    """The precision that weights are loaded and updated in.

    Plain bfloat16 loses updates of the papers' size: around 0.02 its steps are 1e-4. DeepSpeed
    keeps float32 copies itself; without it trained weights are float32 and only the passes run in
    bfloat16. LoRA adapters are float32 and the base weights never change.
    """
    deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"
    keep = model.dtype is Dtype.float32 or deepspeed or settings.lora.rank > 0
    return model.dtype if keep else Dtype.float32


def shared_arguments(job: TrainJob, settings: GrpoConfig | SftConfig) -> dict[str, Any]:
    """TRL arguments of both stages."""
    size, passes = batch_shape(settings, job.world)
    schedule = settings.lr_scheduler_type
    is_constant = schedule is RateSchedule.constant
    return {
        "output_dir": str(job.folder / "checkpoints"),
        "model_init_kwargs": {
            "dtype": loaded_dtype(job.model, settings).value,
            "revision": job.start_model.revision or "main",
        },
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "constant_with_warmup" if is_constant else schedule.value,
        "warmup_steps": settings.warmup_ratio,
        "num_train_epochs": settings.num_train_epochs,
        "max_steps": settings.max_steps or -1,
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": passes,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "save_steps": settings.save_steps,
        "save_total_limit": 2,
        "logging_steps": 1,
        "report_to": "none",
        "seed": job.seed,
        "bf16": job.model.dtype is Dtype.bfloat16,
        "use_cpu": not torch.cuda.is_available(),
    }


def grpo_arguments(
    job: TrainJob, grpo: GrpoConfig, vocabulary: dict[str, int], evaluates: bool = False
) -> GRPOConfig:
    """TRL's GRPOConfig; the keys of grpo.trl were checked with the other settings."""
    vllm = grpo.vllm
    arguments = shared_arguments(job, grpo) | {
        "num_generations": grpo.num_generations,
        "temperature": grpo.temperature,
        "beta": grpo.beta,
        "max_completion_length": grpo.max_completion_length,
        "reward_weights": list(grpo.reward_weights.values()),
        "loss_type": "grpo",
        "generation_kwargs": placeholder_ban(vocabulary, vllm.mode),
        "eval_strategy": "steps" if evaluates else "no",
        "eval_steps": grpo.eval_steps,
        "num_generations_eval": 1,
        "per_device_eval_batch_size": batch_shape(grpo, job.world)[0],
        "use_vllm": vllm.mode is not VllmMode.none,
        **{f"vllm_{key}": value for key, value in asdict(vllm).items()},
        "vllm_mode": "colocate" if vllm.mode is VllmMode.none else vllm.mode.value,
        "vllm_server_base_url": vllm.server_base_url if vllm.mode is VllmMode.server else None,
    }
    return on_one_device(GRPOConfig(**arguments, **grpo.trl))


def sft_arguments(job: TrainJob, sft: SftConfig) -> SFTConfig:
    """TRL's SFTConfig: nothing truncated, nothing packed, loss on the completion alone."""
    arguments = shared_arguments(job, sft) | {
        "max_length": None,
        "packing": False,
        "padding_free": False,
        "completion_only_loss": True,
        "remove_unused_columns": False,
        "eval_strategy": "no",
    }
    return on_one_device(SFTConfig(**arguments, **sft.trl))


def on_one_device(arguments: T) -> T:
    """The same arguments with one GPU for this process, however many it sees.

    transformers would copy the model to each with nn.DataParallel and multiply the batch by their
    number, which TRL refuses; it names `_n_gpu` as the way out, as Trainer itself takes for a
    model that is split over devices. Further GPUs may be vLLM's (tensor_parallel_size).
    """
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1
    return arguments
