"""Checks what a server can do before it is used; the engine's info records the results.

Is the key accepted? Does the server accept the fields that switch off its own sampling defaults?
Does it sample? Does an image arrive at full size? Do equal seeds give equal responses?
"""

import asyncio
import json
import logging
from dataclasses import replace
from typing import Any

from PIL import Image

from difftrain.config.data import TOKEN_SIDE
from difftrain.config.model import ModelConfig
from difftrain.config.run_config import ConfigError
from difftrain.model.engines.openai_engine import OpenAIEngine, open_client, parse_completion
from difftrain.model.engines.transport import GATEWAY_STATUSES, MAX_BACKOFF_S, RequestError
from difftrain.model.engines.types import Completion, Request

logger = logging.getLogger(__name__)

REACHABLE_TIMEOUT_S = 5.0
# Fields that switch off a server's own sampling defaults; tried in turn, because servers differ.
NEUTRAL_SAMPLING = {"top_p": 1.0, "repetition_penalty": 1.0, "min_p": 0.0}
NEUTRAL_CONFIG = {"do_sample": True, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0}
SAMPLING_FIELDS: dict[str, dict[str, Any]] = {
    "top_k=-1": {**NEUTRAL_SAMPLING, "top_k": -1},  # vLLM, SGLang
    "top_k=0": {**NEUTRAL_SAMPLING, "top_k": 0},  # LMDeploy
    "generation_config": {"generation_config": json.dumps(NEUTRAL_CONFIG)},  # transformers serve
}
PROMPT = "Write a list of random words, each one unlike the others."
# At a high temperature, different seeds give different texts.
REQUEST = Request(parts=(PROMPT,), system=None, temperature=1.5, max_new_tokens=16)


def check_reachable(config: ModelConfig) -> None:
    """Raise ConfigError within seconds if no server answers or the server rejects the key."""
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


def connect(config: ModelConfig, max_pixels: int, token_side: int = TOKEN_SIDE) -> OpenAIEngine:
    """An engine whose server passes the check. Raises ConfigError if it does not.

    The largest image has max_pixels, in whole tokens of `token_side` pixels on a side.
    """
    check_reachable(config)
    engine = OpenAIEngine(config)
    try:
        engine.info = engine.client.run(ServerCheck(engine, token_side).run(max_pixels))
    except BaseException as error:
        engine.close()
        if isinstance(error, RequestError):
            message = f"a request for the model {engine.name}: {error.message}"
            raise ConfigError([f"model.url={engine.client.url}: {message}"]) from None
        raise
    engine.client.has_completed = True  # the address is right, so a later 404 is retried
    return engine


class ServerCheck:
    """The steps of the check; a failed request is retried up to max_attempts.

    Raises RequestError if a request gets no completion, ConfigError if the server is unusable.
    """

    def __init__(self, engine: OpenAIEngine, token_side: int = TOKEN_SIDE) -> None:
        self.engine, self.config, self.token_side = engine, engine.config, token_side
        self.server = f"model.url={engine.client.url}"  # begins every message
        self._semaphore = asyncio.Semaphore(self.config.max_concurrency)

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
        """A completion and its prompt's number of tokens (None if the server reports none)."""
        request = replace(REQUEST, parts=(*images, *REQUEST.parts), seed=seed)
        num_failures = 0
        while True:
            try:
                async with self._semaphore:
                    body = self.engine.body(request)
                    return await self.engine.client.complete(body, parse_completion)
            except RequestError as error:
                num_failures += 1
                if error.permanent or num_failures >= self.config.max_attempts:
                    raise
                backoff = self.config.backoff_s * 2 ** (num_failures - 1)
                pause = backoff if error.retry_after is None else error.retry_after
                await asyncio.sleep(min(MAX_BACKOFF_S, pause))

    async def choose_sampling_fields(self) -> str:
        """Add to every request the SAMPLING_FIELDS that the server accepts; returns their key."""
        extra = self.engine.extra
        for name, fields in SAMPLING_FIELDS.items():
            self.engine.extra = {**fields, **extra}
            try:
                await self.complete(seed=1)
                return name
            except RequestError as error:
                if not error.is_refusal:
                    raise
        self.engine.extra = extra
        await self.complete(seed=1)
        logger.warning(f"{self.server}: the server's own sampling defaults apply")
        return "none"

    async def check_seeds(self) -> str:
        """`honored` if equal seeds give equal texts while other requests run, else `ignored`."""
        seeds = [1, 1, 1, 1, 2, 3, 4, 5]  # all open at the same time
        results = await asyncio.gather(*(self.complete(seed) for seed in seeds))
        texts = [completion.text for completion, _ in results]
        if len(set(texts)) == 1:
            num_seeds = len(set(seeds))
            result = f"{num_seeds} seeds at temperature {REQUEST.temperature} give the same text"
            reason = "so the server does not sample; all responses to a prompt would be equal"
            raise ConfigError([f"{self.server}: {result}, {reason}"])
        if len({text for seed, text in zip(seeds, texts, strict=True) if seed == 1}) == 1:
            return "honored"
        message = "the server does not honor seeds; responses cannot be reproduced"
        logger.warning(f"{self.server}: {message}")
        return "ignored"

    async def check_images(self, max_pixels: int) -> dict[str, Any]:
        """The number of prompt tokens that the largest image adds, and the expected number.

        If the largest image is refused, its side is recorded, and smaller images are tried.
        """
        _, text_tokens = await self.complete(seed=1)
        step = self.token_side
        largest = max(1, int(max_pixels**0.5) // step) * step
        side, refusal = largest, ""
        while True:
            image = Image.linear_gradient("L").resize((side, side)).convert("RGB")
            try:
                _, total_tokens = await self.complete(1, image)
                break
            except RequestError as error:
                if not error.is_refusal or side == step:
                    raise
                refusal = refusal or error.message
                side = max(1, side // 2 // step) * step
        if refusal:
            logger.warning(
                f"{self.server}: an image of {largest} x {largest} is refused ({refusal}), one of "
                f"{side} x {side} is not: requests with larger images may fail; raise the server's "
                "limit or lower data.max_pixels (for benchmarks: evaluate.max_pixels)"
            )
        info: dict[str, Any] = {"image_refused": largest} if refusal else {}
        if text_tokens is None or total_tokens is None:
            return info
        added, expected = total_tokens - text_tokens, side * side // step**2
        if added <= 0:
            message = "an image adds no token to the prompt; the model does not see it"
            raise ConfigError([f"{self.server}: {message}"])
        if added < expected:
            adds = f"adds {added} tokens, but the data stage counts {expected}"
            advice = "the server shrinks images; raise its limit or lower data.max_pixels"
            logger.warning(f"{self.server}: an image of {side} x {side} {adds}: {advice}")
        return info | {"image_tokens": {"side": side, "server": added, "expected": expected}}
