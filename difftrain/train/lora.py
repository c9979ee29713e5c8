"""LoRA: what peft is told, and one whole model out of a base and its adapter."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig as PeftLora
from peft import LoraModel, PeftModel
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText

from difftrain.config.model import ModelConfig
from difftrain.config.run_config import ConfigError
from difftrain.config.train import GrpoConfig, LoraConfig, SftConfig
from difftrain.model import locate
from difftrain.train.modules import freeze_vision

VISION = r".*\bvisual\b.*"
ADAPTER = "adapter"
"""Beside `checkpoint`: the additions alone, as peft writes them."""


def endings(model: ModelConfig) -> set[str]:
    """The last names of a model's linear modules, found without its weights."""
    settings = AutoConfig.from_pretrained(
        locate.source(model.name), revision=model.revision, trust_remote_code=False
    )
    with torch.device("meta"):
        empty: Any = AutoModelForImageTextToText.from_config(settings)
    linear = (torch.nn.Linear, torch.nn.Conv1d)
    return {
        name.rsplit(".", 1)[-1]
        for name, module in empty.named_modules()
        if isinstance(module, linear)
    }


def peft_config(stage: str, lora: LoraConfig, model: ModelConfig) -> PeftLora | None:
    """peft's own configuration; None where all weights are trained.

    Raises ConfigError for targets that the model does not have.
    """
    if not lora.rank:
        return None
    there = endings(model)
    if unknown := [name for name in lora.targets if name not in there]:
        told = f"{', '.join(unknown)}: not in this model, which has {', '.join(sorted(there))}"
        raise ConfigError([f"{stage}.lora.targets={lora.targets}: {told}"])
    return PeftLora(
        r=lora.rank,
        lora_alpha=lora.alpha,  # pyright: ignore[reportArgumentType]  # a float does as well
        target_modules=list(lora.targets),
        exclude_modules=None if lora.vision else VISION,
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )


@contextmanager
def as_trained(
    name: str, stage: GrpoConfig | SftConfig, config: ModelConfig, model: nn.Module
) -> Iterator[None]:
    """The loaded model as this stage would train it, and afterwards as it was.

    Additions are in place and frozen parts frozen meanwhile. Raises ConfigError, ValueError as
    training would.
    """
    before = {key: each.requires_grad for key, each in model.named_parameters()}
    additions, adapted = peft_config(name, stage.lora, config), None
    try:
        if additions is not None:
            adapted = LoraModel(model, additions, "trial")
        if stage.freeze_vision:
            freeze_vision(model)
        yield
    finally:
        if adapted is not None:
            adapted.unload()
        for key, each in model.named_parameters():
            each.requires_grad_(before[key])


def merge(model: ModelConfig, adapter: Path, target: Path) -> None:
    """Write base and adapter as one model to `target`, merged in float32, in the model's dtype."""
    base: Any = AutoModelForImageTextToText.from_pretrained(
        locate.source(model.name),
        revision=model.revision,
        dtype=torch.float32,
        trust_remote_code=False,
    )
    whole: Any = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload()
    whole.to(getattr(torch, model.dtype)).save_pretrained(target)
