"""Which tokens of prompt + response are picture, text and response, and where each stands.

Axes: B batch, S sequence positions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from difftrain.config.difficulty import TextSpan


@dataclass(frozen=True, slots=True)
class Spans:
    """Three boolean indicators of shape B S; a position belongs to at most one of them."""

    image_BS: torch.Tensor
    text_BS: torch.Tensor
    response_BS: torch.Tensor


def spans(
    input_ids_BS: torch.Tensor,
    attention_mask_BS: torch.Tensor,
    response_lengths: Sequence[int],
    image_token: int,
    text: TextSpan,
) -> Spans:
    """Indicators for sequences that end with their response (left-padded).

    Text is every prompt token that is neither padding nor picture; `before_image` keeps only
    those before the first picture (the first paper's release).
    """
    length = input_ids_BS.shape[1]
    place_S = torch.arange(length, device=input_ids_BS.device)
    start_B = length - torch.tensor(list(response_lengths), device=input_ids_BS.device)
    response_BS = place_S[None] >= start_B[:, None]
    image_BS = (input_ids_BS == image_token) & ~response_BS
    text_BS = attention_mask_BS.bool() & ~response_BS & ~image_BS
    if text is TextSpan.before_image:
        text_BS = text_BS & (image_BS.int().cumsum(1) == 0)
    return Spans(image_BS, text_BS, response_BS)


def positions(model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Rotary positions of right-padded inputs, 3 B S: a picture's tokens by row and column."""
    ids_BS = inputs["input_ids"]
    if "image_grid_thw" not in inputs:
        return torch.arange(ids_BS.shape[1], device=ids_BS.device).expand(3, *ids_BS.shape)
    found, _ = model.base_model.get_rope_index(
        ids_BS,
        image_grid_thw=inputs["image_grid_thw"],
        attention_mask=inputs["attention_mask"],
        mm_token_type_ids=inputs["mm_token_type_ids"],
    )
    return found
