"""A server whose every answer is known beforehand: a hash of the words, pixels and seed asked."""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any

from PIL import Image

from difftrain.model.engines.types import Request
from tests.listening import FaultyProxy, Listening, send

TRIAL = "list of random words"


def expected(text: str, pictures: list[bytes], seed: int) -> str:
    """What the server says to these words and RGB pixels under this seed."""
    digest = hashlib.blake2b(f"{text}|{seed}".encode() + b"".join(pictures), digest_size=4)
    return f"<answer>{digest.hexdigest()}</answer>"


def expected_of(request: Request) -> str:
    """The right answer to a request."""
    pixels = [image.tobytes() for image in request.images]
    return expected(request.text, pixels, request.seed)


def whole(words: Any, prompt: int = 10, tokens: int = 5, reason: str = "stop") -> dict[str, Any]:
    """A completion as vLLM writes it."""
    message = {"role": "assistant", "content": words, "reasoning_content": None}
    return {
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": tokens},
    }


def read(body: dict[str, Any]) -> tuple[str, list[bytes], list[tuple[int, int]]]:
    """The user's words of a request, and its pictures' pixels and sizes."""
    text, pixels, sizes = "", [], []
    for part in body["messages"][-1]["content"]:
        if part["type"] == "text":
            text += part["text"]
        else:
            raw = base64.b64decode(part["image_url"]["url"].partition("base64,")[2])
            picture = Image.open(BytesIO(raw)).convert("RGB")
            pixels.append(picture.tobytes())
            sizes.append(picture.size)
    return text, pixels, sizes


class ModelServer(Listening):
    """Says what `expected` says, or what `spoils(handler, body, number)` does instead.

    `spoils` gets every request but the trial's and returns True where it has answered.
    """

    def __init__(self) -> None:
        super().__init__()
        self.spoils: Callable[[BaseHTTPRequestHandler, dict, int], bool] = lambda *_: False
        self.refuses: tuple[str, ...] = ()
        """Fields that are answered with 400."""
        self.samples = self.keeps_seeds = self.sees = True
        self.delay = 0.0
        self.in_earnest = 0
        self.models = 200
        self.looks = 0
        self.away = False

    def listing(self, handler: BaseHTTPRequestHandler) -> None:
        self.looks += 1
        if self.away:
            return FaultyProxy.drop(handler)
        return send(handler, self.models, b'{"object": "list", "data": []}')

    def answer(self, handler: BaseHTTPRequestHandler, number: int, content: bytes) -> None:
        if self.away:
            return FaultyProxy.drop(handler)
        body = json.loads(content)
        if found := [name for name in self.refuses if name in body]:
            told = json.dumps({"error": {"message": f"no field {found[0]}"}}).encode()
            return send(handler, 400, told)
        text, pixels, sizes = read(body)
        seed = body["seed"]
        if TRIAL in text:
            seed = seed if self.keeps_seeds else number
            seed = seed if self.samples else 0
        else:
            with self.lock:
                self.in_earnest += 1
                place = self.in_earnest
            if self.spoils(handler, body, place):
                return None
            time.sleep(self.delay)
        shown = sum(w * h // 784 + 2 for w, h in sizes) if self.sees else 0
        content = json.dumps(whole(expected(text, pixels, seed), 10 + shown)).encode()
        return send(handler, 200, content)

    def down(self) -> None:
        """Stop listening and drop who is connected."""
        self.away = True
        self.server.shutdown()
        self.server.server_close()

    def up(self) -> None:
        """Listen again on the same port."""
        kind, handler = type(self.server), self.server.RequestHandlerClass
        self.server: ThreadingHTTPServer = kind(self.server.server_address, handler)
        self.away = False
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
