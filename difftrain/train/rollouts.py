"""What TRL leaves open where vLLM makes the rollouts, closed. transformers' way needs none of it.

The placeholder ban is in arguments.py. Not here: starting a server.
"""

from collections.abc import Callable, Sequence
from typing import Any

from transformers import AutoProcessor

from difftrain import images
from difftrain.config.model import ModelConfig
from difftrain.config.run_config import ConfigError
from difftrain.config.train import VllmMode
from difftrain.model import locate
from difftrain.records import Sample
from difftrain.train import modules

RESET = "/reset_encoder_cache"
"""vLLM's address for it, with VLLM_SERVER_DEV_MODE=1."""


def resized(model: ModelConfig, samples: Sequence[Sample]) -> list[str]:
    """Pictures that vLLM, which reads the model folder's own limits, would resize once more.

    TRL has no pass-through for pixel limits; a second resize gives other image tokens there than
    here. Only the smallest and the largest picture are looked at: between them lies the budget.
    """
    own: Any = AutoProcessor.from_pretrained(
        locate.source(model.name), revision=model.revision, trust_remote_code=False
    ).image_processor
    sizes = {images.png_size(png) for sample in samples for png in sample.images}
    ends = {min(sizes, key=area), max(sizes, key=area)} if sizes else set()
    told = []
    for width, height in sorted(ends):
        patches = own.get_number_of_image_patches(height, width, {})
        kept = width * height // own.patch_size**2
        if patches != kept:
            told.append(f"{width} x {height}: {patches} patches there, {kept} here")
    return told


def area(size: tuple[int, int]) -> int:
    """Width times height."""
    return size[0] * size[1]


def refuse_second_resize(model: ModelConfig, samples: Sequence[Sample]) -> None:
    """Raises ConfigError if vLLM would not see the pictures as the trainer does."""
    if told := resized(model, samples):
        raise ConfigError(
            [
                f"grpo.vllm.mode: vLLM would resize pictures once more by {model.name}'s own "
                f"limits ({'; '.join(told)}); set data.min_pixels and data.max_pixels inside them"
            ]
        )


def forget_pictures(generation: Any) -> Callable[[], None]:
    """What empties the encoder cache of TRL's vLLM backend, wherever it runs."""
    if generation.mode == VllmMode.colocate:
        return generation.llm.llm_engine.reset_encoder_cache

    def ask() -> None:
        if generation.accelerator.is_main_process:
            client = generation.vllm_client
            client.session.post(f"{client.base_url}{RESET}", timeout=60).raise_for_status()

    return ask


def keep_fresh(trainer: Any) -> None:
    """After each update of vLLM's weights, forget the pictures that older weights encoded.

    Needed only where vision weights are trained: TRL resets the prefix cache alone.
    """
    parts = {part for part, _, trained in modules.counted(trainer.model) if trained}
    if not parts & set(modules.VISION_PARTS):
        return
    generation = trainer.vllm_generation
    update, forget = generation.sync_weights, forget_pictures(generation)

    def sync_weights() -> None:
        update()
        forget()

    generation.sync_weights = sync_weights
