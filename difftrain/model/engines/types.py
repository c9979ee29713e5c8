"""Requests and results of all engines, and the engine records of a folder of responses."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

from PIL import Image

from difftrain.data import prompts
from difftrain.pipeline import manifest

K = TypeVar("K")  # the caller's key of a request
ENGINE_FOLDER = "engines"  # in a folder of responses; has one record per engine
SPECIAL_TOKEN = re.compile(r"<\|\w+\|>|<image>")  # Qwen's, and the placeholder of data sets


@dataclass(frozen=True, slots=True)
class DataUrl:
    """An image that is encoded for a server."""

    url: str = field(repr=False)
    size: tuple[int, int]  # width and height in pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request for one completion. A temperature of 0 is greedy.

    `parts` are the prompt's texts and images in their order. `view` identifies the prompt: requests
    with the same view have the same parts and system prompt, so an engine may prefill them once. If
    `view` is None, no other request has this prompt. Only a server takes a DataUrl.
    """

    parts: tuple[str | Image.Image | DataUrl, ...] = field(repr=False)
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
        """The image parts that are not encoded."""
        return [part for part in self.parts if isinstance(part, Image.Image)]

    @property
    def image_sizes(self) -> list[tuple[int, int]]:
        """Width and height of every image part."""
        return [part.size for part in self.parts if not isinstance(part, str)]

    def special_token_error(self) -> str | None:
        """An error if the prompt has a special token, which the tokenizer does not take as text."""
        match = SPECIAL_TOKEN.search(f"{self.system or ''}\n{self.text}")
        return f"the prompt contains the special token {match.group()}" if match else None

    def chat_text(self, processor: Any) -> str:
        """The prompt in the model's chat template, with one placeholder per image."""
        messages = prompts.messages(self.parts, self.system)
        return processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)


@dataclass(frozen=True, slots=True)
class Completion:
    """A response of the model."""

    text: str
    token_ids: tuple[int, ...]  # with EOS, if it was produced; empty for a server's response
    hit_eos: bool
    reported_tokens: int | None = None  # the number of tokens that a server reports

    @property
    def num_tokens(self) -> int:
        """The number of tokens; 0 if it is unknown."""
        return len(self.token_ids) or self.reported_tokens or 0


@dataclass(frozen=True, slots=True)
class GenerationError:
    """Why a request got no completion after all retries, or why a retry would not help."""

    reason: str


Result = Completion | GenerationError
Feed = Callable[[int], Sequence[tuple[K, Request]]]  # next_requests of Engine.stream


class Engine(Protocol):
    """A backend that generates: transformers or vLLM in this process, or a server."""

    @property
    def info(self) -> dict[str, Any]:
        """For the manifest: the engine's kind, and whether equal seeds give equal responses."""
        ...

    def stream(
        self, next_requests: Feed[K], on_idle: Callable[[], None] = lambda: None
    ) -> Iterator[tuple[K, Result]]:
        """Results as they finish, in any order, each with the key of its request.

        `next_requests(room)` returns up to `room` further requests; it may return none and is
        called again after each result. The stream ends when it returns none while no request is
        open. `on_idle` is called every few seconds while nothing finishes.
        """
        ...

    def close(self) -> None:
        """Free the engine's memory and connections."""


def feed(items: Iterator[tuple[K, Request]]) -> Feed[K]:
    """A feed from an iterator of (key, request)."""
    return lambda room: list(islice(items, room))


def generate_all(engine: Engine, requests: Sequence[Request]) -> list[Result]:
    """The result of each request, in the order of the requests."""
    results = dict(engine.stream(feed(iter(enumerate(requests)))))
    return [results[i] for i in range(len(requests))]


def write_engine_info(folder: Path, info: Mapping[str, Any]) -> None:
    """Record an engine in a folder, under a name that is a hash of the record.

    Call it before the first response, so that a killed run has the record too.
    """
    text = json.dumps(info, indent=2, sort_keys=True) + "\n"
    name = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
    manifest.write_text(folder / ENGINE_FOLDER / f"{name}.json", text)


def read_engine_info(folder: Path) -> list[dict[str, Any]]:
    """The records of all engines that generated responses of this folder."""
    paths = sorted((folder / ENGINE_FOLDER).glob("*.json"))
    return [json.loads(path.read_text()) for path in paths]
