"""How much attention a response pays to picture and text, without any attention matrix.

A layer's masses are A m, with A its attention and m the 0/1 indicators of picture and text. The
indicators ride along as two further columns of V, so any fused kernel computes them with the
layer's own output; from the first response token on, since no other row is asked for. The same
pass gives ACE's bias, from the last layer's queries and keys alone (last_layer.py). Padding is
moved to the right, where a causal kernel needs no mask, which would be a B S S table.
Axes: B batch, S sequence, L layers, T response tokens.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel

from difftrain.config.difficulty import AceConfig
from difftrain.model import last_layer
from difftrain.model.spans import positions

NAME = "difftrain_masses"
EXTRA = 8
"""Columns added to a head: two indicators and zeros; fused kernels want multiples of 8."""
ROWS = 1024
"""Response rows attended at once: their mask is a table of so many rows."""


@dataclass(frozen=True, slots=True)
class Look:
    """Where one response looked: its masses, and ACE's largest log psi (None: none, or not asked).

    float32 on the CPU, mean over heads.
    """

    image_LT: torch.Tensor
    text_LT: torch.Tensor
    bias: float | None


def recording(
    indicators_BS2: torch.Tensor, start: int, found: list[torch.Tensor]
) -> Callable[..., Any]:
    """An attention function that also appends each layer's masses, mean over heads.

    They are those of the rows from `start` on (B S-start 2): rows before it, the prompt's in most
    cases, pass through the plain kernel. Inputs are padded on the right, so no mask is given.
    """

    def forward(module: Any, query: Any, key: Any, value: Any, _: Any, **rest: Any) -> Any:
        length, size = query.shape[2], value.shape[3]
        outputs, masses = [], []
        if start:
            asked, seen, held = (each[:, :, :start] for each in (query, key, value))
            outputs.append(sdpa_attention_forward(module, asked, seen, held, None, **rest)[0])
        columns = indicators_BS2[:, None].expand(-1, value.shape[1], -1, -1).to(value.dtype)
        value = torch.cat([value, functional.pad(columns, (0, EXTRA - 2))], dim=-1)
        key = functional.pad(key, (0, EXTRA))
        for first in range(start, length, ROWS):
            last = min(first + ROWS, length)
            some = functional.pad(query[:, :, first:last], (0, EXTRA))
            places = torch.arange(last, device=query.device)
            below = places[None] <= places[first:, None]
            output, _ = sdpa_attention_forward(
                module, some, key[:, :, :last], value[:, :, :last], below[None, None], **rest
            )
            outputs.append(output[..., :size])
            masses.append(output[..., size : size + 2].float().mean(dim=2))
        found.append(torch.cat(masses, dim=1))
        return torch.cat(outputs, dim=1), None

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


def right_padded(
    model: PreTrainedModel, inputs: Mapping[str, torch.Tensor], marks: Sequence[torch.Tensor]
) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    """Inputs that need no mask, with rotary positions; and marks (B S ...) moved as they were."""
    inputs = {"attention_mask": torch.ones_like(inputs["input_ids"]), **inputs}
    kept_BS = inputs["attention_mask"].bool()
    order_BS = (~kept_BS).int().argsort(dim=1, stable=True)
    rows = torch.arange(len(order_BS), device=order_BS.device)[:, None]
    moved = {key: inputs[key][rows, order_BS] for key in ("input_ids", "attention_mask")}
    if "mm_token_type_ids" in inputs:
        moved["mm_token_type_ids"] = inputs["mm_token_type_ids"][rows, order_BS]
    shown = {key: inputs[key] for key in ("pixel_values", "image_grid_thw") if key in inputs}
    place_3BS = positions(model, {**moved, **shown})
    wanted = {"input_ids": moved["input_ids"], "position_ids": place_3BS, **shown}
    return wanted, [each[rows, order_BS] for each in marks]


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
    inputs, (indicators_BS2, rows) = right_padded(
        model, inputs, (indicators_BS2, response_BS.bool().to(model.device))
    )
    start = int(rows.any(dim=0).int().argmax())
    attend = recording(indicators_BS2, start, found)
    if ace is not None:
        last = model.get_decoder().config.num_hidden_layers - 1
        attend, biases = confiding(attend, rows, ace, last)
    with attending(model, attend):
        model.base_model(**inputs, use_cache=False)
    tables = [
        torch.stack([layer[row, rows[row, start:]] for layer in found]).cpu()
        for row in range(shape[0])
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
