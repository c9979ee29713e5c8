"""The types that mark image tokens stand where these tokens are, in each log-probability pass."""

import pytest
import torch

from difftrain.train.grpo_trainer import aligned_token_types

IMAGE, PAD, BOS = 9, 0, 1


def test_types_of_a_prompt_with_a_second_bos_token_are_moved_back() -> None:
    ids = torch.tensor([[BOS, 5, IMAGE, IMAGE, 6, 7], [PAD, BOS, IMAGE, IMAGE, 6, 7]])
    types = torch.tensor([[0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 1, 0, 0]])  # one column more
    aligned = aligned_token_types({"token_type_ids": types, "pixel_values": 1}, ids, IMAGE)
    assert list(aligned) == ["token_type_ids"]
    assert torch.equal(aligned["token_type_ids"] == 1, ids == IMAGE)


def test_types_that_mark_other_tokens_are_refused() -> None:
    ids = torch.tensor([[BOS, 5, IMAGE, 6]])
    with pytest.raises(RuntimeError, match="do not mark the image tokens"):
        aligned_token_types({"mm_token_type_ids": torch.tensor([[0, 1, 0, 0]])}, ids, IMAGE)
