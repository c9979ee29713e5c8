"""Capability check run before a server is used; its findings are recorded as the engine's info.

Tested, not assumed: is the server there and is the key accepted; does it take the fields that
switch off its own sampling defaults; does it sample; does an image arrive, and at full size; are
seeds honored while many requests are open.
"""

import asyncio
import json
import logging
from typing import Any

from PIL import Image

from difftrain.config.data import TOKEN_PIXELS
from difftrain.config.model import ModelConfig
from difftrain.config.run_config import ConfigError
from difftrain.model.engines.openai_engine import OpenAIEngine, open_client
from difftrain.model.engines.transport import (
    GATEWAY_STATUSES,
    MAX_PROBE_INTERVAL_S,
    RequestError,
)
from difftrain.model.engines.types import Completion, Request

logger = logging.getLogger(__name__)

REACHABLE_TIMEOUT_S = 5.0
NO_DEFAULTS = {"top_p": 1.0, "repetition_penalty": 1.0, "min_p": 0.0}
SAMPLING_FIELDS: dict[str, dict[str, Any]] = {
    "top_k=-1": {**NO_DEFAULTS, "top_k": -1},
    "top_k=0": {**NO_DEFAULTS, "top_k": 0},
    "generation_config": {
        "generation_config": json.dumps(
            {"do_sample": True, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0}
        )
    },
    "none": {},
}
"""Ways to ask for the model's own distribution, tried in turn: vLLM and SGLang take the first,
LMDeploy the second, `transformers serve` the third. With `none` the server's defaults apply."""
PROMPT = "Write a list of random words, each one unlike the others."
MAX_NEW_TOKENS = 16
TEMPERATURE = 1.5
SAME_SEED_REQUESTS, OTHER_SEED_REQUESTS = 4, 4
"""Requests with one seed, and with a seed of their own, all open at the same time."""
SIDE_STEP = 28
"""Image sides of the check are multiples of it, in pixels."""


def check_reachable(config: ModelConfig) -> None:
    """Raises ConfigError, within seconds, if no server answers or it rejects the key."""
    client = open_client(config)
    try:
        status = client.run(client.models_status(REACHABLE_TIMEOUT_S))
    except RequestError as error:
        message = f"model.url={client.url}: no server answers there ({error.message})"
        raise ConfigError([message]) from None
    finally:
        client.close()
    if status in (401, 403):
        variable = f"model.server.api_key_env={config.server.api_key_env}"
        raise ConfigError([f"{variable}: the server at {client.url} rejects that key ({status})"])
    if status in GATEWAY_STATUSES:
        raise ConfigError([f"model.url={client.url}: the server answers {status}"])


def connect(config: ModelConfig, max_pixels: int) -> OpenAIEngine:
    """The engine, after the check. Raises ConfigError if the server cannot serve.

    `max_pixels` is the area of the largest image that it will be sent.
    """
    check_reachable(config)
    engine = OpenAIEngine(config)
    try:
        engine.info = engine.client.run(ServerCheck(engine).run(max_pixels))
    except BaseException as error:
        engine.close()
        if isinstance(error, RequestError):
            message = f"a request for the model {engine.name}: {error.message}"
            raise ConfigError([f"model.url={engine.client.url}: {message}"]) from None
        raise
    engine.client.has_completed = True
    return engine


class ServerCheck:
    """The requests of one check, each retried as often as any other.

    Methods raise RequestError where a request got no completion, ConfigError where the server
    cannot be used.
    """

    def __init__(self, engine: OpenAIEngine) -> None:
        self.engine, self.config = engine, engine.config
        self.server = f"model.url={engine.client.url}"
        self._open = asyncio.Semaphore(self.config.max_concurrency)

    async def run(self, max_pixels: int) -> dict[str, Any]:
        """The engine's info."""
        return {
            "engine": "http",
            "served": self.engine.name,
            "sampling": await self.choose_sampling_fields(),
            "seeds": await self.check_seeds(),
            **await self.check_images(max_pixels),
        }

    async def complete(self, seed: int, *images: Image.Image) -> tuple[Completion, int | None]:
        """A completion and its prompt's tokens, if the server counts them."""
        request = Request(
            parts=(*images, PROMPT),
            system=None,
            seed=seed,
            temperature=TEMPERATURE,
            max_new_tokens=MAX_NEW_TOKENS,
        )
        attempt = 1
        while True:
            try:
                async with self._open:
                    return await self.engine.complete(self.engine.body(request))
            except RequestError as error:
                if error.permanent or attempt >= self.config.max_attempts:
                    raise
                pause = self.config.backoff_s * 2 ** (attempt - 1)
                pause = pause if error.retry_after is None else error.retry_after
                await asyncio.sleep(min(MAX_PROBE_INTERVAL_S, pause))
            attempt += 1

    async def choose_sampling_fields(self) -> str:
        """Add the sampling fields that the server takes to every request; their name."""
        extra, name = self.engine.extra, ""
        for name, fields in SAMPLING_FIELDS.items():
            self.engine.extra = {**fields, **extra}
            try:
                await self.complete(1)
                break
            except RequestError as error:
                if not error.is_refusal or name == "none":
                    raise
        if name == "none":
            logger.warning(f"{self.server}: the server's own sampling defaults apply")
        return name

    async def check_seeds(self) -> str:
        """`honored` if one seed gives one text while other requests are open, else `ignored`."""
        seeds = [1] * SAME_SEED_REQUESTS + [2 + i for i in range(OTHER_SEED_REQUESTS)]
        results = await asyncio.gather(*(self.complete(seed) for seed in seeds))
        texts = [completion.text for completion, _ in results]
        if len(set(texts)) == 1:
            raise ConfigError(
                [
                    f"{self.server}: {OTHER_SEED_REQUESTS + 1} seeds at temperature {TEMPERATURE} "
                    "give the same text, so the server does not sample; all draws would be copies"
                ]
            )
        if len(set(texts[:SAME_SEED_REQUESTS])) == 1:
            return "honored"
        logger.warning(
            f"{self.server}: the server does not honor seeds; draws cannot be reproduced"
        )
        return "ignored"

    async def check_images(self, max_pixels: int) -> dict[str, Any]:
        """Prompt tokens that the largest image adds and should add, and a size that is refused.

        Token counts are missing where the server does not report them.
        """
        _, text_tokens = await self.complete(1)
        side, tokens, refusal = await self.largest_image(max_pixels)
        if refusal:
            logger.warning(
                f"{self.server}: an image of {refusal['side']} x {refusal['side']} is refused "
                f"({refusal['reason']}), one of {side} x {side} is not: requests with larger "
                "images may fail; raise the server's limit or lower the settings' max_pixels"
            )
        info: dict[str, Any] = {"image_refused": refusal["side"]} if refusal else {}
        if text_tokens is None or tokens is None:
            return info
        added, expected = tokens - text_tokens, side * side // TOKEN_PIXELS
        if added <= 0:
            raise ConfigError(
                [f"{self.server}: an image adds no token to the prompt; the model does not see it"]
            )
        if added < expected:
            logger.warning(
                f"{self.server}: an image of {side} x {side} adds {added} tokens where the data "
                f"stage counts {expected}: the server shrinks images; raise its limit or lower "
                "data.max_pixels"
            )
        return info | {"image_tokens": {"side": side, "server": added, "expected": expected}}

    async def largest_image(self, max_pixels: int) -> tuple[int, int | None, dict[str, Any]]:
        """Side of the largest image that the server takes, the prompt's tokens with it, and the
        first refusal of a larger one. Starts at `max_pixels` and halves the side.
        """
        side, refusal = max(1, int(max_pixels**0.5) // SIDE_STEP) * SIDE_STEP, {}
        while True:
            image = Image.linear_gradient("L").resize((side, side)).convert("RGB")
            try:
                _, tokens = await self.complete(1, image)
            except RequestError as error:
                if not error.is_refusal or side == SIDE_STEP:
                    raise
                refusal = refusal or {"side": side, "reason": error.message}
                side = max(1, side // 2 // SIDE_STEP) * SIDE_STEP
            else:
                return side, tokens, refusal
