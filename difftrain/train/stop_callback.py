"""Ends training, with a checkpoint, after the step in which a stop was requested."""

import os
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState

from difftrain.pipeline.stop_request import STOP_VARIABLE, is_requested, note_saved


class StopOnRequest(TrainerCallback):
    """`has_stopped` tells whether training ended because of the stop file.

    It ends only after a step from which a training resumes exactly: see exact_resume.py.
    """

    def __init__(self, accelerator: Any, steps_per_rollouts: int = 1) -> None:
        self.accelerator, self.steps_per_rollouts = accelerator, steps_per_rollouts
        self.has_stopped = False

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Save and stop if any process sees the file: all must stop after the same step."""
        if STOP_VARIABLE not in os.environ or state.global_step >= state.max_steps:
            return
        if state.global_step % self.steps_per_rollouts:
            return
        seen = torch.tensor([float(is_requested())], device=self.accelerator.device)
        if self.accelerator.reduce(seen, reduction="sum").item():
            self.has_stopped = control.should_save = control.should_training_stop = True

    def on_save(self, *_: Any, **__: Any) -> None:
        """Tell the job that a restart would continue from a newer checkpoint."""
        note_saved()
