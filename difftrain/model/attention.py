"""How much attention a response pays to picture and text, without any attention matrix.

A layer's masses are A m, with A its attention and m the 0/1 indicators of picture and text. The
indicators ride along as two further columns of V, so any fused kernel computes them with the
layer's own output. The same pass gives ACE's bias, from the last layer's queries and keys alone
(last_layer.py). Axes: B batch, S sequence, L layers, T response tokens.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel

from difftrain.difficulty.config import AceConfig
from difftrain.model import last_layer

NAME = "difftrain_masses"
EXTRA = 8
"""Columns added to a head: two indicators and zeros; fused kernels want multiples of 8."""


@dataclass(frozen=True, slots=True)
class Look:
    """Where one response looked: its masses, and ACE's largest log psi (None: none, or not asked).

    float32 on the CPU, mean over heads.
    """

    image_LT: torch.Tensor
    text_LT: torch.Tensor
    bias: float | None


def recording(indicators_BS2: torch.Tensor, found: list[torch.Tensor]) -> Callable[..., Any]:
    """An attention function that also appends each layer's masses (B S 2, mean over heads)."""

    def forward(module: Any, query: Any, key: Any, value: Any, mask: Any, **rest: Any) -> Any:
        heads, size = value.shape[1], value.shape[3]
        columns = indicators_BS2[:, None].expand(-1, heads, -1, -1).to(value.dtype)
        wide = torch.cat([value, functional.pad(columns, (0, EXTRA - 2))], dim=-1)
        query, key = (functional.pad(each, (0, EXTRA)) for each in (query, key))
        output, _ = sdpa_attention_forward(module, query, key, wide, mask, **rest)
        found.append(output[..., size : size + 2].float().mean(dim=2))
        return output[..., :size], None

    return forward


def confiding(
    forward: Callable[..., Any], response_BS: torch.Tensor, config: AceConfig, last: int
) -> tuple[Callable[..., Any], list[float | None]]:
    """`forward`, which at layer `last` also notes ACE's bias of each row; and where it notes it."""
    biases: list[float | None] = []

    def confided(module: Any, query: Any, key: Any, value: Any, mask: Any, **rest: Any) -> Any:
        if module.layer_idx == last:
            for row, response_S in enumerate(response_BS):
                own = None if mask is None else mask[row if len(mask) > 1 else 0, 0]
                place_T = response_S.nonzero()[:, 0]
                biases.append(
                    last_layer.bias(query[row], key[row], own, place_T, rest["scaling"], config)
                )
        return forward(module, query, key, value, mask, **rest)

    return confided, biases


@contextmanager
def attending(model: PreTrainedModel, function: Callable[..., Any]) -> Iterator[None]:
    """The decoder attends through `function` inside, and as it did before afterwards.

    The vision tower has a configuration of its own and is not touched.
    """
    config = model.get_decoder().config
    before = config._attn_implementation
    ALL_ATTENTION_FUNCTIONS.register(NAME, function)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


@torch.inference_mode()
def looks(
    model: PreTrainedModel,
    inputs: Mapping[str, torch.Tensor],
    image_BS: torch.Tensor,
    text_BS: torch.Tensor,
    response_BS: torch.Tensor,
    ace: AceConfig | None = None,
) -> list[Look]:
    """For each row, where its response looked: masses (P, Eq. 4) and, if asked, ACE's bias (T).

    One teacher-forced pass; memory is linear in tokens. The model's attention setting is restored.
    Raises ValueError if the indicators do not have the inputs' shape.
    """
    shape = inputs["input_ids"].shape
    for name, indicator in (("image", image_BS), ("text", text_BS), ("response", response_BS)):
        if indicator.shape != shape:
            raise ValueError(f"{name} indicator {tuple(indicator.shape)}, inputs {tuple(shape)}")
    found: list[torch.Tensor] = []
    biases: list[float | None] = [None] * shape[0]
    indicators_BS2 = torch.stack([image_BS, text_BS], dim=-1).to(model.device)
    rows = response_BS.bool().to(model.device)
    attend = recording(indicators_BS2, found)
    if ace is not None:
        last = model.get_decoder().config.num_hidden_layers - 1
        attend, biases = confiding(attend, rows, ace, last)
    with attending(model, attend):
        model.base_model(**inputs, use_cache=False)
    tables = [
        torch.stack([layer[row, rows[row]] for layer in found]).cpu() for row in range(shape[0])
    ]
    return [Look(table[..., 0], table[..., 1], biases[row]) for row, table in enumerate(tables)]


def masses(
    model: PreTrainedModel,
    inputs: Mapping[str, torch.Tensor],
    image_BS: torch.Tensor,
    text_BS: torch.Tensor,
    response_BS: torch.Tensor,
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The masses alone: for each row two L x T tables, float32, mean over heads (P, Eq. 4).

    Raises ValueError if the indicators do not have the inputs' shape.
    """
    found = looks(model, inputs, image_BS, text_BS, response_BS)
    return [(look.image_LT, look.text_LT) for look in found]
