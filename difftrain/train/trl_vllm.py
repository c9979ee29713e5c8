"""Workarounds for TRL with vLLM and images: a second resize, and a stale encoder cache.

Starting a vLLM server is the user's part; the placeholder ban is in trl_args.py.
"""

from collections.abc import Callable, Sequence
from typing import Any

from transformers import AutoProcessor

from difftrain import images
from difftrain.config.model import ModelConfig
from difftrain.config.run_config import ConfigError
from difftrain.config.train import VllmMode
from difftrain.model import resolve
from difftrain.records import Sample
from difftrain.train import param_groups

RESET_PATH = "/reset_encoder_cache"
"""vLLM's endpoint, available with VLLM_SERVER_DEV_MODE=1."""


def resized_images(model: ModelConfig, samples: Sequence[Sample]) -> list[str]:
    """Images that vLLM would resize again, since it reads the model folder's own pixel limits.

    TRL passes no pixel limits on, and a second resize changes the number of image tokens. Checking
    the smallest and the largest image is enough: all others lie between them.
    """
    processor: Any = AutoProcessor.from_pretrained(
        resolve.source(model.name), revision=model.revision, trust_remote_code=False
    ).image_processor
    sizes = {images.png_size(png) for sample in samples for png in sample.images}

    def area(size: tuple[int, int]) -> int:
        return size[0] * size[1]

    problems = []
    for width, height in sorted({min(sizes, key=area), max(sizes, key=area)} if sizes else ()):
        patches = processor.get_number_of_image_patches(height, width, {})
        expected = width * height // processor.patch_size**2
        if patches != expected:
            problems.append(f"{width} x {height}: {patches} patches in vLLM, {expected} here")
    return problems


def refuse_second_resize(model: ModelConfig, samples: Sequence[Sample]) -> None:
    """Raises ConfigError if vLLM would not see the images as the trainer does."""
    if problems := resized_images(model, samples):
        raise ConfigError(
            [
                f"grpo.vllm.mode: vLLM would resize images again by {model.name}'s own limits "
                f"({'; '.join(problems)}); set data.min_pixels and data.max_pixels inside them"
            ]
        )


def encoder_cache_reset(generation: Any) -> Callable[[], None]:
    """The call that empties the encoder cache of TRL's vLLM backend, in process or on a server."""
    if generation.mode == VllmMode.colocate:
        return generation.llm.llm_engine.reset_encoder_cache

    def post() -> None:
        if generation.accelerator.is_main_process:
            client = generation.vllm_client
            client.session.post(f"{client.base_url}{RESET_PATH}", timeout=60).raise_for_status()

    return post


def reset_encoder_cache_on_update(trainer: Any) -> None:
    """After each update of vLLM's weights, drop the images that older weights encoded.

    Needed only if vision weights are trained: TRL resets the prefix cache alone.
    """
    counts = param_groups.count_parameters(trainer.model)
    if not {part for part, _, trained in counts if trained} & {*param_groups.VISION_PARTS}:
        return
    generation = trainer.vllm_generation
    sync, reset = generation.sync_weights, encoder_cache_reset(generation)

    def sync_weights() -> None:
        sync()
        reset()

    generation.sync_weights = sync_weights
