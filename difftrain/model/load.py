"""From a name to a model and its processor: one path for the tiny model and for the 7B."""

import os
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from difftrain.config.model import ModelConfig
from difftrain.model import locate


class ModelNotFound(OSError):
    """The weights are neither in a local folder nor to be had from the hub."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in evaluation mode and its processor, padding on the left."""

    # Any, because transformers' classes declare neither `generate` nor a processor's parts.
    model: Any
    processor: Any

    @property
    def device(self) -> torch.device:
        """Where the model's inputs must be."""
        return self.model.device

    @property
    def image_token(self) -> int:
        """The placeholder that stands for one picture token."""
        return self.model.config.image_token_id


def device() -> torch.device:
    """This process's GPU, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def load_processor(config: ModelConfig, min_pixels: int, max_pixels: int) -> Any:
    """The processor, left-padding, bound to the pixel budget that the data layer applied.

    Pictures inside the budget then pass its own resize unchanged, so every user of a picture sees
    the same number of image tokens.
    """
    processor = AutoProcessor.from_pretrained(
        locate.source(config.name), revision=config.revision, trust_remote_code=False
    )
    processor.tokenizer.padding_side = "left"
    processor.image_processor.size = {"shortest_edge": min_pixels, "longest_edge": max_pixels}
    return processor


def within(loaded: Loaded, min_pixels: int, max_pixels: int) -> Loaded:
    """The same model with a processor bound to another pixel budget; the first keeps its own."""
    processor = copy(loaded.processor)
    processor.image_processor = copy(processor.image_processor)
    processor.image_processor.size = {"shortest_edge": min_pixels, "longest_edge": max_pixels}
    return Loaded(loaded.model, processor)


def load(config: ModelConfig, min_pixels: int, max_pixels: int) -> Loaded:
    """The model and its processor, ready to be asked. Raises ModelNotFound with what to do."""
    try:
        processor = load_processor(config, min_pixels, max_pixels)
        model: Any = AutoModelForImageTextToText.from_pretrained(
            locate.source(config.name),
            revision=config.revision,
            dtype=getattr(torch, config.dtype),
            trust_remote_code=False,
        )
    except OSError as error:
        raise ModelNotFound(
            f"model.name={config.name}: neither a folder with weights nor to be had from the hub; "
            f"without network, give the path of a local folder ({error})"
        ) from error
    return Loaded(model.to(device()).eval(), processor)
