"""Completions from a server that speaks OpenAI's chat completions: vLLM, SGLang, LMDeploy, others.

Each draw is a request of its own, because each has its own seed. A failure while the server is up
counts against the request: after `max_attempts` failures it gets a GenerationError with the last
reason. While the server is away or busy nothing counts and every request waits (CircuitBreaker in
transport.py), unless only this request is rejected while others are completed.

Images travel as PNG data URLs, encoded once per view and shared by its draws. A prompt that
contains a special token (<|image_pad|>, <|im_end|>) is not sent: the server would interpret it.
"""

import asyncio
import base64
import os
import re
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import replace
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any, Generic

from PIL import Image

from difftrain import images
from difftrain.config.model import ModelConfig
from difftrain.model.engines.transport import (
    CircuitBreaker,
    Fault,
    RequestError,
    ServerClient,
    ServerUnavailable,
    T,
    message_text,
    printable,
)
from difftrain.model.engines.types import Completion, GenerationError, K, Request, Result

SPECIAL_TOKEN = re.compile(r"<\|\w+\|>|<image>")
"""Text that a chat template interprets as a token or an image."""
MAX_CACHED_BYTES = 256 << 20
"""Data URLs that are cached."""
MAX_SILENT_TOKENS = 2
"""Tokens of a completion without text: EOS, and at most one that is not shown."""
FINISH_REASONS = {"stop": True, "length": False}
"""Finish reasons of a complete response and their hit_eos; all others (abort, ...) are failures."""
MAX_COUNT = 2**31
"""A token count from here on is wrong."""
REASONING_FIELDS = ("reasoning_content", "reasoning")
"""Where servers with a reasoning parser put what they remove from the response."""
OUTAGE_FAULTS = (Fault.server, Fault.lost, Fault.slow)
"""Faults that may mean that the server is away."""
IDLE_CALL_S = 5.0
CRASHES_BEFORE_ALONE = 2
"""A request that was open during so many crashes of the server is retried while no other such
request is open: if it is the one that kills the server, it does not take the others along."""
COMPLETIONS_BEFORE_REJECTED = 4
"""Completions per attempt and open request after which a request that is rejected again and again
is given up: a server that is only busy would have served it by then."""
STREAK_SAMPLES = 32
"""Samples that fail without a completion between them before the server itself is suspected."""
PLAIN_REQUEST = Request(
    parts=(Image.new("RGB", (56, 56)), "Say yes."), system=None, max_new_tokens=4
)
"""A request that every working server completes."""
FATAL_STATUSES = {
    401: "the server answers 401: is the key in the variable of model.server.api_key_env right?",
    402: "the server answers 402: the account cannot pay",
    403: "the server answers 403: the key has no access to this model",
    404: "the server answers 404: are model.url and model.server.name right?",
    405: "the server answers 405: is model.url right?",
}


class ServerFailure(GenerationError):
    """Caused by the request or by the server; a long streak is blamed on the server."""


class ServerRefusal(ServerFailure):
    """As ServerFailure, but the server is fine if it completes a plain request."""


class DataUrlCache:
    """PNG data URLs of images, each encoded once while it is cached; safe across threads."""

    def __init__(self, max_bytes: int = MAX_CACHED_BYTES) -> None:
        self.max_bytes, self.bytes, self.encoded = max_bytes, 0, 0
        self._urls: OrderedDict[bytes, str] = OrderedDict()
        self._encoding: dict[bytes, Lock] = {}
        self._lock = Lock()

    def get(self, image: Image.Image) -> str:
        """The image as a data URL, unchanged."""
        key = images.pixel_hash(image)
        with self._lock:
            encoding = self._encoding.setdefault(key, Lock())
        with encoding:
            with self._lock:
                if key in self._urls:
                    self._urls.move_to_end(key)
                    return self._urls[key]
            url = "data:image/png;base64," + base64.b64encode(images.to_png(image)).decode()
            with self._lock:
                self._encoding.pop(key, None)
                self.encoded += 1
                self._urls[key] = url
                self.bytes += len(url)
                while self.bytes > self.max_bytes and len(self._urls) > 1:
                    self.bytes -= len(self._urls.popitem(last=False)[1])
        return url


def parse_completion(response: Mapping[str, Any]) -> tuple[Completion, int | None]:
    """The one completion of a response, its text unchanged, and the prompt's number of tokens.

    Raises RequestError unless there is exactly one choice with text and a known finish reason. A
    response without text is a completion only if the server reports that the model ended at once.
    """
    choices = response["choices"]
    if len(choices) != 1:
        raise RequestError(Fault.malformed, f"{len(choices)} completions where one was requested")
    match choices[0]:
        case {"message": dict(message), "finish_reason": reason}:
            pass
        case _:
            raise RequestError(Fault.malformed, "the server's response is no chat completion")
    if any(message.get(name) for name in REASONING_FIELDS):
        raise RequestError(
            Fault.malformed,
            "the server removes the reasoning from the response; start it without reasoning parser",
            permanent=True,
        )
    if reason == "content_filter":
        raise RequestError(Fault.refused, "the server filters the response", permanent=True)
    if not isinstance(reason, str) or reason not in FINISH_REASONS:
        message = f"the response is not complete (finish_reason {reason!s:.40})"
        raise RequestError(Fault.malformed, message)
    text, tokens = message_text(message), reported_count(response, "completion_tokens")
    if text and printable(text) != text:
        raise RequestError(Fault.malformed, "the server's response is no text")
    ended_at_once = reason == "stop" and 0 < (tokens or 0) <= MAX_SILENT_TOKENS
    if not text and not ended_at_once:
        raise RequestError(Fault.empty, f"an empty response (finish_reason {reason})")
    completion = Completion(text or "", (), FINISH_REASONS[reason], tokens)
    return completion, reported_count(response, "prompt_tokens")


def reported_count(response: Mapping[str, Any], name: str) -> int | None:
    """A token count of the response's usage; None if it is missing or impossible."""
    match response.get("usage"):
        case {**counts} if type(counts.get(name)) is int and 0 <= counts[name] < MAX_COUNT:
            return counts[name]
    return None


class FailureStreak(Generic[K]):
    """Failures without a completion between them, held back until it is clear whose fault it is."""

    def __init__(self) -> None:
        self.held: list[tuple[K, GenerationError]] = []
        self.all_refused, self.max_new_tokens = True, 1
        self._samples: set[Hashable] = set()

    @property
    def is_long(self) -> bool:
        """Whether so many samples failed that the server is suspected."""
        return len(self._samples) >= STREAK_SAMPLES

    def add(self, key: K, failure: ServerFailure, request: Request) -> None:
        """Hold a failure back. Draws of one sample count once.

        The sample is told from the view's name, else from text and image sizes; not from the
        pixels, because every mask of a sample makes another image.
        """
        self.held.append((key, GenerationError(failure.reason)))
        self.all_refused = self.all_refused and isinstance(failure, ServerRefusal)
        self.max_new_tokens = max(self.max_new_tokens, request.max_new_tokens)
        sizes = [image.size for image in request.images]
        self._samples.add(request.view or (request.text, *sizes))

    def release(self) -> list[tuple[K, GenerationError]]:
        """The failures held back: the server works, so the samples are their cause."""
        held, self.held = self.held, []
        self.all_refused, self.max_new_tokens = True, 1
        self._samples.clear()
        return held

    @property
    def message(self) -> str:
        """The error message for a server that fails every request."""
        last = self.held[-1][1].reason
        return f"{len(self._samples)} samples in a row have no response; the last one: {last}"


def open_client(config: ModelConfig) -> ServerClient:
    """A client of the settings' server; sends nothing."""
    assert config.url is not None
    key = os.environ.get(config.server.api_key_env, "")
    return ServerClient(config.url, key, config.server.timeout_s, FATAL_STATUSES)


class OpenAIEngine:
    """The engine: up to max_concurrency open requests, each retried where that can help.

    `extra` goes into the body of every request, `info` is what the server check found.
    """

    info: dict[str, Any]

    def __init__(self, config: ModelConfig) -> None:
        self.config, self.name = config.server, config.served_name
        self.extra, self.info = dict(config.server.extra), {}
        self.client, self.data_urls = open_client(config), DataUrlCache()
        self.breaker = CircuitBreaker(self.client, self.config.max_outage_s, self.config.backoff_s)
        self._alone = asyncio.Lock()
        self.faults: Counter[Fault] = Counter()
        """Requests without a completion, by cause; also those whose retry succeeded."""
        self.completions = 0

    def body(self, request: Request) -> dict[str, Any]:
        """The JSON body of a request. Raises ValueError for special tokens."""
        for part in (request.system or "", *request.parts):
            if isinstance(part, str) and (match := SPECIAL_TOKEN.search(part)):
                raise ValueError(f"the prompt contains the special token {match.group()}")
        content = [
            {"type": "text", "text": part}
            if isinstance(part, str)
            else {"type": "image_url", "image_url": {"url": self.data_urls.get(part)}}
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

    async def complete(self, body: Mapping[str, Any]) -> tuple[Completion, int | None]:
        """The completion, and the prompt's tokens if they are counted; nothing is retried.

        Raises RequestError.
        """
        return await self.client.complete(body, parse_completion)

    def stream(
        self,
        next_requests: Callable[[int], Sequence[tuple[K, Request]]],
        on_idle: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[K, Result]]:
        """As Engine.stream. Raises ServerUnavailable when the server stays away."""
        finished: SimpleQueue[tuple[K, Request, Future[Result]]] = SimpleQueue()
        open_requests: set[Future[Result]] = set()
        streak: FailureStreak[K] = FailureStreak()

        def submit(key: K, request: Request) -> None:
            future = self.client.submit(self.generate(request))
            open_requests.add(future)
            future.add_done_callback(lambda future: finished.put((key, request, future)))

        try:
            while True:
                room = self.config.max_concurrency - len(open_requests)
                for key, request in () if streak.is_long else next_requests(room):
                    submit(key, request)
                if not open_requests:
                    if streak.is_long and not self._is_fault_of_samples(streak, on_idle):
                        raise self._trip(streak.message)
                    if not streak.held:
                        return
                    yield from streak.release()
                    continue
                key, request, future = _wait_for_result(finished, on_idle)
                open_requests.discard(future)
                try:
                    result = future.result()
                except ServerUnavailable:  # What has arrived and was not taken yet is not lost.
                    while not finished.empty():
                        key, _, future = finished.get()
                        if not future.exception() and isinstance(future.result(), Completion):
                            yield key, future.result()
                    raise
                if isinstance(result, ServerFailure):
                    streak.add(key, result, request)
                    continue
                if isinstance(result, Completion):
                    yield from streak.release()
                yield key, result
        finally:
            for future in open_requests:
                future.cancel()

    def _is_fault_of_samples(self, streak: FailureStreak[Any], on_idle: Callable[[], None]) -> bool:
        """Whether all were refused, and a plain request of their length is completed alone."""
        if not streak.all_refused:
            return False
        request = replace(PLAIN_REQUEST, max_new_tokens=streak.max_new_tokens)
        done: SimpleQueue[Future[Result]] = SimpleQueue()
        self.client.submit(self.generate(request)).add_done_callback(done.put)
        return isinstance(_wait_for_result(done, on_idle).result(), Completion)

    def _trip(self, reason: str) -> ServerUnavailable:
        return self.breaker.trip(f"model.url={self.client.url}: {reason}")

    async def generate(self, request: Request) -> Result:
        """The result of one request after retries. Raises ServerUnavailable."""
        try:
            body = await asyncio.to_thread(self.body, request)
        except ValueError as error:
            return GenerationError(str(error))
        failures = crashes = pauses = completions_before = 0
        while True:
            sent_at = time.monotonic()
            try:
                async with self._alone if crashes >= CRASHES_BEFORE_ALONE else nullcontext():
                    await self.breaker.wait()
                    sent_at = time.monotonic()
                    completion, _ = await self.complete(body)
            except RequestError as error:
                self.faults[error.fault] += 1
                if error.fatal:
                    raise self._trip(error.message) from None
                if error.permanent:
                    return ServerRefusal(error.message)
                if error.fault is Fault.limited or error.retry_after is not None:
                    pauses += 1
                    if pauses == 1:
                        completions_before = self.completions
                    if await self._rejects_only_this(error, pauses, completions_before):
                        return ServerFailure(
                            f"{pauses} requests were rejected while others were completed, "
                            f"the last: {error.message}"
                        )
                elif error.fault in OUTAGE_FAULTS and not (
                    await self.breaker.was_reachable_since(sent_at)
                ):
                    crashes += sent_at < self.breaker.last_outage  # it was open then
                else:
                    failures += 1
                    if failures >= self.config.max_attempts:
                        message = f"{failures} attempts failed, the last: {error.message}"
                        return ServerFailure(message)
                    await self.breaker.sleep(self.config.backoff_s * 2 ** (failures - 1))
                if crashes >= self.config.max_attempts + CRASHES_BEFORE_ALONE:
                    message = f"the server went down {crashes} times during this request"
                    return ServerFailure(message)
            else:
                self.completions += 1
                self.breaker.busy_since = None
                return completion

    async def _rejects_only_this(self, error: RequestError, pauses: int, before: int) -> bool:
        """Whether only this request is rejected; if not, every request pauses.

        `before`: completions at its first pause. Raises ServerUnavailable if the server has been
        too busy for all requests for too long.
        """
        per_request = COMPLETIONS_BEFORE_REJECTED * self.config.max_attempts
        enough = self.completions - before >= per_request * self.config.max_concurrency
        if pauses >= self.config.max_attempts and enough:
            return True
        reason = self.breaker.back_off(error.retry_after, pauses)
        if reason is None:
            return False
        try:
            await self.complete(self.body(PLAIN_REQUEST))
        except RequestError:
            raise self._trip(reason) from None
        return True

    def close(self) -> None:
        """Cancel open requests and close the connections."""
        self.client.close()


def _wait_for_result(finished: SimpleQueue[T], on_idle: Callable[[], None]) -> T:
    while True:
        try:
            return finished.get(timeout=IDLE_CALL_S)
        except Empty:
            on_idle()
