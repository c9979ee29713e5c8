"""Completions from a server with OpenAI's chat completions API: vLLM, SGLang, LMDeploy, others.

Each response is one request, because each has its own seed. A failure while the server is up counts
against the request: after `max_attempts` failures it gets a GenerationError with the last reason.
While the server is away or busy, no failure is counted and every request waits
(CircuitBreaker in transport.py); a request that is rejected while others are completed fails.
"""

import asyncio
import base64
import os
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock
from typing import Any

from PIL import Image

from difftrain import images
from difftrain.config.model import ModelConfig
from difftrain.model.engines.transport import (
    MAX_BACKOFF_S,
    CircuitBreaker,
    Fault,
    RequestError,
    ServerClient,
    ServerUnavailable,
    message_text,
    printable,
)
from difftrain.model.engines.types import (
    Completion,
    DataUrl,
    Feed,
    GenerationError,
    K,
    Request,
    Result,
)

MAX_CACHED_BYTES = 256 << 20  # of all cached data URLs
MAX_SILENT_TOKENS = 2  # of a completion without text: EOS and one special token
FINISH_REASONS = {"stop": True, "length": False}  # value: was EOS hit? Others are failures
MAX_COUNT = 2**31  # a reported token count this high is wrong
OUTAGE_FAULTS = (Fault.server, Fault.lost, Fault.slow)  # then check whether the server is away
IDLE_CALL_S = 5.0  # between two calls of on_idle
# A request that was open during this many server crashes may have caused them. Such requests are
# sent one at a time.
CRASHES_BEFORE_ALONE = 2
# A request that is always rejected fails after (this number x max_attempts x max_concurrency)
# completions of other requests. A server that is only busy would have completed it by then.
COMPLETIONS_BEFORE_REJECTED = 4
STREAK_SAMPLES = 32  # after so many failed samples in a row, the server is suspected
# A request that every working server completes, to test whether the server or a sample fails.
PLAIN_PARTS = (Image.new("RGB", (56, 56)), "Say yes.")  # a black image of 2 x 2 tokens
PLAIN_REQUEST = Request(parts=PLAIN_PARTS, system=None, max_new_tokens=4)
FATAL_STATUSES = {
    401: "the server answers 401: is the key in the variable of model.server.api_key_env right?",
    402: "the server answers 402: the account cannot pay",
    403: "the server answers 403: the key has no access to this model",
    404: "the server answers 404: are model.url and model.server.name right?",
    405: "the server answers 405: is model.url right?",
}


@dataclass(frozen=True, slots=True)
class ServerFailure(GenerationError):
    """A failed request. A long streak is blamed on the server, a short one on its samples."""

    sample: Hashable  # identifies the sample; its failures count once
    max_new_tokens: int
    is_refusal: bool = False  # a 4xx: the server may complete other requests


class DataUrlCache:
    """PNG data URLs of images, so that an image sent often is encoded once; thread-safe."""

    def __init__(self, max_bytes: int = MAX_CACHED_BYTES) -> None:
        self.max_bytes, self.num_bytes, self.num_encoded = max_bytes, 0, 0
        self._urls: OrderedDict[bytes, str] = OrderedDict()
        self._lock, self._encoding_locks = Lock(), [Lock() for _ in range(64)]

    def get(self, image: Image.Image) -> str:
        """The image as a data URL; encoded once while it is cached."""
        key = images.pixel_hash(image)
        with self._encoding_locks[key[0] % 64]:  # two threads never encode the same image
            with self._lock:
                if key in self._urls:
                    self._urls.move_to_end(key)
                    return self._urls[key]
            url = "data:image/png;base64," + base64.b64encode(images.to_png(image)).decode()
            with self._lock:
                self.num_encoded += 1
                self._urls[key] = url
                self.num_bytes += len(url)
                while self.num_bytes > self.max_bytes and len(self._urls) > 1:  # the newest stays
                    self.num_bytes -= len(self._urls.popitem(last=False)[1])
        return url


def parse_completion(response: Mapping[str, Any]) -> tuple[Completion, int | None]:
    """The completion in a response, with its text unchanged, and the prompt's number of tokens.

    Raises RequestError unless there is exactly one choice, with a known finish reason and with
    text; the text may be empty if the server reports that the model ended at once.
    """
    match response["choices"]:
        case [{"message": dict(message), "finish_reason": reason}]:
            pass
        case [_]:
            raise RequestError(Fault.malformed, "the server's response is no chat completion")
        case choices:
            error = f"the response has {len(choices)} completions instead of one"
            raise RequestError(Fault.malformed, error)
    if message.get("reasoning_content") or message.get("reasoning"):
        error = "the server removes the reasoning from the response; start it without"
        raise RequestError(Fault.malformed, f"{error} reasoning parser", permanent=True)
    if reason == "content_filter":
        raise RequestError(Fault.refused, "the server filters the response", permanent=True)
    if not isinstance(reason, str) or reason not in FINISH_REASONS:
        error = f"the response is not complete (finish_reason {reason!s:.40})"
        raise RequestError(Fault.malformed, error)
    text, tokens = message_text(message), _reported_count(response, "completion_tokens")
    if text and printable(text) != text:
        raise RequestError(Fault.malformed, "the server's response is no text")
    ended_at_once = reason == "stop" and 0 < (tokens or 0) <= MAX_SILENT_TOKENS
    if not text and not ended_at_once:
        raise RequestError(Fault.empty, f"an empty response (finish_reason {reason})")
    completion = Completion(text or "", (), FINISH_REASONS[reason], tokens)
    return completion, _reported_count(response, "prompt_tokens")


def _reported_count(response: Mapping[str, Any], name: str) -> int | None:
    match response.get("usage"):
        case {**counts} if type(counts.get(name)) is int and 0 <= counts[name] < MAX_COUNT:
            return counts[name]
    return None


def open_client(config: ModelConfig) -> ServerClient:
    """A client of the configured server; opening it sends nothing."""
    assert config.url is not None  # ModelConfig.check() requires it for this engine
    key = os.environ.get(config.server.api_key_env, "")
    return ServerClient(config.url, key, config.server.timeout_s, FATAL_STATUSES)


class OpenAIEngine:
    """The http engine: keeps up to max_concurrency requests open and retries failed ones."""

    def __init__(self, config: ModelConfig) -> None:
        self.config, self.name = config.server, config.served_name
        self.extra = dict(config.server.extra)  # goes into every request
        self.info: dict[str, Any] = {}  # results of the server check
        self.client, self.data_urls = open_client(config), DataUrlCache()
        self.breaker = CircuitBreaker(self.client, self.config.max_outage_s, self.config.backoff_s)
        self._alone = asyncio.Lock()  # held by a request that may crash the server
        self.faults: Counter[Fault] = Counter()  # of all attempts, even if a retry succeeded
        self.num_completions = 0
        self.busy_since: float | None = None  # when rejections began; None: not busy

    def body(self, request: Request) -> dict[str, Any]:
        """The JSON body of a request."""
        content = [
            {"type": "text", "text": part}
            if isinstance(part, str)
            else {
                "type": "image_url",
                "image_url": {
                    "url": part.url if isinstance(part, DataUrl) else self.data_urls.get(part)
                },
            }
            for part in request.parts
        ]
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if request.system:
            messages.insert(0, {"role": "system", "content": request.system})
        return {
            "model": self.name,
            "messages": messages,
            "temperature": request.temperature,
            "seed": request.seed,
            "max_tokens": request.max_new_tokens,
            **self.extra,
        }

    def stream(
        self, next_requests: Feed[K], on_idle: Callable[[], None] = lambda: None
    ) -> Iterator[tuple[K, Result]]:
        """See Engine.stream. Raises ServerUnavailable when the server stays away.

        Failures are held back until the server completes another request, or PLAIN_REQUEST. That
        shows that the samples caused the failures, not the server.
        """
        open_requests: dict[Future[Result], K] = {}
        streak: list[tuple[K, ServerFailure]] = []
        try:
            while True:
                num_samples = len({failure.sample for _, failure in streak})
                room = self.config.max_concurrency - len(open_requests)
                for key, request in next_requests(room) if num_samples < STREAK_SAMPLES else ():
                    open_requests[self.client.submit(self.generate(request))] = key
                if not open_requests:
                    if not streak:
                        return
                    if num_samples >= STREAK_SAMPLES and not self._works(streak, on_idle):
                        message = f"{num_samples} samples in a row have no response; the last one:"
                        raise self._trip(f"{message} {streak[-1][1].reason}")
                    yield from _blame_samples(streak)
                    continue
                while not wait(open_requests, IDLE_CALL_S, FIRST_COMPLETED).done:
                    on_idle()
                future = next(future for future in open_requests if future.done())
                key = open_requests.pop(future)
                try:
                    result = future.result()
                except ServerUnavailable:  # Yield what has arrived.
                    for future, key in open_requests.items():
                        is_success = future.done() and not future.exception()
                        if is_success and isinstance(result := future.result(), Completion):
                            yield key, result
                    raise
                if isinstance(result, ServerFailure):
                    streak.append((key, result))
                    continue
                if isinstance(result, Completion):
                    yield from _blame_samples(streak)
                yield key, result
        finally:
            for future in open_requests:
                future.cancel()

    def _works(self, streak: list[tuple[Any, ServerFailure]], on_idle: Callable[[], None]) -> bool:
        """Whether the server refused the streak, but completes PLAIN_REQUEST at its token limit."""
        if not all(failure.is_refusal for _, failure in streak):
            return False
        max_new_tokens = max(failure.max_new_tokens for _, failure in streak)
        request = replace(PLAIN_REQUEST, max_new_tokens=max_new_tokens)
        future = self.client.submit(self.generate(request))
        while not wait([future], IDLE_CALL_S).done:
            on_idle()
        return isinstance(future.result(), Completion)

    def _trip(self, reason: str) -> ServerUnavailable:
        return self.breaker.trip(f"model.url={self.client.url}: {reason}")

    async def generate(self, request: Request) -> Result:
        """The result of one request after retries. Raises ServerUnavailable."""
        if reason := request.special_token_error():
            return GenerationError(reason)
        body = await asyncio.to_thread(self.body, request)
        # Not identified by pixels, because a sample's image is sent with different parts masked.
        sample = request.view or (request.text, *request.image_sizes)
        failure = partial(ServerFailure, sample=sample, max_new_tokens=request.max_new_tokens)
        num_failures = num_crashes = num_pauses = num_completions_before = sent_at = 0
        while True:
            try:
                async with self._alone if num_crashes >= CRASHES_BEFORE_ALONE else nullcontext():
                    await self.breaker.wait()
                    sent_at = time.monotonic()
                    completion, _ = await self.client.complete(body, parse_completion)
            except RequestError as error:
                self.faults[error.fault] += 1
                if error.fatal:
                    raise self._trip(error.message) from None
                if error.permanent:
                    return failure(error.message, is_refusal=True)
                if error.fault is Fault.limited or error.retry_after is not None:
                    num_pauses += 1
                    if num_pauses == 1:
                        num_completions_before = self.num_completions
                    if await self._rejects_only_this(error, num_pauses, num_completions_before):
                        reason = f"{num_pauses} requests were rejected while others were completed"
                        return failure(f"{reason}, the last: {error.message}")
                elif error.fault in OUTAGE_FAULTS and not (
                    await self.breaker.was_reachable_since(sent_at)
                ):
                    num_crashes += int(sent_at < self.breaker.last_outage)  # it was open then
                else:
                    num_failures += 1
                    if num_failures >= self.config.max_attempts:
                        return failure(f"{num_failures} attempts failed, the last: {error.message}")
                    await self.breaker.sleep(self.config.backoff_s * 2 ** (num_failures - 1))
                if num_crashes >= self.config.max_attempts + CRASHES_BEFORE_ALONE:
                    return failure(f"the server went down {num_crashes} times during this request")
            else:
                self.num_completions += 1
                self.busy_since = None
                return completion

    async def _rejects_only_this(self, error: RequestError, num_pauses: int, before: int) -> bool:
        """Whether the server rejects only this request; if not, all requests pause.

        `before`: completions before its first pause. Raises ServerUnavailable after max_outage_s.
        """
        per_request = COMPLETIONS_BEFORE_REJECTED * self.config.max_attempts
        many_completed = self.num_completions - before >= per_request * self.config.max_concurrency
        if num_pauses >= self.config.max_attempts and many_completed:
            return True
        self.breaker.check()
        if (error.retry_after or 0) > self.config.max_outage_s:
            reason = f"it asks to wait for {error.retry_after:.0f} s"
        else:
            self.busy_since = self.busy_since or time.monotonic()
            busy = time.monotonic() - self.busy_since
            if busy <= self.config.max_outage_s:
                backoff = max(0.01, self.config.backoff_s) * 2 ** min(num_pauses, 10)  # no overflow
                pause = min(MAX_BACKOFF_S, backoff)
                self.breaker.pause(pause if error.retry_after is None else error.retry_after)
                return False
            reason = f"it has been busy, and completed no request, for {busy:.0f} s"
        try:
            await self.client.complete(self.body(PLAIN_REQUEST), parse_completion)
        except RequestError:
            raise self._trip(reason) from None
        return True  # the server completes PLAIN_REQUEST

    def close(self) -> None:
        """Cancel open requests and close the connections."""
        self.client.close()


def _blame_samples(streak: list[tuple[K, ServerFailure]]) -> list[tuple[K, GenerationError]]:
    """The failures of the streak as results of their requests; empties the streak."""
    failures = [(key, GenerationError(failure.reason)) for key, failure in streak]
    streak.clear()
    return failures
