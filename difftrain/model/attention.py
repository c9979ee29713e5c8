"""How much attention a response pays to picture and text, without any attention matrix.

A layer's masses are A m, with A its attention and m the 0/1 indicators of picture and text. The
indicators ride along as two further columns of V, so any fused kernel computes them with the
layer's own output. Axes: B batch, S sequence, L layers, T response tokens.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel

NAME = "difftrain_masses"
EXTRA = 8
"""Columns added to a head: two indicators and zeros; fused kernels want multiples of 8."""


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
def masses(
    model: PreTrainedModel,
    inputs: Mapping[str, torch.Tensor],
    image_BS: torch.Tensor,
    text_BS: torch.Tensor,
    response_BS: torch.Tensor,
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """For each row, the attention of its response tokens on picture and on text: two L x T tables.

    float32 on the CPU, mean over heads (P, Eq. 4). One teacher-forced pass; memory is linear in
    tokens. The model's attention setting is restored. Raises ValueError if the indicators do not
    have the inputs' shape.
    """
    shape = inputs["input_ids"].shape
    for name, indicator in (("image", image_BS), ("text", text_BS), ("response", response_BS)):
        if indicator.shape != shape:
            raise ValueError(f"{name} indicator {tuple(indicator.shape)}, inputs {tuple(shape)}")
    found: list[torch.Tensor] = []
    indicators_BS2 = torch.stack([image_BS, text_BS], dim=-1).to(model.device)
    rows = response_BS.bool().to(model.device)
    with attending(model, recording(indicators_BS2, found)):
        model.base_model(**inputs, use_cache=False)
    return [
        tuple(torch.stack([layer[row, rows[row]] for layer in found]).cpu().unbind(-1))  # pyright: ignore[reportReturnType]
        for row in range(shape[0])
    ]
