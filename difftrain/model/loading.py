"""Loads a model and its processor by name, and recognizes out-of-memory errors."""

import gc
import os
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from difftrain.config.model import ModelConfig
from difftrain.config.run_config import ConfigError
from difftrain.model import family, resolve


class ModelNotFound(OSError):
    """The weights are in no local folder and could not be downloaded."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in evaluation mode and its processor, padding on the left."""

    model: Any  # Any, because transformers does not declare the attributes used here
    processor: Any

    @property
    def device(self) -> torch.device:
        """Where the model's inputs must be."""
        return self.model.device

    @property
    def image_token(self) -> int:
        """The id of the placeholder token; a prompt has one per image token."""
        return family.image_token_id(self.model.config)  # pyright: ignore[reportReturnType]

    @property
    def banned(self) -> dict[str, int]:
        """Text and id of the tokens that a response must not contain."""
        return family.banned_tokens(self.processor, self.model.config)


def load_processor(config: ModelConfig, min_pixels: int, max_pixels: int) -> Any:
    """The processor, padding on the left; images between the two areas are not resized.

    A family whose processor chooses the size of images itself keeps its rule.
    """
    processor = AutoProcessor.from_pretrained(
        resolve.source(config.name), revision=config.revision, trust_remote_code=False
    )
    processor.tokenizer.padding_side = "left"
    family.set_pixel_budget(processor.image_processor, min_pixels, max_pixels)
    return processor


def load_architecture(config: ModelConfig) -> Any:
    """The model's configuration in transformers' classes, without its weights."""
    source = resolve.source(config.name)
    return AutoConfig.from_pretrained(source, revision=config.revision, trust_remote_code=False)


def with_pixel_budget(loaded: LoadedModel, min_pixels: int, max_pixels: int) -> LoadedModel:
    """The same model with other pixel limits; `loaded` does not change."""
    processor = copy(loaded.processor)
    processor.image_processor = copy(processor.image_processor)
    family.set_pixel_budget(processor.image_processor, min_pixels, max_pixels)
    return LoadedModel(loaded.model, processor)


def load(config: ModelConfig, min_pixels: int, max_pixels: int) -> LoadedModel:
    """The model and its processor, ready to generate. Raises ModelNotFound with a hint.

    Raises ConfigError for a family that difftrain does not support, before the weights are read.
    """
    try:
        if reason := family.refusal(load_architecture(config)):
            raise ConfigError([f"model.name={config.name}: cannot be used: {reason}"])
        processor = load_processor(config, min_pixels, max_pixels)
        model: Any = AutoModelForImageTextToText.from_pretrained(
            resolve.source(config.name),
            revision=config.revision,
            dtype=getattr(torch, config.dtype),
            trust_remote_code=False,
        )
    except OSError as error:
        problem = "is no folder with weights and could not be downloaded"
        hint = f"without a network, give the path of a local folder ({error})"
        raise ModelNotFound(f"model.name={config.name}: {problem}; {hint}") from error
    has_gpu, rank = torch.cuda.is_available(), os.environ.get("LOCAL_RANK", "0")
    return LoadedModel(model.to(f"cuda:{int(rank)}" if has_gpu else "cpu").eval(), processor)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that GPU or CPU memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    cpu_messages = ("not enough memory", "can't allocate memory")  # of torch
    return isinstance(error, RuntimeError) and any(part in str(error) for part in cpu_messages)


def free_memory() -> None:
    """Return unused memory to the device, for a retry with a smaller batch."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
