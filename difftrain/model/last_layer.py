"""The last layer's attention among a response's own tokens, in log space, a few rows at a time.

The kernels that run the model give no attention weights, so this makes them again for one layer
from its queries and keys. What is held at once is bounded (CELLS), however long the response.
Axes: H heads, K key heads, S sequence, D head size, C rows taken together, T response tokens.
"""

import math
from collections.abc import Iterator

import torch

from difftrain.config.difficulty import AceConfig, Heads
from difftrain.difficulty.ace import ColumnProducts

CELLS = 1 << 23
"""Attention values held at once: 32 MiB in float32, and a few copies of it."""


def log_rows(
    query_HSD: torch.Tensor,
    key_KSD: torch.Tensor,
    mask_SS: torch.Tensor | None,
    place_T: torch.Tensor,
    scaling: float,
) -> Iterator[tuple[int, torch.Tensor]]:
    """(first row, log attention H C T) of the response at positions place_T, chunk after chunk.

    The attention is the model's own softmax over prompt and response; only the response's columns
    are given. mask_SS is what the layer was given, True or 0.0 where it may look; None is causal.
    """
    heads, key_heads, tokens = len(query_HSD), len(key_KSD), len(place_T)
    key_KDS = key_KSD.float().transpose(1, 2)
    size = max(1, CELLS // (heads * key_KSD.shape[1]))
    for first in range(0, tokens, size):
        rows = place_T[first : first + size]
        width = int(rows[-1]) + 1  # a row sees nothing behind itself
        asked_KGCD = query_HSD[:, rows].float().unflatten(0, (key_heads, heads // key_heads))
        logits = (asked_KGCD @ key_KDS[:, None, :, :width]).flatten(0, 1) * scaling
        if mask_SS is None:
            seen = torch.arange(width, device=rows.device)[None] <= rows[:, None]
            logits.masked_fill_(~seen, -torch.inf)
        elif mask_SS.dtype is torch.bool:
            logits.masked_fill_(~mask_SS[rows, :width], -torch.inf)
        else:
            logits += mask_SS[rows, :width].float()
        log_HCS = logits - logits.logsumexp(dim=-1, keepdim=True)
        own = place_T[place_T < width]
        found = log_HCS.new_full((heads, len(rows), tokens), -torch.inf)
        found[..., : len(own)] = log_HCS[..., own]
        yield first, found


def over_heads(log_HCT: torch.Tensor, heads: Heads) -> torch.Tensor:
    """Logarithm of the mean, or of the maximum, of the heads' attention."""
    if heads is Heads.max:
        return log_HCT.amax(dim=0)
    return log_HCT.logsumexp(dim=0) - math.log(len(log_HCT))


def bias(
    query_HSD: torch.Tensor,
    key_KSD: torch.Tensor,
    mask_SS: torch.Tensor | None,
    place_T: torch.Tensor,
    scaling: float,
    config: AceConfig,
) -> float | None:
    """ACE's largest log psi of one response (difficulty.ace.bias of its attention)."""
    columns = ColumnProducts(len(place_T), config.sigma, config.window)
    for first, log_HCT in log_rows(query_HSD, key_KSD, mask_SS, place_T, scaling):
        columns.add(first, over_heads(log_HCT, config.heads).cpu().numpy().astype(float))
    return columns.largest(config.min_rows, config.normalize)
