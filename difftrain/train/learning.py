"""Whether the parts that are configured to learn do, asked of the gradients of the first step."""

from collections.abc import Collection
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from difftrain.train import modules


class NotAsConfigured(RuntimeError):
    """A part that should learn gets no gradient, or a frozen one does; the message names it."""


class FirstGradients(TrainerCallback):
    """Listens to every gradient of the first step, then says which parts it reached, or fails.

    Hooks see the gradients themselves, also where DeepSpeed takes them away at once. A gradient of
    zero counts: in GRPO's first step all groups may be dead.
    """

    def __init__(self, model: nn.Module, frozen: Collection[str], blind: bool) -> None:
        """`blind`: some samples have no picture, so a step may leave the vision parts out."""
        self.frozen, self.blind = set(frozen), blind
        self.finite: dict[str, torch.Tensor] = {}
        self.hooks: list[Any] = []
        self.model = model
        self.parts = [part for part, _, _ in modules.counted(model)]
        self.trained = {part for part, _, trained in modules.counted(model) if trained}
        self.still = [
            (name, each) for name, each in model.named_parameters() if not each.requires_grad
        ]

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start to listen, now that DeepSpeed has taken the parameters over if it does."""
        self.hooks = [
            each.register_hook(self.heard(modules.part_of(name)))
            for name, each in self.model.named_parameters()
            if each.requires_grad
        ]

    def heard(self, part: str) -> Any:
        """A hook that notes that a gradient came to this part, and whether all were finite."""

        def hear(gradient: torch.Tensor) -> None:
            fine = gradient.detach().isfinite().all()
            self.finite[part] = self.finite[part] & fine if part in self.finite else fine

        return hear

    def troubles(self) -> list[str]:
        """What is not as configured, one line a part."""
        found = [f"{part} is frozen but trained" for part in sorted(self.frozen & self.trained)]
        found += [
            f"{name} is frozen but got a gradient"
            for name, each in self.still
            if each.grad is not None
        ][:3]
        for part in self.parts:
            if part not in self.trained:
                continue
            excused = self.blind and part in modules.VISION_PARTS
            if part not in self.finite and not excused:
                found.append(f"{part} is trained but got no gradient")
            elif part in self.finite and not bool(self.finite[part]):
                found.append(f"{part} got a gradient that is not finite")
        return found

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Check once, after the first step of this process; the hooks are taken off."""
        if not self.hooks:
            return
        for hook in self.hooks:
            hook.remove()
        self.hooks = []
        if troubles := self.troubles():
            raise NotAsConfigured("after the first step: " + "; ".join(troubles))
        if state.is_world_process_zero:
            reached = [part for part in self.parts if part in self.finite]
            still = [part for part in self.parts if part not in self.trained]
            frozen = f"; frozen: {', '.join(still)}" if still else ""
            print(f"gradients reached: {', '.join(reached)}{frozen}", flush=True)
