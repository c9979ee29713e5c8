"""Sampling that depends on the draw's seed and the token's position, and on nothing else.

argmax(logits / T + noise) with Gumbel noise is a sample of softmax(logits / T). The noise is a
hash of (seed, position, token), so it needs no generator and is the same in any batch, on any
rank, after any restart. Axes: B batch, V vocabulary.
"""

import torch

WORD = 0xFFFFFFFF


def mixed(value: torch.Tensor) -> torch.Tensor:
    """A 32-bit integer hash (murmur's finaliser) of each element, in int64 arithmetic."""
    value = value & WORD
    value = ((value ^ (value >> 16)) * 0x85EBCA6B) & WORD
    value = ((value ^ (value >> 13)) * 0xC2B2AE35) & WORD
    return value ^ (value >> 16)


def noise(seed_B: torch.Tensor, position: int | torch.Tensor, vocabulary: int) -> torch.Tensor:
    """Standard Gumbel noise of shape B V, float32. The position is one for all, or one a row."""
    place_B = torch.zeros_like(seed_B) + position + 1
    place_B1 = mixed(seed_B[:, None] + mixed(place_B[:, None]))
    token_V = mixed(torch.arange(vocabulary, device=seed_B.device) * 0x9E3779B1)
    bits_BV = mixed(place_B1 ^ token_V[None])
    uniform_BV = (bits_BV.double() + 0.5) / 2.0**32
    return -torch.log(-torch.log(uniform_BV)).float()


def noisy(
    scores_BV: torch.Tensor,
    seed_B: torch.Tensor,
    position: int | torch.Tensor,
    temperature_B: torch.Tensor,
) -> torch.Tensor:
    """Scores whose argmax is a draw of each row's softmax(scores / T); rows with T = 0 keep theirs.

    Minus infinity stays so, and is never drawn.
    """
    scores_BV = scores_BV.float()
    drawn_B1 = temperature_B[:, None] > 0
    if not drawn_B1.any():
        return scores_BV
    drawn_BV = scores_BV / temperature_B[:, None].clamp(min=1e-6)
    drawn_BV = drawn_BV + noise(seed_B, position, scores_BV.shape[1])
    return torch.where(drawn_B1, drawn_BV, scores_BV)


class DrawOwnNoise:
    """A logits processor: greedy decoding becomes sampling at each row's temperature and seed.

    Tokens in `banned` are never produced: a sampled picture placeholder would break the row.
    """

    def __init__(
        self, seeds: list[int], temperatures: list[float], prompt_width: int, banned: list[int]
    ) -> None:
        self.seeds, self.temperatures = seeds, temperatures
        self.prompt_width, self.banned = prompt_width, banned

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Noisy scores of shape B V; rows with temperature 0 keep theirs."""
        scores = scores.float()
        scores[:, self.banned] = -torch.inf
        temperature_B = torch.tensor(self.temperatures, device=scores.device)
        seed_B = torch.tensor(self.seeds, device=scores.device, dtype=torch.int64)
        return noisy(scores, seed_B, input_ids.shape[1] - self.prompt_width, temperature_B)
