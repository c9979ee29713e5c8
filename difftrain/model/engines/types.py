"""Requests and results of every engine, and the record of the engines behind a folder."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from PIL import Image

from difftrain.data import prompts
from difftrain.pipeline import manifest

K = TypeVar("K")
ENGINE_FOLDER = "engines"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request for one completion. A temperature of 0 is greedy.

    `parts` are texts and images in the order in which the model sees them. Requests with the same
    `view` have the same parts and system prompt, so an engine may prefill them once; None: unknown.
    """

    parts: tuple[str | Image.Image, ...] = field(repr=False)
    system: str | None = prompts.SYSTEM
    seed: int = 0
    temperature: float = 0.0
    max_new_tokens: int
    view: str | None = None

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def images(self) -> list[Image.Image]:
        """The image parts."""
        return [part for part in self.parts if not isinstance(part, str)]


@dataclass(frozen=True, slots=True)
class Completion:
    """A response of the model. `token_ids` end with the EOS token if it was produced (`hit_eos`).

    An engine that returns text only leaves `token_ids` empty and gives the number of tokens that
    the server reports, or None.
    """

    text: str
    token_ids: tuple[int, ...]
    hit_eos: bool
    reported_tokens: int | None = None

    @property
    def num_tokens(self) -> int:
        """The number of tokens; 0 where it is unknown."""
        return len(self.token_ids) or self.reported_tokens or 0


@dataclass(frozen=True, slots=True)
class GenerationError:
    """Why a request got no completion after all retries, or why a retry would not help."""

    reason: str


Result = Completion | GenerationError


class Engine(Protocol):
    """Whatever generates: transformers or vLLM in this process, or a server."""

    @property
    def info(self) -> dict[str, Any]:
        """What a manifest records of the engine: its kind, and what is known of its seeds."""
        ...

    def stream(
        self,
        next_requests: Callable[[int], Sequence[tuple[K, Request]]],
        on_idle: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[K, Result]]:
        """Results as they finish, in any order, each with the key of its request.

        `next_requests(room)` returns up to `room` further requests; it may return none and is
        called again after the next result was taken. The stream ends when it returns none while
        no request is open. `on_idle` is called every few seconds while nothing finishes.
        """
        ...

    def close(self) -> None:
        """Free what the engine holds."""
        ...


def feed(
    items: Iterator[tuple[K, Request]],
) -> Callable[[int], list[tuple[K, Request]]]:
    """`next_requests` of Engine.stream over an iterator of (key, request)."""
    return lambda room: [item for _, item in zip(range(room), items, strict=False)]


def generate_all(
    engine: Engine, requests: Sequence[Request], on_idle: Callable[[], None] = lambda: None
) -> list[Result]:
    """The result of each request, in the order of the requests."""
    results = dict(engine.stream(feed(iter(enumerate(requests))), on_idle))
    return [results[i] for i in range(len(requests))]


def write_engine_info(folder: Path, info: Mapping[str, Any]) -> None:
    """Record an engine in a folder, under a name that is a hash of the record.

    Written before the first response, so that the engine of a killed run is known too.
    """
    text = json.dumps(info, indent=2, sort_keys=True) + "\n"
    name = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
    manifest.write_text(folder / ENGINE_FOLDER / f"{name}.json", text)


def read_engine_info(folder: Path) -> list[dict[str, Any]]:
    """Every engine that made responses of this folder."""
    return [
        json.loads(path.read_text()) for path in sorted((folder / ENGINE_FOLDER).glob("*.json"))
    ]
