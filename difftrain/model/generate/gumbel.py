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


def noise(seed_B: torch.Tensor, position: int, vocabulary: int) -> torch.Tensor:
    """Standard Gumbel noise of shape B V, float32."""
    place_B1 = mixed(seed_B[:, None] + mixed(torch.full_like(seed_B[:, None], position + 1)))
    token_V = mixed(torch.arange(vocabulary, device=seed_B.device) * 0x9E3779B1)
    bits_BV = mixed(place_B1 ^ token_V[None])
    uniform_BV = (bits_BV.double() + 0.5) / 2.0**32
    return -torch.log(-torch.log(uniform_BV)).float()


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
        temperature_B1 = torch.tensor(self.temperatures, device=scores.device)[:, None]
        if not (temperature_B1 > 0).any():
            return scores
        seed_B = torch.tensor(self.seeds, device=scores.device, dtype=torch.int64)
        position = input_ids.shape[1] - self.prompt_width
        noisy = scores / temperature_B1.clamp(min=1e-6)
        noisy = noisy + noise(seed_B, position, scores.shape[1])
        return torch.where(temperature_B1 > 0, noisy, scores)
