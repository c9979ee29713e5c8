"""Which weights a stage trains: frozen parts, LoRA, and a check of the first step's gradients."""

import logging
import re
from collections import Counter
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, TrainerCallback

from difftrain.config.model import ModelConfig
from difftrain.config.run_config import ConfigError
from difftrain.config.train import LoraConfig
from difftrain.model import resolve
from difftrain.model.family import PARTS, VISION_PARTS, parts, vision_modules

logger = logging.getLogger(__name__)

ADAPTER = "adapter"  # folder beside `checkpoint` with the LoRA adapter as peft writes it


def freeze_vision(model: nn.Module) -> None:
    """Exclude vision tower and projector from training."""
    part_of = parts(model)
    for name, parameter in model.named_parameters():
        if part_of[name] in VISION_PARTS:
            parameter.requires_grad_(False)


def count_parameters(model: nn.Module) -> list[tuple[str, int, int]]:
    """(part, number of parameters, number of trained ones) of each part with parameters."""
    sizes, trained, part_of = Counter(), Counter(), parts(model)
    for name, parameter in model.named_parameters():
        size = getattr(parameter, "ds_numel", parameter.numel())  # ZeRO-3 empties the parameter
        sizes[part_of[name]] += size
        trained[part_of[name]] += size * parameter.requires_grad
    return [(part, sizes[part], trained[part]) for part in PARTS if part in sizes]


def parameter_table(model: nn.Module) -> str:
    """Parameters and trained parameters by part, logged before the first step."""
    lines = [f"{'part':<16}{'parameters':>16}{'trained':>16}"]
    lines += [f"{part:<16}{n:>16,}{trained:>16,}" for part, n, trained in count_parameters(model)]
    return "\n".join(lines)


def peft_config(stage: str, lora: LoraConfig, model: ModelConfig) -> PeftLoraConfig | None:
    """peft's LoraConfig, or None without LoRA. Raises ConfigError if a target module is missing."""
    if not lora.rank:
        return None
    architecture = AutoConfig.from_pretrained(
        resolve.source(model.name), revision=model.revision, trust_remote_code=False
    )
    with torch.device("meta"):  # no weights are read
        empty: Any = AutoModelForImageTextToText.from_config(architecture)
    modules = [name for name, m in empty.named_modules() if isinstance(m, nn.Linear | nn.Conv1d)]
    names = {name.rsplit(".", 1)[-1] for name in modules}
    if unknown := [name for name in lora.targets if name not in names]:
        rule = f"{', '.join(unknown)}: not in this model, which has {', '.join(sorted(names))}"
        raise ConfigError([f"{stage}.lora.targets={lora.targets}: {rule}"])
    return PeftLoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # pyright: ignore[reportArgumentType]  # a float works too
        target_modules=list(lora.targets),
        exclude_modules=None if lora.vision else under(vision_modules(empty)),
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )


def under(modules: list[str]) -> str:
    """A regular expression for the names of these modules and of all inside them."""
    return rf"(?:{'|'.join(map(re.escape, modules))})(?:\..*)?"


def merge_adapter(model: ModelConfig, adapter: Path, target: Path) -> None:
    """Merge base model and adapter in float32 and write the result to `target` in model.dtype."""
    source, revision = resolve.source(model.name), model.revision
    base: Any = AutoModelForImageTextToText.from_pretrained(
        source, revision=revision, dtype=torch.float32, trust_remote_code=False
    )
    merged: Any = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload()
    merged.to(getattr(torch, model.dtype)).save_pretrained(target)


class GradientError(RuntimeError):
    """A trained part got no gradient, or a frozen part got one; the message names the part."""


class GradientCheck(TrainerCallback):
    """Checks after the first step that gradients reached exactly the parts that are trained.

    It uses hooks because DeepSpeed frees gradients at once. A zero gradient is accepted: GRPO's
    advantages are zero if all completions of each prompt get equal rewards.
    """

    def __init__(self, model: nn.Module, frozen: Collection[str], has_text_only: bool) -> None:
        """`has_text_only`: some samples have no image, so a step may not use the vision parts."""
        self.model, self.frozen_parts, self.has_text_only = model, set(frozen), has_text_only
        self.is_finite: dict[str, torch.Tensor] = {}  # for each part that got a gradient
        self.hooks: list[Any] = []
        self.is_trained = {part: n > 0 for part, _, n in count_parameters(model)}
        self.untrained = {name: p for name, p in model.named_parameters() if not p.requires_grad}

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Register the hooks, after DeepSpeed has taken the parameters over."""

        def record(part: str, gradient: torch.Tensor) -> None:
            is_finite = gradient.detach().isfinite().all()
            self.is_finite[part] = self.is_finite.get(part, is_finite) & is_finite

        trained = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        part_of = parts(self.model)
        self.hooks = [p.register_hook(partial(record, part_of[name])) for name, p in trained]

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Check once, after the first step of this process. Raises GradientError."""
        if not self.hooks:
            return
        for hook in self.hooks:
            hook.remove()
        self.hooks = []
        trained = [part for part, is_trained in self.is_trained.items() if is_trained]
        got_gradient = [name for name, p in self.untrained.items() if p.grad is not None]
        unfrozen = sorted(self.frozen_parts & {*trained})
        problems = [f"{part} must be frozen but is trained" for part in unfrozen]
        problems += [f"{name} is frozen but got a gradient" for name in got_gradient[:3]]
        for part in trained:
            if part in self.is_finite:
                if not bool(self.is_finite[part]):
                    problems.append(f"{part} got a gradient that is not finite")
            elif not (self.has_text_only and part in VISION_PARTS):
                problems.append(f"{part} is trained but got no gradient")
        if problems:
            raise GradientError("after the first step: " + "; ".join(problems))
        reached = ", ".join(part for part in self.is_trained if part in self.is_finite)
        frozen = ", ".join(part for part in self.is_trained if part not in trained)
        logger.info("gradients reached: %s%s", reached, f"; frozen: {frozen}" if frozen else "")
