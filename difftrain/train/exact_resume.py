"""Makes a training that resumes from a checkpoint see the samples that an undisturbed one sees.

transformers restores weights, optimizer and random generators, and skips the batches that were
used in the current pass over the samples. Two gaps are left, which are closed here:

* TRL's sampler shuffles every pass with one generator and cannot be set to a pass, so that a
  training that resumed in its second pass read the samples in the order of the first; with several
  processes transformers' own sampler is not set to the pass either.
* Rollouts that several optimizer steps use are not saved, so a training that resumed between these
  steps generated others. Checkpoints are saved only after the last of these steps.
"""

import math
from typing import Any

import torch
from accelerate.data_loader import SeedableRandomSampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.utils import RepeatSampler


def steps_per_rollouts(args: TrainingArguments) -> int:
    """Optimizer steps after which TRL begins one with new rollouts; 1 without rollouts."""
    if not isinstance(args, GRPOConfig) or args.steps_per_generation is None:
        return 1
    passes, passes_per_step = (
        args.steps_per_generation * args.num_iterations,
        args.gradient_accumulation_steps,
    )
    return math.lcm(passes, passes_per_step) // passes_per_step


def set_pass(sampler: Any, number: int) -> None:
    """Make the sampler's next pass over the samples the one with this number, counted from 0."""
    if not isinstance(sampler, RepeatSampler):
        sampler.set_epoch(number)  # transformers' sampler (SFT)
    elif sampler.shuffle and sampler.seed is not None:
        sampler.generator.manual_seed(sampler.seed)
        for _ in range(number):  # each pass draws its order from where the last one ended
            torch.randperm(sampler.num_samples, generator=sampler.generator)


class SetPass(TrainerCallback):
    """Sets the training's sampler to the pass that begins."""

    def on_epoch_begin(self, args: Any, state: TrainerState, *_: Any, **objects: Any) -> None:
        """Find the sampler inside accelerate's wrappers; some of them do not pass the number on."""
        sampler = objects["train_dataloader"].batch_sampler
        while inner := getattr(sampler, "batch_sampler", getattr(sampler, "sampler", None)):
            sampler = inner
        if isinstance(sampler, RepeatSampler | SeedableRandomSampler):
            set_pass(sampler, math.floor((state.epoch or 0) + 1e-6))


class SaveBetweenRollouts(TrainerCallback):
    """Puts a checkpoint off to the last of the optimizer steps that use the same rollouts."""

    def __init__(self, steps_per_rollouts: int) -> None:
        self.steps_per_rollouts, self.is_due = steps_per_rollouts, False

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """After the callbacks that request a checkpoint; the last step saves in any case."""
        self.is_due |= control.should_save
        is_between = state.global_step % self.steps_per_rollouts == 0
        control.should_save = self.is_due and (is_between or state.global_step >= state.max_steps)
        self.is_due &= not control.should_save
