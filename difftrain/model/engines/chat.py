"""What goes to a server for a Request, and the Answer in what comes back. Nothing is sent here.

Pictures travel as PNG data URLs, made once a view and shared by its draws. Words that hold a token
of the chat template (<|image_pad|>, <|im_end|>) are not sent: the server would take it for its own.
"""

import base64
import json
import re
from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock
from typing import Any

from PIL import Image

from difftrain import images
from difftrain.model.engines import wire
from difftrain.model.engines.types import Completion, Request
from difftrain.model.engines.wire import Fault, NoReply

SPECIAL_TOKEN = re.compile(r"<\|\w+\|>|<image>")
"""What a server's template would take for a token of its own, or for a picture."""
KEPT_BYTES = 256 << 20
"""Data URLs that are remembered."""
SILENT_TOKENS = 2
"""Tokens of an answer without words: the end, and at most one that shows nothing."""
FINISHED = {"stop": True, "length": False}
"""The finish reasons of a whole answer; all others (abort, error, tool_calls) are none."""
MOST_TOKENS = 2**31
"""A count at or above this is none."""
THOUGHTS = ("reasoning_content", "reasoning")
"""Where servers with a reasoning parser put what they take out of the answer."""


class Unsendable(ValueError):
    """The words of a request cannot be sent as they stand."""


class DataUrls:
    """PNG data URLs of pictures, each made once while it is remembered; safe across threads."""

    def __init__(self, most: int = KEPT_BYTES) -> None:
        self.most, self.held, self.made = most, 0, 0
        self._known: OrderedDict[bytes, str] = OrderedDict()
        self._making: dict[bytes, Lock] = {}
        self._lock = Lock()

    def of(self, picture: Image.Image) -> str:
        """The picture, whole and unchanged, as a data URL."""
        key = images.pixel_hash(picture)
        with self._lock:
            making = self._making.setdefault(key, Lock())
        with making:
            with self._lock:
                if key in self._known:
                    self._known.move_to_end(key)
                    return self._known[key]
            found = png_url(picture)
            with self._lock:
                self._keep(key, found)
                self._making.pop(key, None)
        return found

    def _keep(self, key: bytes, url: str) -> None:
        self.made += 1
        self._known[key] = url
        self.held += len(url)
        while self.held > self.most and len(self._known) > 1:
            self.held -= len(self._known.popitem(last=False)[1])


def png_url(picture: Image.Image) -> str:
    """A picture as base64 PNG."""
    return "data:image/png;base64," + base64.b64encode(images.to_png(picture)).decode()


def body(model: str, request: Request, urls: DataUrls, extra: Mapping[str, Any]) -> bytes:
    """The JSON of one request for one answer. Raises Unsendable."""
    words = [part for part in (request.system or "", *request.parts) if isinstance(part, str)]
    if found := [match.group() for each in words if (match := SPECIAL_TOKEN.search(each))]:
        raise Unsendable(f"the words hold {found[0]}, which a server takes for a token of its own")
    content = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": urls.of(part)}}
        for part in request.parts
    ]
    turns: list[dict[str, Any]] = [{"role": "user", "content": content}]
    if request.system:
        turns.insert(0, {"role": "system", "content": request.system})
    return json.dumps(
        {
            "model": model,
            "messages": turns,
            "temperature": request.temperature,
            "seed": request.seed,
            "max_tokens": request.max_new_tokens,
            **extra,
        }
    ).encode()


def answer(content: bytes) -> Completion:
    """The one answer in a completion, its words as they came.

    Raises NoReply unless there is exactly one choice with words and a known end. No words at all
    are an answer only where the server says that the model ended at once.
    """
    match wire.loaded(content):
        case {"choices": [{"message": dict(message), "finish_reason": reason}], **rest}:
            pass
        case {"choices": list(choices)} if len(choices) != 1:
            raise NoReply(Fault.malformed, f"{len(choices)} answers where one was asked for")
        case _:
            raise NoReply(Fault.malformed, "the server's answer is no chat completion")
    words, counted = wire.joined(message.get("content")), used(rest, "completion_tokens")
    if any(message.get(name) for name in THOUGHTS):
        told = "the server takes the thoughts out of the answer; start it without reasoning parser"
        raise NoReply(Fault.malformed, told, final=True)
    if reason == "content_filter":
        raise NoReply(Fault.refused, "the server filters the answer", final=True)
    if not isinstance(reason, str) or reason not in FINISHED:
        raise NoReply(Fault.malformed, f"the answer is not whole (finish_reason {reason!s:.40})")
    if words is not None and not (isinstance(words, str) and wire.plain(words) == words):
        raise NoReply(Fault.malformed, "the server's answer is no text")
    ended_at_once = reason == "stop" and 0 < (counted or 0) <= SILENT_TOKENS
    if not words and not ended_at_once:
        raise NoReply(Fault.empty, f"an empty answer (finish_reason {reason})")
    return Completion(words or "", (), FINISHED[reason], counted)


def used(completion: Mapping[str, Any], name: str) -> int | None:
    """A count of the completion's usage, or None where it has none that can be one."""
    match completion.get("usage"):
        case {**counts} if type(counts.get(name)) is int and 0 <= counts[name] < MOST_TOKENS:
            return counts[name]
    return None
