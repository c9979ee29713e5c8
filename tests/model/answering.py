"""A fake model server whose responses are a hash of the text, the pixels and the seed.

The server check is what the http engine does first: it tests whether the server honors seeds and
takes images, with a few requests of its own.
"""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any

from PIL import Image

from difftrain.config.model import ModelConfig
from difftrain.model.engines.hf import HfEngine
from difftrain.model.engines.kv_cache import token_bound
from difftrain.model.engines.types import Request, Result, feed
from difftrain.model.loading import LoadedModel
from tests.listening import FakeServer, FaultyProxy, send

CHECK_PROMPT = "list of random words"  # part of every prompt of the server check


def expected_text(text: str, images: list[bytes], seed: int) -> str:
    """The text that ModelServer returns for a prompt of this text and these RGB pixels."""
    digest = hashlib.blake2b(f"{text}|{seed}".encode() + b"".join(images), digest_size=4)
    return f"<answer>{digest.hexdigest()}</answer>"


def expected_response(request: Request) -> str:
    """The text that ModelServer returns for a request."""
    pixels = [image.tobytes() for image in request.images]
    return expected_text(request.text, pixels, request.seed)


def completion_body(
    text: Any, prompt_tokens: int = 10, tokens: int = 5, reason: str = "stop"
) -> dict[str, Any]:
    """A completion as vLLM writes it; `tokens` is its reported length, `reason` finish_reason."""
    message = {"role": "assistant", "content": text, "reasoning_content": None}
    return {
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": tokens},
    }


def parse_body(body: dict[str, Any]) -> tuple[str, list[bytes], list[tuple[int, int]]]:
    """The user's text in a request's body, and the pixels and sizes of its images."""
    text, pixels, sizes = "", [], []
    for part in body["messages"][-1]["content"]:
        if part["type"] == "text":
            text += part["text"]
        else:
            raw = base64.b64decode(part["image_url"]["url"].partition("base64,")[2])
            image = Image.open(BytesIO(raw)).convert("RGB")
            pixels.append(image.tobytes())
            sizes.append(image.size)
    return text, pixels, sizes


class ModelServer(FakeServer):
    """Responds with `expected_text`, unless `inject_fault(handler, body, number)` returns True.

    `inject_fault` gets every request except those of the server check; `number` counts from 1. If
    it returns True, it has sent a response itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inject_fault: Callable[[BaseHTTPRequestHandler, dict, int], bool] = lambda *_: False
        self.refused_fields: tuple[str, ...] = ()  # a request with such a field gets status 400
        self.does_sample = self.honors_seeds = self.sees_images = True
        self.delay_s = 0.0  # before every response
        self.num_requests = 0  # without those of the server check
        self.models_status = 200  # of the list of models
        self.num_model_lists = 0
        self.is_down = False

    def list_models(self, handler: BaseHTTPRequestHandler) -> None:
        self.num_model_lists += 1
        if self.is_down:
            return FaultyProxy.drop(handler)
        return send(handler, self.models_status, b'{"object": "list", "data": []}')

    def respond(self, handler: BaseHTTPRequestHandler, number: int, content: bytes) -> None:
        if self.is_down:
            return FaultyProxy.drop(handler)
        body = json.loads(content)
        if refused := [name for name in self.refused_fields if name in body]:
            error = json.dumps({"error": {"message": f"no field {refused[0]}"}}).encode()
            return send(handler, 400, error)
        text, pixels, sizes = parse_body(body)
        seed = body["seed"]
        if CHECK_PROMPT in text:
            seed = seed if self.honors_seeds else number
            seed = seed if self.does_sample else 0
        else:
            with self.lock:
                self.num_requests += 1
                number = self.num_requests
            if self.inject_fault(handler, body, number):
                return None
            time.sleep(self.delay_s)
        # As in Qwen2.5-VL: one token per 28 x 28 pixels, and a start and an end token per image.
        image_tokens = (
            sum(width * height // 28**2 + 2 for width, height in sizes) if self.sees_images else 0
        )
        content = json.dumps(
            completion_body(expected_text(text, pixels, seed), 10 + image_tokens)
        ).encode()
        return send(handler, 200, content)

    def down(self) -> None:
        """Stop listening and drop the connections, as a crashed server does."""
        self.is_down = True
        self.server.shutdown()
        self.server.server_close()

    def up(self) -> None:
        """Listen again on the same port."""
        server_class, handler = type(self.server), self.server.RequestHandlerClass
        self.server: ThreadingHTTPServer = server_class(self.server.server_address, handler)
        self.is_down = False
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def generate(
    loaded: LoadedModel, requests: Sequence[Request], config: ModelConfig | int
) -> list[Result]:
    """The hf engine's results in the order of the requests; the engine gets short requests first.

    A number as `config` is a batch size.
    """
    order = sorted(range(len(requests)), key=lambda i: (token_bound(requests[i]), i))
    if isinstance(config, int):
        config = ModelConfig(batch_size=config)
    items = iter([(i, requests[i]) for i in order])
    results = dict(HfEngine(loaded, config).stream(feed(items)))
    return [results[i] for i in range(len(requests))]
