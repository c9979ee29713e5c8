"""Memory of one GPU, from a model's dimensions: generation, and training under each ZeRO stage.

With P parameters (T of them trained), b bytes a weight, L layers of width H, K key heads of size D,
vocabulary V, B rows of S tokens, N GPUs:

    weights       b P
    KV cache      2 L K D b  for each token of prompt and response, B S of them; in this process as
                  much for each token of the cached prompts, and of the B prompts that are prefilled
    images        4 * 1176 bytes for each patch of 14 x 14 pixels, and in the vision tower's layers
                  b (8 Hv + 2 Fv) for each (width Hv, feed-forward Fv), one layer at a time
    logits        4 V for each row while generating

    training, bf16 weights and gradients with Adam in float32 (4 + 4 + 4 bytes):
    stage 0       2 P + 2 T + 12 T
    stage 1       2 P + 2 T + 12 T / N
    stage 2       2 P + (2 + 12) T / N
    stage 3       2 P / N + (2 + 12) T / N
    reference     2 P more (2 P / N under stage 3) where the KL term has a weight
    LoRA          P includes the adapters, r (in + out) for each target, and T is these alone: their
                  weights and gradients are float32, 16 T as well; no reference model, because the
                  adapters are switched off instead
    activations   with checkpointing 2 L B S H, one layer's work 34 B S H, and the responses' logits
                  2 * 4 B A V (A tokens of a response); without checkpointing 34 L B S H

Estimates: fragmentation, the runtime itself (1 to 2 GiB) and ZeRO's buffers are not included.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GIB = 2**30
PATCH_PIXELS = 14 * 14
PATCH_VALUES = 1176
"""Numbers of a patch: 3 colors, 2 frames, 14 x 14 pixels."""
MLP_MODULES = ("gate_proj", "up_proj", "down_proj")
"""Feed-forward projections of a layer of the language model or of the vision tower."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDims:
    """What memory depends on. `vision_parameters` are part of `parameters`."""

    parameters: float
    vision_parameters: float
    layers: int
    width: int
    mlp_width: int
    heads: int
    key_heads: int
    head_size: int
    vocabulary: int
    vision_layers: int
    vision_width: int
    vision_mlp_width: int

    @property
    def cache_values(self) -> int:
        """Keys and values of one token."""
        return 2 * self.layers * self.key_heads * self.head_size


KNOWN_DIMS = {
    "Qwen/Qwen2.5-VL-7B-Instruct": ModelDims(
        parameters=8.29e9, vision_parameters=0.68e9, layers=28, width=3584, mlp_width=18_944,
        heads=28, key_heads=4, head_size=128, vocabulary=152_064, vision_layers=32,
        vision_width=1280, vision_mlp_width=3420,
    ),
    "Qwen/Qwen2.5-VL-3B-Instruct": ModelDims(
        parameters=3.75e9, vision_parameters=0.67e9, layers=36, width=2048, mlp_width=11_008,
        heads=16, key_heads=2, head_size=128, vocabulary=151_936, vision_layers=32,
        vision_width=1280, vision_mlp_width=3420,
    ),
}  # fmt: skip
"""Dimensions by hub id, for a plan made where the weights are not."""


def model_dims(source: str) -> ModelDims | None:
    """The dimensions of a known hub id or of a folder's config.json; None without either."""
    if source in KNOWN_DIMS:
        return KNOWN_DIMS[source]
    path = Path(source) / "config.json"
    try:
        return dims_from_config(json.loads(path.read_text()))
    except (FileNotFoundError, NotADirectoryError, KeyError):
        return None


def dims_from_config(config: Mapping[str, Any]) -> ModelDims:
    """The dimensions with the parameters counted: embeddings, attention, feed-forward, tower.

    Raises KeyError for a config of another architecture.
    """
    text: Mapping[str, Any] = config.get("text_config") or config
    vision: Mapping[str, Any] = config.get("vision_config") or {}
    width, layers, vocabulary = text["hidden_size"], text["num_hidden_layers"], text["vocab_size"]
    heads, mlp_width = text["num_attention_heads"], text["intermediate_size"]
    key_heads = text.get("num_key_value_heads") or heads
    head_size = text.get("head_dim") or width // heads
    attention = 2 * width * heads * head_size + 2 * width * key_heads * head_size
    is_tied = config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))
    embeddings = vocabulary * width * (1 if is_tied else 2)
    language = embeddings + layers * (attention + 3 * width * mlp_width + 2 * width)
    vision_width, vision_mlp_width = vision["hidden_size"], vision["intermediate_size"]
    merged = vision_width * vision.get("spatial_merge_size", 2) ** 2
    tower = vision["depth"] * (4 * vision_width**2 + 3 * vision_width * vision_mlp_width)
    tower += PATCH_VALUES * vision_width + merged * merged + merged * width
    return ModelDims(
        parameters=float(language + tower),
        vision_parameters=float(tower),
        layers=layers,
        width=width,
        mlp_width=mlp_width,
        heads=heads,
        key_heads=key_heads,
        head_size=head_size,
        vocabulary=vocabulary,
        vision_layers=vision["depth"],
        vision_width=vision_width,
        vision_mlp_width=vision_mlp_width,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBatch:
    """Rows computed together: tokens of prompt and of response, and the pixels of its images."""

    rows: int
    prompt: int
    response: int
    pixels: int

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return self.rows * (self.prompt + self.response)


def generation_memory(
    dims: ModelDims, batch: TokenBatch, weight_bytes: int, cached_prompts: int = 0
) -> dict[str, float]:
    """Bytes of weights, KV cache, images and logits of one GPU that generates.

    `cached_prompts`: prompts that the engine in this process keeps beside its batch, while it may
    prefill one for each row; 0 for a server and vLLM, which keep them in their one cache.
    """
    prompt = dims.cache_values * weight_bytes * batch.prompt
    patches = batch.rows * batch.pixels / PATCH_PIXELS
    tower = weight_bytes * (8 * dims.vision_width + 2 * dims.vision_mlp_width)
    return {
        "weights": weight_bytes * dims.parameters,
        "KV cache": dims.cache_values * weight_bytes * batch.tokens,
        "cached prompts": prompt * cached_prompts,
        "prefill": prompt * batch.rows * bool(cached_prompts),
        "images": patches * (4 * PATCH_VALUES + tower),
        "logits": 4 * dims.vocabulary * batch.rows,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedPart:
    """What is trained: all weights, all but the vision tower, or LoRA's adapters alone (how many
    parameters they have; None without LoRA)."""

    frozen_vision: bool = False
    lora_parameters: float | None = None


def lora_parameters(dims: ModelDims, rank: int, targets: Sequence[str], vision: bool) -> float:
    """Parameters that LoRA adds to the language model, and with `vision` to the tower's layers.

    Targets of other names than Qwen2.5-VL's count nothing.
    """
    width, mlp_width = dims.width, dims.mlp_width
    queries, keys = dims.heads * dims.head_size, dims.key_heads * dims.head_size
    language = {"q_proj": width + queries, "k_proj": width + keys, "v_proj": width + keys,
                "o_proj": queries + width}  # fmt: skip
    language |= dict.fromkeys(MLP_MODULES, width + mlp_width)
    tower = {"qkv": 4 * dims.vision_width, "proj": 2 * dims.vision_width}
    tower |= dict.fromkeys(MLP_MODULES, dims.vision_width + dims.vision_mlp_width)
    total = dims.layers * sum(language.get(name, 0) for name in targets)
    total += dims.vision_layers * sum(tower.get(name, 0) for name in targets) * vision
    return float(rank * total)


def training_memory(
    dims: ModelDims,
    batch: TokenBatch,
    gpus: int,
    part: TrainedPart,
    *,
    reference: bool,
    checkpointing: bool,
) -> dict[int, float]:
    """Bytes of one GPU under ZeRO stages 0 to 3."""
    parameters = dims.parameters
    trained = parameters - dims.vision_parameters * part.frozen_vision
    if part.lora_parameters is not None:
        trained, reference = part.lora_parameters, False
        parameters += trained
    one_layer = 34 * batch.tokens * dims.width
    if checkpointing:
        activations = 2 * dims.layers * batch.tokens * dims.width + one_layer
    else:
        activations = one_layer * dims.layers
    activations += 8 * batch.rows * batch.response * dims.vocabulary
    activations += batch.rows * batch.pixels / PATCH_PIXELS * 4 * PATCH_VALUES
    states = {
        0: 2 * parameters + 14 * trained,
        1: 2 * parameters + 2 * trained + 12 * trained / gpus,
        2: 2 * parameters + 14 * trained / gpus,
        3: (2 * parameters + 14 * trained) / gpus,
    }
    copy = {zero: 2 * parameters * reference / (gpus if zero == 3 else 1) for zero in states}
    return {zero: size + copy[zero] + activations for zero, size in states.items()}
