"""Makes a training that resumes from a checkpoint see the samples that an undisturbed one sees.

transformers restores weights, optimizer and random generators, and skips the batches that were
used in the current epoch. Three gaps are left, which are closed here:

* TRL's sampler shuffles every epoch with one generator and cannot be set to an epoch, so that a
  training that resumed in its second one read the samples in the order of the first; with several
  processes transformers' own sampler is not set to the epoch either.
* Rollouts that several optimizer steps use are not saved, so a training that resumed between these
  steps generated others. Checkpoints are saved only after the last of these steps.
* From a checkpoint of the last step transformers trains one step more. None is saved there: the
  final weights follow at once.
"""

import math
from typing import Any

import torch
from accelerate.data_loader import SeedableRandomSampler
from transformers import TrainerCallback, TrainerControl, TrainerState
from trl.trainer.utils import RepeatSampler


def needs_new_rollouts(trainer: Any) -> bool:
    """Whether the next step begins with new rollouts; always true without rollouts (SFT)."""
    if (steps_per_generation := getattr(trainer.args, "steps_per_generation", None)) is None:
        return True
    return trainer._step % (steps_per_generation * trainer.args.num_iterations) == 0


def set_epoch(sampler: Any, epoch: int) -> None:
    """Make the sampler's next order that of this epoch, counted from 0."""
    if not isinstance(sampler, RepeatSampler):
        sampler.set_epoch(epoch)  # transformers' sampler (SFT)
    elif sampler.shuffle and sampler.seed is not None:
        sampler.generator.manual_seed(sampler.seed)
        for _ in range(epoch):  # each epoch draws its order from where the last one ended
            torch.randperm(sampler.num_samples, generator=sampler.generator)


class SetEpoch(TrainerCallback):
    """Sets the training's sampler to the epoch that begins."""

    def on_epoch_begin(self, args: Any, state: TrainerState, *_: Any, **objects: Any) -> None:
        """Find the sampler inside accelerate's wrappers; some of them do not pass the epoch on."""
        sampler = objects["train_dataloader"].batch_sampler
        while inner := getattr(sampler, "batch_sampler", getattr(sampler, "sampler", None)):
            sampler = inner
        if isinstance(sampler, RepeatSampler | SeedableRandomSampler):
            set_epoch(sampler, math.floor((state.epoch or 0) + 1e-6))


class SaveBeforeNewRollouts(TrainerCallback):
    """Puts a checkpoint off to the last of the optimizer steps that use the same rollouts."""

    def __init__(self, trainer: Any) -> None:
        self.trainer, self.is_due = trainer, False

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """After the callbacks that request a checkpoint."""
        self.is_due |= control.should_save
        is_last = state.global_step >= state.max_steps
        control.should_save = self.is_due and needs_new_rollouts(self.trainer) and not is_last
        self.is_due &= not control.should_save
