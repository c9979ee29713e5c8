"""Settings of GRPO. Defaults are the first paper's (P, section 4) unless a line says otherwise."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class RateSchedule(StrEnum):
    """How the learning rate goes on after warm-up."""

    linear = "linear"
    cosine = "cosine"
    constant = "constant"


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
    freeze_vision: bool = False
    """Leave vision tower and projector as they are (P: GRPO is full fine-tuning)."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass to save memory."""
    save_every: int = 100
    """Optimizer steps between checkpoints that a killed run continues from."""
    trl: dict[str, Any] = field(default_factory=dict)
    """Anything else of TRL's GRPOConfig, off the typed path: +grpo.trl.KEY=VALUE."""

    def uneven(self, processes: int) -> str | None:
        """Why a step cannot be shared by so many processes, with the nearest prompts_per_step."""
        if self.prompts_per_step * self.group_size % processes == 0:
            return None
        near = sorted(
            (n for n in range(1, 4 * processes + self.prompts_per_step) if n % processes == 0),
            key=lambda n: abs(n - self.prompts_per_step),
        )[:3]
        return (
            f"grpo.prompts_per_step={self.prompts_per_step}: times group_size={self.group_size} "
            f"must divide by the {processes} processes; nearest: {sorted(near)}"
        )

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        if self.group_size < 2:
            yield "group_size", "GRPO needs at least two answers to compare"
        for name in ("prompts_per_step", "per_device_batch", "epochs", "save_every"):
            if getattr(self, name) < 1:
                yield name, "must be at least 1"
        if self.max_steps is not None and self.max_steps < 1:
            yield "max_steps", "must be at least 1, or null to follow epochs"
        if self.max_completion_tokens < 1:
            yield "max_completion_tokens", "must be at least 1"
        if not 0 < self.learning_rate < 1:
            yield "learning_rate", "must lie strictly between 0 and 1"
        if not 0 <= self.warmup_ratio < 1:
            yield "warmup_ratio", "must be at least 0 and below 1"
        if not 0 < self.temperature <= 2:
            yield "temperature", "must lie above 0 and at or below 2"
        if self.kl < 0:
            yield "kl", "must not be negative"
        if self.layout_weight < 0:
            yield "layout_weight", "must not be negative"
