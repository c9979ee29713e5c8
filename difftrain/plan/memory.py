"""Memory of one GPU, from a model's shape: scoring, and training under each ZeRO stage.

With P parameters (T of them trained), b bytes a weight, L layers of width H, K key heads of size D,
V words, B rows of S tokens, N GPUs:

    weights       b P
    KV cache      2 L K D b  for each token of prompt and answer, B S of them; in this process as
                  much for each token of the prompts remembered, and of the B that are being read
    pictures      4 * 1176 bytes for each patch of 14 x 14 pixels, and in the tower's layers
                  b (8 Hv + 2 Fv) for each (width Hv, feed-forward Fv), one layer at a time
    scores        4 V for each row while generating

    training, bf16 weights and gradients with Adam in float32 (4 + 4 + 4 bytes):
    stage 0       2 P + 2 T + 12 T
    stage 1       2 P + 2 T + 12 T / N
    stage 2       2 P + (2 + 12) T / N
    stage 3       2 P / N + (2 + 12) T / N
    reference     2 P more (2 P / N under stage 3) where the KL term has a weight
    LoRA          P counts the additions, r (in + out) for each target, and T is these alone: their
                  weights and gradients are float32, 16 T as well; no reference, for the additions
                  are switched off instead
    activations   with checkpointing 2 L B S H, one layer's work 34 B S H, and the answers' scores
                  2 * 4 B A V (A tokens of an answer); without checkpointing 34 L B S H

Estimates: fragmentation, the runtime itself (1 to 2 GiB) and ZeRO's buffers are not in them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GIB = 2**30
PATCH_PIXELS = 14 * 14
PATCH_VALUES = 1176
"""Numbers of a patch: 3 colours, 2 frames, 14 x 14 pixels."""
FORWARD = ("gate_proj", "up_proj", "down_proj")
"""Feed-forward projections, of a layer of the language model and of the tower."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What memory depends on. `tower` are the vision tower's parameters, part of `parameters`."""

    parameters: float
    tower: float
    layers: int
    width: int
    inner: int
    heads: int
    key_heads: int
    head_size: int
    words: int
    tower_layers: int
    tower_width: int
    tower_inner: int

    @property
    def cache_values(self) -> int:
        """Keys and values of one token."""
        return 2 * self.layers * self.key_heads * self.head_size


KNOWN = {
    "Qwen/Qwen2.5-VL-7B-Instruct": Shape(
        parameters=8.29e9, tower=0.68e9, layers=28, width=3584, inner=18_944, heads=28, key_heads=4,
        head_size=128, words=152_064, tower_layers=32, tower_width=1280, tower_inner=3420,
    ),
    "Qwen/Qwen2.5-VL-3B-Instruct": Shape(
        parameters=3.75e9, tower=0.67e9, layers=36, width=2048, inner=11_008, heads=16, key_heads=2,
        head_size=128, words=151_936, tower_layers=32, tower_width=1280, tower_inner=3420,
    ),
}  # fmt: skip
"""Shapes of hub ids, for a plan made where the weights are not."""


def shape_of(source: str) -> Shape | None:
    """The shape of a folder's config.json or of a known hub id; None where neither is at hand.

    Parameters are counted from the config: embeddings, attention, feed-forward, tower.
    """
    if source in KNOWN:
        return KNOWN[source]
    path = Path(source) / "config.json"
    if not path.is_file():
        return None
    told = json.loads(path.read_text())
    text: Mapping[str, Any] = told.get("text_config") or told
    vision: Mapping[str, Any] = told.get("vision_config") or {}
    try:
        return counted(told, text, vision)
    except KeyError:
        return None


def counted(told: Mapping[str, Any], text: Mapping[str, Any], vision: Mapping[str, Any]) -> Shape:
    """A shape with its parameters counted. Raises KeyError for a config of another kind."""
    width, layers, words = text["hidden_size"], text["num_hidden_layers"], text["vocab_size"]
    heads, inner = text["num_attention_heads"], text["intermediate_size"]
    key_heads = text.get("num_key_value_heads") or heads
    size = text.get("head_dim") or width // heads
    attention = 2 * width * heads * size + 2 * width * key_heads * size
    tied = told.get("tie_word_embeddings", text.get("tie_word_embeddings", False))
    embedded = words * width * (1 if tied else 2)
    language = embedded + layers * (attention + 3 * width * inner + 2 * width)
    tower_width, tower_inner = vision["hidden_size"], vision["intermediate_size"]
    merged = tower_width * vision.get("spatial_merge_size", 2) ** 2
    tower = vision["depth"] * (4 * tower_width**2 + 3 * tower_width * tower_inner)
    tower += PATCH_VALUES * tower_width + merged * merged + merged * width
    return Shape(
        parameters=float(language + tower),
        tower=float(tower),
        layers=layers,
        width=width,
        inner=inner,
        heads=heads,
        key_heads=key_heads,
        head_size=size,
        words=words,
        tower_layers=vision["depth"],
        tower_width=tower_width,
        tower_inner=tower_inner,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows computed together: tokens of prompt and of answer, and the pixels of its pictures."""

    rows: int
    prompt: int
    answer: int
    pixels: int

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return self.rows * (self.prompt + self.answer)


def scoring(shape: Shape, batch: Batch, weight_bytes: int, remembered: int = 0) -> dict[str, float]:
    """Bytes of weights, cache, pictures and scores of one GPU that answers.

    `remembered`: prompts that the engine in this process keeps beside its slots, and it may be
    reading one for each row; a server and vLLM (0) have them in their one cache.
    """
    prompt = shape.cache_values * weight_bytes * batch.prompt
    patches = batch.rows * batch.pixels / PATCH_PIXELS
    tower = weight_bytes * (8 * shape.tower_width + 2 * shape.tower_inner)
    return {
        "weights": weight_bytes * shape.parameters,
        "KV cache": shape.cache_values * weight_bytes * batch.tokens,
        "prompts remembered": prompt * remembered,
        "prompts being read": prompt * batch.rows * bool(remembered),
        "pictures": patches * (4 * PATCH_VALUES + tower),
        "scores": 4 * shape.words * batch.rows,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What is trained: all weights, all but the tower, or LoRA's additions alone (how many
    parameters they are; None without LoRA)."""

    frozen_tower: bool = False
    additions: float | None = None


def additions(shape: Shape, rank: int, targets: Sequence[str], tower: bool) -> float:
    """Parameters that LoRA adds to the language model, and with `tower` to the tower's layers.

    Targets of other names than Qwen2.5-VL's count nothing.
    """
    width, inner = shape.width, shape.inner
    queries, keys = shape.heads * shape.head_size, shape.key_heads * shape.head_size
    language = {"q_proj": width + queries, "k_proj": width + keys, "v_proj": width + keys,
                "o_proj": queries + width}  # fmt: skip
    language |= dict.fromkeys(FORWARD, width + inner)
    own, own_inner = shape.tower_width, shape.tower_inner
    seeing = {"qkv": 4 * own, "proj": 2 * own} | dict.fromkeys(FORWARD, own + own_inner)
    total = shape.layers * sum(language.get(name, 0) for name in targets)
    total += shape.tower_layers * sum(seeing.get(name, 0) for name in targets) * tower
    return float(rank * total)


def training(
    shape: Shape, batch: Batch, gpus: int, learned: Learned, reference: bool, checkpointing: bool
) -> dict[int, float]:
    """Bytes of one GPU under ZeRO stages 0 to 3."""
    all_, trained = shape.parameters, shape.parameters - shape.tower * learned.frozen_tower
    if learned.additions is not None:
        all_, trained, reference = all_ + learned.additions, learned.additions, False
    rows = 34 * batch.tokens * shape.width
    kept = 2 * shape.layers * batch.tokens * shape.width
    activations = kept + rows if checkpointing else rows * shape.layers
    activations += 8 * batch.rows * batch.answer * shape.words
    activations += batch.rows * batch.pixels / PATCH_PIXELS * 4 * PATCH_VALUES
    states = {
        0: 2 * all_ + 14 * trained,
        1: 2 * all_ + 2 * trained + 12 * trained / gpus,
        2: 2 * all_ + 14 * trained / gpus,
        3: (2 * all_ + 14 * trained) / gpus,
    }
    copy = {stage: 2 * all_ * reference / (gpus if stage == 3 else 1) for stage in states}
    return {stage: own + copy[stage] + activations for stage, own in states.items()}
