"""Samples that a server fails in a row, held back until it is clear whose fault that is."""

from collections.abc import Hashable
from typing import Generic

from difftrain.model.engines.types import GenerationError, K, Request

IN_A_ROW = 32
"""Samples that fail for good with no answer between them before the server itself is doubted."""


class Vain(GenerationError):
    """The server gave none. Many samples in a row are its fault, not theirs."""


class Refused(Vain):
    """The server refused. Many in a row may be theirs, if it answers a plain request."""


class InARow(Generic[K]):
    """Failures with no answer between them, and the most new tokens that one of them asked for."""

    def __init__(self) -> None:
        self.held: list[tuple[K, GenerationError]] = []
        self.refused, self.longest = True, 1
        self._samples: set[Hashable] = set()

    @property
    def too_long(self) -> bool:
        """Whether so many samples failed that it must first be seen whether the server is well."""
        return len(self._samples) >= IN_A_ROW

    def add(self, key: K, found: Vain, request: Request) -> None:
        """Hold one back; draws of the same sample count once."""
        self.held.append((key, GenerationError(found.reason)))
        self.refused = self.refused and isinstance(found, Refused)
        self.longest = max(self.longest, request.max_new_tokens)
        self._samples.add(sample_of(request))

    def release(self) -> list[tuple[K, GenerationError]]:
        """Those held back: the server is well, so they are the samples' own."""
        found, self.held = self.held, []
        self.refused, self.longest = True, 1
        self._samples.clear()
        return found

    @property
    def words(self) -> str:
        """What is told of a server that fails for everybody."""
        _, last = self.held[-1]
        return f"{len(self._samples)} samples in a row have no answer; the last one: {last.reason}"


def sample_of(request: Request) -> Hashable:
    """What tells samples apart: the view's name, else the words and the pictures' sizes.

    Not the pixels: every mask of a sample is another picture.
    """
    return request.view or (request.text, *(each.size for each in request.images))
