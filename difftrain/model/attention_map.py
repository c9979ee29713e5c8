"""Attention of a response on each image token, exact, for a single response.

For each layer and response token, attention.py sums the attention weights on all image tokens
(Qi et al. 2026, Eq. 4). Here every image token keeps its own weight, averaged over heads and over
groups of response tokens. Only the response tokens' weights are computed, so memory stays small.
Axes: B batch (1), S sequence, L layers, T response tokens, I image tokens, P groups of response
tokens, X text tokens, H heads, K key heads, G heads per key head, D head size, C rows of a chunk.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import PreTrainedModel

from difftrain.model.attention import MAX_CELLS, Inputs, TokenSpans, attention_function


@dataclass(frozen=True, slots=True)
class TokenMap:
    """Mean attention of groups of response tokens: float32 on the CPU, mean over heads.

    `image_PLI` is by image token, in the prompt's order. `image_LT` and `text_LT` are the sums over
    all image tokens and all text tokens for each response token, as attention.masses gives them.
    """

    image_PLI: Tensor
    image_LT: Tensor
    text_LT: Tensor


@torch.inference_mode()
def image_token_map(
    model: PreTrainedModel, inputs: Inputs, spans: TokenSpans, groups_PT: Sequence[Sequence[int]]
) -> TokenMap:
    """Attention on each image token, averaged over each group of response tokens (their indices).

    `inputs` hold one prompt with its response, without padding. Runs one teacher-forced pass and
    restores the attention setting. Raises ValueError for a batch, padding or an empty group.
    """
    if len(inputs["input_ids"]) != 1 or not inputs["attention_mask"].all():
        raise ValueError("attention maps need one response without padding")
    if not all(groups_PT):
        raise ValueError("a group has no response token")
    device = model.device
    image_I, text_X, position_T = (
        indicator[0].bool().nonzero()[:, 0].to(device)
        for indicator in (spans.image_BS, spans.text_BS, spans.response_BS)
    )
    weight_PT = torch.zeros(len(groups_PT), len(position_T), device=device)
    for weights_T, group in zip(weight_PT, groups_PT, strict=True):
        weights_T[list(group)] = 1 / len(group)
    layers: list[tuple[Tensor, Tensor, Tensor]] = []

    def record(module: Any, query: Any, key: Any, value: Any, _mask: Any, **rest: Any) -> Any:
        image_PI = torch.zeros(len(weight_PT), len(image_I), device=device)
        sums_2T = torch.zeros(2, len(position_T), device=device)
        num_rows = max(1, MAX_CELLS // (query.shape[1] * query.shape[2]))
        for first in range(0, len(position_T), num_rows):
            chunk = slice(first, first + num_rows)
            mean_CS = _mean_attention(query[0], key[0], position_T[chunk], rest["scaling"])
            image_PI += weight_PT[:, chunk] @ mean_CS[:, image_I]
            sums_2T[0, chunk] = mean_CS[:, image_I].sum(dim=1)
            sums_2T[1, chunk] = mean_CS[:, text_X].sum(dim=1)
        layers.append((image_PI.cpu(), sums_2T[0].cpu(), sums_2T[1].cpu()))
        return sdpa_attention_forward(module, query, key, value, None, **rest)[0], None

    with attention_function(model, record):
        model.base_model(**inputs, use_cache=False)
    image_LPI, image_LT, text_LT = (torch.stack(tensors) for tensors in zip(*layers, strict=True))
    return TokenMap(image_LPI.transpose(0, 1), image_LT, text_LT)


def _mean_attention(query_HSD: Tensor, key_KSD: Tensor, rows_C: Tensor, scaling: float) -> Tensor:
    """The attention weights C S of these positions, mean over heads; attention is causal."""
    query_KGCD = query_HSD[:, rows_C].float().unflatten(0, (len(key_KSD), -1))
    logits = (query_KGCD @ key_KSD.float().transpose(1, 2)[:, None]).flatten(0, 1) * scaling
    positions_S = torch.arange(key_KSD.shape[1], device=rows_C.device)
    logits.masked_fill_(positions_S[None] > rows_C[:, None], -torch.inf)
    return logits.softmax(dim=-1).mean(dim=0)
