"""Ends training, with a checkpoint, after the step in which a stop was requested.

If later steps use the same rollouts (grpo.trl.steps_per_generation, num_iterations), after these.
"""

import os
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState

from difftrain.pipeline.stop_request import STOP_VARIABLE, is_requested, note_saved
from difftrain.train.exact_resume import needs_new_rollouts


class StopOnRequest(TrainerCallback):
    """`has_stopped` tells whether training ended because of the stop file.

    It ends only after a step from which a training resumes exactly: see exact_resume.py.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer, self.has_stopped = trainer, False

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Save and stop if any process sees the file: all must stop after the same step."""
        if STOP_VARIABLE not in os.environ or state.global_step >= state.max_steps:
            return
        if not needs_new_rollouts(self.trainer):
            return
        accelerator = self.trainer.accelerator
        seen = torch.tensor([float(is_requested())], device=accelerator.device)
        if accelerator.reduce(seen, reduction="sum").item():
            self.has_stopped = control.should_save = control.should_training_stop = True

    def on_save(self, *_: Any, **__: Any) -> None:
        """Tell the job that a restart would continue from a newer checkpoint."""
        note_saved()
