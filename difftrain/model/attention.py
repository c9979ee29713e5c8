"""How much attention a response gives to image and text, without storing an attention matrix.

In each layer, a token's image mass is the sum of its attention weights on all image tokens: A m,
with A the attention and m the 0/1 indicator of image tokens (Qi et al. 2026, Eq. 4). The text mass
is the same for text tokens. Both indicators are appended to V as columns, so any fused kernel
computes the masses with the layer's output. The same pass gives ACE of the paper RAP: psi says how
strongly later tokens attend to a response token; ACE is the largest log psi of a response (ace.py).
Axes: B batch, S sequence, L layers, T response tokens, H heads, K key heads, G heads per key head,
D head size, C rows of a chunk, 2: image and text, 3: rotary position (time, row, column).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel

from difftrain.config.difficulty import AceConfig, Heads, TextSpan
from difftrain.difficulty.ace import ColumnProducts
from difftrain.model import family

KERNEL_NAME = "difftrain_masses"
EXTRA_COLUMNS = 8  # per head: two indicators, then zeros; kernels need a multiple of 8
CHUNK_ROWS = 1024  # positions computed at once; bounds the size of their mask
MAX_CELLS = 1 << 23  # last-layer attention values in one chunk: 32 MiB as float32

Inputs = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class TokenSpans:
    """Three boolean indicators of shape B S; at most one is true at a position."""

    image_BS: Tensor
    text_BS: Tensor
    response_BS: Tensor


@dataclass(frozen=True, slots=True)
class AttentionSummary:
    """The masses of one response: float32 on the CPU, mean over heads."""

    image_LT: Tensor
    text_LT: Tensor
    max_log_psi: float | None  # ACE; None: not requested, or the response is too short


def token_spans(
    inputs: Inputs, response_lengths: Sequence[int], image_token: int, text: TextSpan
) -> TokenSpans:
    """The indicators of left-padded inputs; each row ends with its response.

    Text is every prompt token that is neither padding nor image; `before_image` keeps only the
    tokens before the first image, as the released code of Qi et al. 2026 does.
    """
    ids_BS = inputs["input_ids"]
    length, device = ids_BS.shape[1], ids_BS.device
    start_B = length - torch.tensor(list(response_lengths), device=device)
    response_BS = torch.arange(length, device=device)[None] >= start_B[:, None]
    image_BS = (ids_BS == image_token) & ~response_BS
    text_BS = inputs["attention_mask"].bool() & ~response_BS & ~image_BS
    if text is TextSpan.before_image:
        text_BS &= image_BS.int().cumsum(1) == 0
    return TokenSpans(image_BS, text_BS, response_BS)


def masses(
    model: PreTrainedModel, inputs: Inputs, image_BS: Tensor, text_BS: Tensor, response_BS: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """Image and text masses of each row: two tensors L T, float32, mean over heads.

    Raises ValueError if the indicators do not have the inputs' shape.
    """
    summaries = summarize(model, inputs, TokenSpans(image_BS, text_BS, response_BS))
    return [(summary.image_LT, summary.text_LT) for summary in summaries]


@torch.inference_mode()
def summarize(
    model: PreTrainedModel, inputs: Inputs, spans: TokenSpans, ace: AceConfig | None = None
) -> list[AttentionSummary]:
    """Masses of each row's response and, if `ace` is given, its largest log psi.

    The layers L are those with full attention (ACE takes the last of them), and always the model's
    first and last, which CMAB leaves out; one of these without attention has masses of 0. Runs one
    teacher-forced pass in memory linear in tokens (quadratic in models that need masks), and
    restores the attention setting.
    Raises ValueError if the indicators do not have the inputs' shape.
    """
    shape = tuple(inputs["input_ids"].shape)
    for name in ("image", "text", "response"):
        indicator_shape = tuple(getattr(spans, f"{name}_BS").shape)
        if indicator_shape != shape:
            raise ValueError(f"the {name} indicator has shape {indicator_shape}, not {shape}")
    indicators_BS2 = torch.stack([spans.image_BS, spans.text_BS], dim=-1).to(model.device)
    inputs, (indicators_BS2, response_BS) = pad_right(
        model, inputs, (indicators_BS2, spans.response_BS.bool().to(model.device))
    )
    start = int(response_BS.any(dim=0).int().argmax())  # the earliest response position
    measured = family.measured_layers(model.config)
    last = len(family.layer_types(model.config)) - 1
    layer_masses: dict[int, Tensor] = {}
    max_log_psi_B: list[float | None] = [None] * len(response_BS)

    def record(module: Any, query: Any, key: Any, value: Any, mask: Any, **rest: Any) -> Any:
        if ace is not None and module.layer_idx == measured[-1]:
            for i, (q, k, response_S) in enumerate(zip(query, key, response_BS, strict=True)):
                position_T = response_S.nonzero()[:, 0]
                max_log_psi_B[i] = _max_log_psi(q, k, position_T, rest["scaling"], ace)
        output, masses_BS2 = _attend(module, query, key, value, indicators_BS2, start, mask, **rest)
        layer_masses[module.layer_idx] = masses_BS2
        return output, None  # no attention weights

    with attention_function(model, record):
        model.base_model(**inputs, use_cache=False)
    if missing := [layer for layer in measured if layer not in layer_masses]:
        raise ValueError(f"layers {missing} do not use transformers' attention interface")
    none = torch.zeros_like(next(iter(layer_masses.values())))
    rows_L = [layer_masses.get(layer, none) for layer in sorted({0, *measured, last})]
    summaries = []
    for row, max_log_psi in enumerate(max_log_psi_B):
        masses_LT2 = torch.stack([m[row, response_BS[row, start:]] for m in rows_L]).cpu()
        summaries.append(AttentionSummary(masses_LT2[..., 0], masses_LT2[..., 1], max_log_psi))
    return summaries


@contextmanager
def attention_function(model: PreTrainedModel, function: Callable[..., Any]) -> Iterator[None]:
    """Inside the block, `function` is the attention of the decoder, not of the vision tower."""
    config = model.get_decoder().config
    before = config._attn_implementation
    ALL_ATTENTION_FUNCTIONS.register(KERNEL_NAME, function)
    ALL_MASK_ATTENTION_FUNCTIONS.register(KERNEL_NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    config._attn_implementation = KERNEL_NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def _attend(
    module: Any, query: Any, key: Any, value: Any, indicators_BS2: Any, start: int, mask: Any,
    **rest: Any,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """A layer's output, and the masses of the positions from `start` on, mean over heads.

    Positions before `start` precede every response, so their masses are not computed. Query and key
    get zeros as extra columns, which do not change their products. A `mask` B 1 S S is that of
    sliding layers or of image tokens that attend to each other both ways: then no key is cut off.
    """
    length, size = query.shape[2], value.shape[3]
    outputs, masses = [], []
    if start and mask is not None:
        before = mask[:, :, :start]
        outputs.append(
            sdpa_attention_forward(module, query[:, :, :start], key, value, before, **rest)[0]
        )
    elif start:
        q, k, v = (tensor[:, :, :start] for tensor in (query, key, value))
        outputs.append(sdpa_attention_forward(module, q, k, v, None, **rest)[0])  # None: causal
    columns = indicators_BS2[:, None].expand(-1, value.shape[1], -1, -1).to(value.dtype)
    value = torch.cat([value, functional.pad(columns, (0, EXTRA_COLUMNS - 2))], dim=-1)
    key = functional.pad(key, (0, EXTRA_COLUMNS))
    for begin in range(start, length, CHUNK_ROWS):
        end = min(begin + CHUNK_ROWS, length)
        chunk = functional.pad(query[:, :, begin:end], (0, EXTRA_COLUMNS))
        if mask is None:
            positions = torch.arange(end, device=query.device)
            visible = (positions[None] <= positions[begin:, None])[None, None]
            k, v = key[:, :, :end], value[:, :, :end]
        else:
            visible, k, v = mask[:, :, begin:end], key, value
        output, _ = sdpa_attention_forward(module, chunk, k, v, visible, **rest)
        outputs.append(output[..., :size])
        masses.append(output[..., size : size + 2].float().mean(dim=2))
    return torch.cat(outputs, dim=1), torch.cat(masses, dim=1)


def _max_log_psi(
    query_HSD: Tensor, key_KSD: Tensor, position_T: Tensor, scaling: float, config: AceConfig
) -> float | None:
    """The largest log psi (RAP, ACE) of the response whose tokens are at position_T."""
    products = ColumnProducts(len(position_T), config.sigma, config.window)
    for first, log_HCT in log_attention_rows(query_HSD, key_KSD, position_T, scaling):
        if config.heads is Heads.max:
            log_CT = log_HCT.amax(dim=0)
        else:
            log_CT = log_HCT.logsumexp(dim=0) - math.log(len(log_HCT))  # log of the mean
        products.add(first, log_CT.cpu().numpy().astype(float))
    return products.max_log_psi(config.min_rows, config.normalize)


def log_attention_rows(
    query_HSD: Tensor, key_KSD: Tensor, position_T: Tensor, scaling: float
) -> Iterator[tuple[int, Tensor]]:
    """Yields (first row, log attention H C T) for chunks of the response at position_T.

    The softmax is over prompt and response, as in the model, but only the response's columns are
    returned. Attention is causal.
    """
    num_heads, num_key_heads, num_tokens = len(query_HSD), len(key_KSD), len(position_T)
    key_KDS = key_KSD.float().transpose(1, 2)
    num_rows = max(1, MAX_CELLS // (num_heads * key_KSD.shape[1]))
    for first in range(0, num_tokens, num_rows):
        rows = position_T[first : first + num_rows]
        width = int(rows[-1]) + 1  # a token attends only to itself and earlier ones
        query_KGCD = query_HSD[:, rows].float().unflatten(0, (num_key_heads, -1))
        logits = (query_KGCD @ key_KDS[:, None, :, :width]).flatten(0, 1) * scaling
        causal = torch.arange(width, device=rows.device)[None] <= rows[:, None]
        logits.masked_fill_(~causal, -torch.inf)
        log_HCS = logits - logits.logsumexp(dim=-1, keepdim=True)
        columns = position_T[position_T < width]
        log_HCT = log_HCS.new_full((num_heads, len(rows), num_tokens), -torch.inf)
        log_HCT[..., : len(columns)] = log_HCS[..., columns]
        yield first, log_HCT


def pad_right(
    model: PreTrainedModel, inputs: Inputs, indicators: Sequence[Tensor]
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Inputs and indicators with padding moved to the right, where causal attention ignores it."""
    inputs = {"attention_mask": torch.ones_like(inputs["input_ids"]), **inputs}
    is_token_BS = inputs["attention_mask"].bool()
    order_BS = (~is_token_BS).int().argsort(dim=1, stable=True)  # padding last
    rows = torch.arange(len(order_BS), device=order_BS.device)[:, None]
    moved = {key: inputs[key][rows, order_BS] for key in family.per_token_keys(inputs)}
    padded = decoder_inputs(model, {**inputs, **moved})
    return padded, [indicator[rows, order_BS] for indicator in indicators]


def decoder_inputs(model: Any, inputs: Inputs) -> dict[str, Any]:
    """What the model takes of right-padded inputs, with positions.

    Padding behind the tokens needs no mask. It is passed only to models that build their masks from
    it: those with sliding layers, and those whose image tokens attend to each other both ways.
    """
    inputs = {**inputs, "position_ids": rotary_positions(model, inputs)}
    needs_mask = "token_type_ids" in inputs or family.SLIDING in family.layer_types(model.config)
    if not needs_mask:
        del inputs["attention_mask"]
    inputs.pop("mm_token_type_ids", None)  # the positions were computed from it
    return family.forward_inputs(model, inputs)


def rotary_positions(model: Any, inputs: Inputs) -> Tensor:
    """Rotary positions of right-padded inputs: 3 B S (time, row and column, all equal in text).

    B S for models that number the tokens.
    """
    ids_BS = inputs["input_ids"]
    if not family.uses_rotary_grid(model):
        return torch.arange(ids_BS.shape[1], device=ids_BS.device).expand(ids_BS.shape)
    if "image_grid_thw" not in inputs:
        return torch.arange(ids_BS.shape[1], device=ids_BS.device).expand(3, *ids_BS.shape)
    names = ("image_grid_thw", "attention_mask", "mm_token_type_ids")
    return model.base_model.get_rope_index(ids_BS, **{name: inputs[name] for name in names})[0]
