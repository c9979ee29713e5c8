"""Settings of GRPO. Defaults are the first paper's (P, section 4) unless a line says otherwise."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from difftrain.records import Arm
from difftrain.train.lora_config import LoraConfig
from difftrain.train.sft_config import SftConfig as SftConfig
from difftrain.train.trl_config import (
    TRL_KEYS,
    RateSchedule,
    nearest,
    shared_problems,
    wrong_keys,
)
from difftrain.train.vllm_config import Engine, VllmConfig

OWN_KEYS = frozenset(
    re.findall(
        r"\w+",
        "output_dir model_init_kwargs learning_rate lr_scheduler_type warmup_steps beta "
        "num_train_epochs max_steps num_generations per_device_train_batch_size temperature "
        "gradient_accumulation_steps max_completion_length reward_weights loss_type "
        "gradient_checkpointing generation_kwargs save_steps save_total_limit logging_steps "
        "report_to seed bf16 use_cpu eval_strategy eval_steps num_generations_eval "
        "per_device_eval_batch_size use_vllm vllm_mode vllm_gpu_memory_utilization "
        "vllm_tensor_parallel_size vllm_max_model_length vllm_enable_sleep_mode "
        "vllm_server_base_url",
    )
)
"""TRL's keys that follow from settings of ours (arguments.py)."""


class Program(StrEnum):
    """The training stages of a recipe."""

    grpo = "grpo"
    sft_then_grpo = "sft_then_grpo"


STAGES = {Program.grpo: (Arm.grpo,), Program.sft_then_grpo: (Arm.sft, Arm.grpo)}
"""What each program trains, in its order; each has its settings under its own name."""


@dataclass(kw_only=True, slots=True)
class GrpoConfig:
    """Group-relative policy optimisation."""

    learning_rate: float = 1e-6
    """P: 5e-7; its reasoning runs mostly 1e-6."""
    rate_schedule: RateSchedule = RateSchedule.linear
    """TRL's default, which the released scripts keep."""
    warmup_ratio: float = 0.01
    """Share of the steps that raise the rate (P: 0.01)."""
    group_size: int = 8
    """Answers compared with one another, G (P: 8 generations)."""
    prompts_per_step: int = 8
    """Different prompts in one optimizer step, over all processes (P: 4 x 2 on 8 GPUs / G)."""
    per_device_batch: int = 4
    """Most answers back-propagated at once on one device (P: 4)."""
    temperature: float = 1.0
    """Sampling temperature of the rollouts (P: 1.0)."""
    kl: float = 0.001
    """Weight of the KL term (P: beta 0.001)."""
    max_completion_tokens: int = 1024
    """Longest answer (P: 1024)."""
    epochs: int = 1
    """Passes over the chosen samples (P: 1); not used when max_steps is set."""
    max_steps: int | None = None
    """Optimizer steps; null follows epochs. Arms compared at equal steps set this."""
    layout_weight: float = 0.1
    """Weight of the layout reward beside the correctness reward's 1 (V-Triune: 0.1)."""
    length_weight: float = 0.0
    """Weight of the length term: 0 for short answers, falling to -1 at max_completion_tokens
    (DAPO, Eq. 13). The papers have none; 0 leaves it out."""
    length_free: float = 0.8
    """Share of max_completion_tokens that costs nothing."""
    answer_seconds: float = 5.0
    """Wall-clock limit for grading one answer; a worker that overruns is killed and replaced."""
    reward_workers: int = 1
    """Grading processes for each training process; their number changes only the speed."""
    held_out: int = 64
    """Samples of the pool that are not trained on but asked now and then; 0 asks none."""
    held_out_every: int = 50
    """Optimizer steps between two looks at the held-out samples."""
    freeze_vision: bool = False
    """Leave vision tower and projector as they are (P: GRPO is full fine-tuning)."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass to save memory."""
    save_every: int = 100
    """Optimizer steps between checkpoints that a killed run continues from."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    vllm: VllmConfig = field(default_factory=VllmConfig)
    trl: dict[str, Any] = field(default_factory=dict)
    """Anything else of TRL's GRPOConfig, off the typed path: +grpo.trl.KEY=VALUE."""

    def uneven(self, processes: int) -> str | None:
        """Why a step cannot be shared by so many processes, with the nearest settings."""
        prompts, group = self.prompts_per_step, self.group_size
        if prompts * group % processes:
            return (
                f"grpo.prompts_per_step={prompts}: times group_size={group} must divide by the "
                f"{processes} processes; nearest: "
                f"{nearest(prompts, lambda n: n * group % processes == 0)}, or group_size "
                f"{nearest(group, lambda n: n > 1 and n * prompts % processes == 0)}"
            )
        shared = self.vllm.tensor_parallel
        if self.vllm.mode is Engine.colocate and processes % shared:
            near = nearest(shared, lambda n: n <= processes and processes % n == 0)
            return (
                f"grpo.vllm.tensor_parallel={shared}: must divide the {processes} processes; "
                f"nearest: {near}"
            )
        return None

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        if self.group_size < 2:
            yield "group_size", "GRPO needs at least two answers to compare"
        yield from shared_problems(self)
        for name in ("prompts_per_step", "reward_workers", "held_out_every"):
            if getattr(self, name) < 1:
                yield name, "must be at least 1"
        if self.max_completion_tokens < 1:
            yield "max_completion_tokens", "must be at least 1"
        if not 0 < self.temperature <= 2:
            yield "temperature", "must lie above 0 and at or below 2"
        if self.kl < 0:
            yield "kl", "must not be negative"
        for name in ("layout_weight", "length_weight", "held_out"):
            if getattr(self, name) < 0:
                yield name, "must not be negative"
        if not 0 <= self.length_free < 1:
            yield "length_free", "must be at least 0 and below 1"
        if not 0 < self.answer_seconds <= 600:
            yield "answer_seconds", "must lie above 0 and at or below 600"
        yield from wrong_keys("grpo", self.trl, OWN_KEYS, TRL_KEYS)
