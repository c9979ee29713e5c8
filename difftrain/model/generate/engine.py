"""The one place that chooses who answers: model.engine."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from difftrain.model.config import ModelConfig
from difftrain.model.generate import hf
from difftrain.model.generate.request import Answer, Engine, K, Request
from difftrain.model.load import Loaded

ROUNDS = 4
"""Batches that are sorted by length together."""


class InProcess:
    """transformers in this process; every draw's sampling noise is its own (gumbel.py)."""

    def __init__(self, loaded: Loaded, batch_size: int) -> None:
        self.loaded, self.batch_size = loaded, batch_size

    @property
    def about(self) -> dict[str, Any]:
        """Seeds are honoured: the noise is a hash of them."""
        return {"engine": "hf", "seeds": "honoured"}

    def stream(
        self,
        more: Callable[[int], Sequence[tuple[K, Request]]],
        alive: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[K, Answer]]:
        """As Engine.stream, in rounds."""
        while wanted := more(self.batch_size * ROUNDS):
            found = hf.answers(self.loaded, [each for _, each in wanted], self.batch_size)
            alive()
            yield from zip((key for key, _ in wanted), found, strict=True)

    def close(self) -> None:
        """Nothing to let go of; the model belongs to whoever loaded it."""


def choose(config: ModelConfig, loaded: Callable[[], Loaded]) -> Engine:
    """The engine that the settings name. `loaded` is called only where the model answers here."""
    return InProcess(loaded(), config.batch_size)
