"""What a family of models needs, read from its configuration, its processor and its modules.

Nothing here depends on a family's name, except FACTS: what neither configuration nor processor say.
A model that cannot be read is refused by `refusal`, before anything is spent. What is read wrongly
fails the family check (family_check.py). This module imports neither torch nor transformers.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from difftrain.config.difficulty import BoxCoordinates
from difftrain.model import resolve

DEFAULT_SIDE = 28  # pixels on a side of an image token if nothing says otherwise: Qwen2.5-VL's
FULL, SLIDING = "full_attention", "sliding_attention"
TOWER, PROJECTOR, LANGUAGE, HEAD = PARTS = (
    "vision tower", "projector", "language model", "head",
)  # fmt: skip
VISION_PARTS = (TOWER, PROJECTOR)
_PROJECTOR_NAME = re.compile(r"merger|projector|connector|downsample|aligner")
"""Modules that are a projector although they belong to the vision tower's module."""
_VISION_ID = re.compile(r"(?:image|img|video|vision|audio|bo[iv]|eo[iv]).*token.*(?:id|index)$")
_VISION_TOKEN = re.compile(r"(?i)image|img|video|vision|audio|<row_\d|<\|patch|<\|tile")
"""Names of fields of a configuration, and texts of special tokens, that stand for images."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a family's configuration does not say."""

    boxes: BoxCoordinates | None = None
    """Coordinates in which it writes boxes; None: unknown."""
    calibrated: bool = False
    """Whether the papers' thresholds of the strata were measured on this family."""


FACTS = {
    "qwen2_vl": Facts(BoxCoordinates.relative),
    "qwen2_5_vl": Facts(BoxCoordinates.pixels, calibrated=True),
    "qwen3_vl": Facts(BoxCoordinates.relative),
    "qwen3_vl_moe": Facts(BoxCoordinates.relative),
    "qwen3_5": Facts(BoxCoordinates.relative),
    "qwen3_5_moe": Facts(BoxCoordinates.relative),
    "glm4v": Facts(BoxCoordinates.relative),
    "glm4v_moe": Facts(BoxCoordinates.relative),
    "internvl": Facts(BoxCoordinates.relative),
}
"""By model_type. Sources of the box coordinates: the models' cards and grounding cookbooks."""
AREA_FRAMES = {"Glm4vImageProcessor": 2, "Glm46VImageProcessor": 2}
"""Image processors that compare `size` with the pixels of this many frames, by class name."""


def read_config(name: str, revision: str | None = None) -> Mapping[str, Any] | None:
    """A model's config.json: shipped, in a folder, or of a hub id that was downloaded before."""
    folder = Path(resolve.source(name))
    path: Any = folder / "config.json"
    if not folder.is_dir():
        from huggingface_hub import try_to_load_from_cache  # a folder does not need it

        path = try_to_load_from_cache(name, "config.json", revision=revision)
    try:
        return json.loads(Path(path).read_text())
    except (OSError, ValueError, TypeError):
        return None


def facts(model_type: str | None) -> Facts:
    """What is known of a family; of an unknown one, nothing."""
    return FACTS.get(model_type or "", Facts())


def side_from_config(config: Mapping[str, Any]) -> int:
    """Pixels on a side of an image token, if the configuration tells; else DEFAULT_SIDE."""
    vision = config.get("vision_config") or {}
    patch, merge = vision.get("patch_size"), vision.get("spatial_merge_size")
    return patch * merge if isinstance(patch, int) and isinstance(merge, int) else DEFAULT_SIDE


def other_layers(config: Mapping[str, Any]) -> list[str] | None:
    """The types of all layers if some have no full attention, for fingerprints; else None."""
    types = (config.get("text_config") or config).get("layer_types") or []
    return list(types) if {*types} - {FULL} else None


# The image processor.


def takes_area(image_processor: Any) -> bool:
    """Whether its `size` limits the area of an image, which it rounds to whole image tokens."""
    names = getattr(image_processor, "model_input_names", ())
    return "image_grid_thw" in names and hasattr(image_processor, "merge_size")


def token_side(image_processor: Any) -> int | None:
    """Pixels on a side of an image token; None if the processor chooses the size itself."""
    if not takes_area(image_processor):
        return None
    return image_processor.patch_size * image_processor.merge_size


def set_pixel_budget(image_processor: Any, min_pixels: int, max_pixels: int) -> None:
    """Let images between the two areas keep their size, if the processor takes areas at all.

    Another processor keeps its own rule: a fixed size (Gemma 3), tiles (InternVL, SmolVLM) or a
    largest side (Mistral 3).
    """
    if takes_area(image_processor):
        frames = next(
            (AREA_FRAMES[c.__name__] for c in type(image_processor).mro()
             if c.__name__ in AREA_FRAMES), 1,
        )  # fmt: skip
        area = {"shortest_edge": frames * min_pixels, "longest_edge": frames * max_pixels}
        image_processor.size = area


def return_lists_by_default(processor: Any) -> None:
    """Let a processor return lists unless a caller asks for tensors, for all of its class.

    TRL's GRPO tokenizes prompts of unequal length without padding; Mistral 3's processor would make
    them one tensor, which fails.
    """
    defaults = getattr(getattr(processor, "valid_processor_kwargs", None), "_defaults", {})
    defaults.get("common_kwargs", {}).pop("return_tensors", None)


def image_token_counter(processor: Any) -> Callable[[tuple[int, int]], int]:
    """A function from an image's size (width, height) to its number of tokens.

    It is the processor's own count, or, if it has none, that of a processed blank image.
    """
    side = token_side(processor.image_processor)

    @lru_cache(maxsize=4096)
    def count(size: tuple[int, int]) -> int:
        width, height = size
        if side and not width % side and not height % side:
            return width * height // side**2
        if hasattr(processor, "_get_num_multimodal_tokens"):
            counts = processor._get_num_multimodal_tokens(image_sizes=[(height, width)])
            return counts["num_image_tokens"][0]
        text = image_placeholder(processor)
        return len(processor(text=[text], images=[[Image.new("RGB", size)]])["input_ids"][0])

    return count


# Tokens.


def image_token_id(config: Any) -> int | None:
    """The id of the tokens that are replaced by image features."""
    for name in ("image_token_id", "image_token_index"):
        if isinstance(value := getattr(config, name, None), int):
            return value
    return None


def image_placeholder(processor: Any) -> str | None:
    """The text that the chat template writes for an image, before the processor repeats it."""
    return getattr(processor, "image_token", None)


def banned_tokens(processor: Any, config: Any = None) -> dict[str, int]:
    """Text and id of every token that stands for an image, a video or their edges.

    They are all that configuration, processor and tokenizer name so. A response must not contain
    them, because a later pass would take it for an image.
    """
    tokenizer = processor.tokenizer
    ids = {value for source in (config, processor, tokenizer) for value in _named_ids(source)}
    names = (getattr(processor, "image_token", None), getattr(tokenizer, "image_token", None))
    vocabulary = tokenizer.get_vocab()
    ids |= {vocabulary[name] for name in names if name in vocabulary}
    for token_id, token in tokenizer.added_tokens_decoder.items():
        if token.special and _VISION_TOKEN.search(token.content):
            ids.add(token_id)
    ids -= {tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id, None}
    return {str(tokenizer.convert_ids_to_tokens(i)): i for i in sorted(ids) if i < len(tokenizer)}


def _named_ids(source: Any) -> Iterable[int]:
    if source is None:
        return
    fields = source.to_dict() if hasattr(source, "get_text_config") else _attributes(source)
    for name, value in fields.items():
        if _VISION_ID.search(name) and isinstance(value, int) and not isinstance(value, bool):
            yield value


def _attributes(source: Any) -> dict[str, Any]:
    fields = dict(vars(source))
    for name in ("image_token_id", "video_token_id", "boi_token_id", "eoi_token_id"):
        fields[name] = getattr(source, name, None)
    return fields


# The language model.


def layer_types(config: Any) -> tuple[str, ...]:
    """What each decoder layer attends with: full_attention, sliding_attention, linear_attention."""
    text = config.get_text_config()
    if types := getattr(text, "layer_types", None):
        return tuple(types)[: text.num_hidden_layers]
    is_sliding = getattr(text, "sliding_window", None) is not None
    return (SLIDING if is_sliding else FULL,) * text.num_hidden_layers


def measured_layers(config: Any) -> tuple[int, ...]:
    """The layers whose attention CMAB and ACE use: all with full attention."""
    return tuple(i for i, kind in enumerate(layer_types(config)) if kind == FULL)


def balance_layers(config: Any) -> tuple[int, ...]:
    """CMAB's layers: those with full attention, but neither the model's first nor its last."""
    last = len(layer_types(config)) - 1
    return tuple(i for i in measured_layers(config) if 0 < i < last)


def layers_text(layers: Sequence[int], config: Any) -> str:
    """How many of the model's layers a measure uses, as text."""
    return f"{len(layers)} of {len(layer_types(config))} layers"


def has_slots(config: Any) -> bool:
    """Whether every layer caches keys and values, so that rows can join and leave a batch."""
    return {*layer_types(config)} <= {FULL, SLIDING}


def is_calibrated(model_type: str | None) -> bool:
    """Whether the papers' thresholds hold for this family."""
    return facts(model_type).calibrated


def refusal(config: Any) -> str | None:
    """Why a model of this configuration cannot be used, or None."""
    text = config.get_text_config()
    if getattr(config, "is_encoder_decoder", False):
        return "it is an encoder-decoder"
    if getattr(text, "cross_attention_layers", None):
        return (
            "its images enter by cross attention, not as tokens: no token attends to them in the "
            "language model's own layers, and a cached prompt would lack them"
        )
    if others := {*layer_types(config)} - {FULL, SLIDING, "linear_attention"}:
        return f"its layers of {', '.join(sorted(others))} are not supported"
    if image_token_id(config) is None:
        return "its configuration names no image token (image_token_id)"
    return None


def attention_refusal(config: Any, measures: Iterable[str]) -> str | None:
    """Why the attention measures (cmab, ace) cannot be computed for this model, or None."""
    measures, kinds = {*measures}, layer_types(config)
    if "cmab" in measures and not balance_layers(config):
        inner = sorted({*kinds[1:-1]})
        rule = "cmab needs a layer with full attention between the first and the last"
        return f"{rule}; there are {inner}"
    if "ace" in measures and not measured_layers(config):
        return f"ace needs a layer with full attention; there are {sorted({*kinds})}"
    return None


def uses_rotary_grid(model: Any) -> bool:
    """Whether positions have three numbers (time, row, column), which the model computes itself."""
    return hasattr(model.base_model, "get_rope_index")


def output_logits(model: Any, hidden: Any) -> Any:
    """Logits (float32) of the decoder's last hidden states, as the model's own forward has them."""
    text = model.config.get_text_config()
    logits = model.get_output_embeddings()(hidden).float()
    if (scale := getattr(text, "logit_scale", None)) is not None:
        logits = logits * scale
    if (divisor := getattr(text, "logits_scaling", None)) is not None:
        logits = logits / divisor
    if (cap := getattr(text, "final_logit_softcapping", None)) is not None:
        logits = cap * (logits / cap).tanh()
    return logits


# The parts of a model.


def parts(model: Any) -> dict[str, str]:
    """The part (one of PARTS) that each parameter of a model belongs to, by its name.

    `model` may be wrapped (DDP, DeepSpeed, PEFT). The language model and the vision tower are the
    modules that transformers calls decoder and image encoder; the head maps to the vocabulary.
    What is none of them connects the tower with the language model.
    """
    inner = next(module for module in model.modules() if hasattr(module, "get_output_embeddings"))
    decoder, head = inner.get_decoder(), inner.get_output_embeddings()
    tower = inner.get_encoder(modality="image")
    in_decoder = {id(parameter) for parameter in decoder.parameters()}
    in_head = {id(parameter) for parameter in head.parameters()} if head is not None else set()
    in_tower = set()
    if tower is not inner and tower is not inner.base_model:
        in_tower = {
            id(parameter)
            for name, parameter in tower.named_parameters()
            if not _PROJECTOR_NAME.search(name)
        }
    result = {}
    for name, parameter in model.named_parameters():
        key = id(parameter)
        result[name] = (
            LANGUAGE if key in in_decoder
            else HEAD if key in in_head
            else TOWER if key in in_tower
            else PROJECTOR
        )  # fmt: skip
    return result


def vision_modules(model: Any) -> list[str]:
    """Names of the largest modules that have only weights of the vision tower or the projector."""
    by_name = parts(model)
    names: list[str] = []
    for name, module in model.named_modules():
        if any(name == other or name.startswith(f"{other}.") for other in names):
            continue
        inside = [by_name.get(f"{name}.{key}") for key, _ in module.named_parameters()]
        if name and inside and all(part in VISION_PARTS for part in inside):
            names.append(name)
    return names


def forward_inputs(model: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The processor's outputs that the model takes."""
    names = _forward_parameters(type(model.base_model))
    return {key: value for key, value in inputs.items() if key in names}


@lru_cache(maxsize=64)
def _forward_parameters(model_class: type) -> frozenset[str]:
    import inspect

    return frozenset(inspect.signature(model_class.forward).parameters)


def per_token_keys(inputs: Mapping[str, Any]) -> list[str]:
    """The keys whose tensors have a value for every token of the prompt."""
    shape = tuple(inputs["input_ids"].shape)
    return [key for key, value in inputs.items() if tuple(getattr(value, "shape", ())) == shape]


def image_features(model: Any, inputs: Mapping[str, Any]) -> int:
    """The number of feature vectors that the vision tower and the projector output."""
    owner = model.base_model
    import inspect

    names = inspect.signature(type(owner).get_image_features).parameters
    output = owner.get_image_features(**{k: v for k, v in inputs.items() if k in names})
    features = getattr(output, "pooler_output", output)
    tensors = features if isinstance(features, list | tuple) else [features]
    return sum(tensor.numel() // tensor.shape[-1] for tensor in tensors)
