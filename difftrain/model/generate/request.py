"""What every engine is asked and what it gives back, and what an engine is."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from PIL import Image

from difftrain.data import prompts

K = TypeVar("K")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One answer wanted. A temperature of 0 is greedy; the seed is the draw's own.

    `parts` are words and pictures in the order in which they are shown. Requests with the same
    `view` show the very same (parts and system), so an engine may read them once; None: unknown.
    """

    parts: tuple[str | Image.Image, ...] = field(repr=False)
    system: str | None = prompts.SYSTEM
    seed: int = 0
    temperature: float = 0.0
    max_new_tokens: int
    view: str | None = None

    @property
    def text(self) -> str:
        """The words alone."""
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def images(self) -> list[Image.Image]:
        """The pictures alone."""
        return [part for part in self.parts if not isinstance(part, str)]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said. `token_ids` end with the end token if it came (`finished`).

    An engine that gives words only leaves `token_ids` empty and says how many there were, or None
    where it does not know.
    """

    text: str
    token_ids: tuple[int, ...]
    finished: bool
    counted: int | None = None

    @property
    def tokens(self) -> int:
        """How many tokens the answer has; 0 where nobody counted them."""
        return len(self.token_ids) or self.counted or 0


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """The engine got no answer after all its tries, or asking again would not help; and why."""

    reason: str


Found = Answer | NoAnswer
"""What comes back for a request."""


class Engine(Protocol):
    """Whoever answers: transformers in this process, vLLM in this process, or a server."""

    @property
    def about(self) -> dict[str, Any]:
        """What an artifact says of its maker: engine, and what is known of its seeds."""
        ...

    def stream(
        self,
        more: Callable[[int], Sequence[tuple[K, Request]]],
        alive: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[K, Found]]:
        """Answers as they are done, in any order, each with the key that its request came with.

        `more(room)` is asked for up to `room` further requests whenever there is room; it may give
        none and be asked again after the next answer was taken. The stream ends when it gives
        none while nothing is open. `alive` is called now and then while nothing comes.
        """
        ...

    def close(self) -> None:
        """Let go of what the engine holds."""
        ...


def answers(
    engine: Engine, requests: Sequence[Request], alive: Callable[[], None] = lambda: None
) -> list[Found]:
    """What comes back for each request, in the order of the requests."""
    waiting = iter(enumerate(requests))

    def more(room: int) -> list[tuple[int, Request]]:
        return [each for _, each in zip(range(room), waiting, strict=False)]

    found = dict(engine.stream(more, alive))
    return [found[place] for place in range(len(requests))]
