"""The client of OpenAI-compatible servers, for openai_engine.py and the judge, a grading model.

`ServerClient` sends each request once; its callers retry. `CircuitBreaker` holds all requests back
while the server requires a pause or is away. Coroutines run on an event loop in a thread of the
client, so that a timeout bounds a whole request and no open request needs its own thread.
"""

import asyncio
import json
import logging
import math
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from threading import Thread
from typing import Any, TypeVar

import httpx
import openai

from difftrain.config.model import addresses

T = TypeVar("T")
logger = logging.getLogger(__name__)
for _name in ("openai", "httpx", "httpcore"):  # They log the server's address.
    logging.getLogger(_name).setLevel(logging.WARNING)

MAX_RESPONSE_BYTES = 8 << 20  # a larger response is no chat completion
MAX_MESSAGE_CHARS = 300  # of a server's error message
CONNECT_TIMEOUT_S = MODELS_TIMEOUT_S = 10.0
FIRST_PAUSE_S = 2.0  # how long one of several servers is left out at first; doubles every time
MAX_BACKOFF_S = 30.0  # before a retry, or before the next check of a server that is away
TRANSIENT_STATUSES = (408, 409, 425)  # with 429, the 4xx after which a retry can succeed
GATEWAY_STATUSES = (502, 503, 504)  # a gateway's answers while no server runs behind it


class Fault(StrEnum):
    """Why a request got no completion. Every fault is counted, even if a retry succeeds."""

    limited = "limited"  # 429: too many requests
    server = "server"  # 5xx, 408, 409 or 425: the server failed, not the request
    lost = "lost"  # no connection, or one that broke
    slow = "slow"  # not complete within the timeout
    malformed = "malformed"  # not a chat completion
    empty = "empty"  # a completion without text
    refused = "refused"  # another 4xx: this prompt is not accepted (too long, blocked)
    over_budget = "over_budget"  # not sent: the judge's call limit is reached
    outage = "outage"  # not sent: too many of the judge's calls in a row failed


@dataclass(eq=False)
class RequestError(Exception):
    """A request got no completion."""

    fault: Fault
    message: str = ""
    retry_after: float | None = None  # the pause in seconds that the server requests
    permanent: bool = False  # the same request would fail again
    fatal: bool = False  # all other requests would fail too

    def __post_init__(self) -> None:
        self.permanent |= self.fatal
        self.message = printable(self.message or f"no reply ({self.fault.value})")

    @property
    def is_refusal(self) -> bool:
        """Whether the server refused this request and may complete others."""
        return self.fault is Fault.refused and not self.fatal


class ServerUnavailable(OSError):
    """The server was away for longer than the settings allow, or rejects every request."""


@dataclass(eq=False, slots=True)
class Replica:
    """One of the servers that share a client's requests."""

    url: str
    openai: openai.AsyncOpenAI
    num_open: int = 0  # requests without a response
    num_sent: int = 0
    retry_at: float = 0.0  # a time.monotonic(); until then, it is left out
    pause: float = 0.0  # how long it was left out last; 0: it works


class ServerClient:
    """An OpenAI client with an event loop of its own; safe to use from several threads.

    `url` has one address, or several of servers that run the same model. Each request goes to the
    server with the fewest open requests. A server that is down or fails is left out, and gets one
    request after a pause to see whether it is back; no request fails because one server is down.

    `fatal_statuses` has a message for each status after which every request would fail. The key,
    and with `hide_url` the address, are removed from all messages.
    """

    def __init__(
        self,
        url: str,
        api_key: str,
        timeout_s: float,
        fatal_statuses: Mapping[int, str],
        hide_url: bool = False,
    ) -> None:
        urls, api_key = addresses(url), api_key.strip()
        self.url = " ".join(urls)
        self.timeout_s, self._fatal_statuses = timeout_s, fatal_statuses
        self._secrets = list(filter(None, (api_key, self.url if hide_url else "")))
        # Once true, a 404 or 405 is a router's transient failure and no sign of a wrong address.
        self.has_completed = False
        self._headers: dict[str, Any] = {} if api_key else {"Authorization": openai.Omit()}
        self.replicas = [Replica(address, self._open(address, api_key)) for address in urls]
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def _open(self, url: str, api_key: str) -> openai.AsyncOpenAI:
        client = openai.AsyncOpenAI(
            base_url=url,
            api_key=api_key or "none",  # the library requires one
            timeout=openai.Timeout(self.timeout_s, connect=min(self.timeout_s, CONNECT_TIMEOUT_S)),
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(follow_redirects=False),
        )
        # The library reads OPENAI_* variables. They are for another server, so none is sent.
        client.organization = client.project = None
        client._custom_headers = {}
        return client

    async def complete(self, body: Mapping[str, Any], parse: Callable[[dict[str, Any]], T]) -> T:
        """One chat completion, parsed by `parse`. Raises RequestError, without secrets."""
        try:
            return parse(await self._post_to_any(body))
        except RequestError as error:
            for secret in self._secrets:
                error.message = error.message.replace(secret, "...")
            error.message = error.message[:MAX_MESSAGE_CHARS]
            raise

    def _next_replica(self) -> Replica:
        """The server for the next request; one that is left out only if all are."""
        now = time.monotonic()
        working = [item for item in self.replicas if not item.pause]
        # One request at a time shows whether a server is back.
        tested = [item for item in self.replicas if item.pause and item.retry_at <= now]
        if working and (free := [item for item in tested if not item.num_open]):
            return free[0]
        if working:
            return min(working, key=lambda item: (item.num_open, item.num_sent))
        return min(self.replicas, key=lambda item: item.retry_at)

    async def _post_to_any(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Post to one of the servers; to the next, if the connection to this one is lost."""
        while True:
            replica = self._next_replica()
            replica.num_open += 1
            replica.num_sent += 1
            try:
                response = await self._post(replica, body)
            except RequestError as error:
                if error.fault not in (Fault.lost, Fault.server):
                    raise
                self._leave_out(replica, error.message)
                others_work = any(not item.pause for item in self.replicas if item is not replica)
                if error.fault is Fault.server or not others_work:
                    raise
            else:
                self._take_back(replica)
                return response
            finally:
                replica.num_open -= 1

    def _leave_out(self, replica: Replica, reason: str) -> None:
        if len(self.replicas) == 1:
            return
        if not replica.pause:
            logger.warning(
                "model.url=%s does not work (%s): the other servers get its requests",
                replica.url,
                reason,
            )
        if time.monotonic() >= replica.retry_at:  # not once for each of its open requests
            replica.pause = min(MAX_BACKOFF_S, 2 * replica.pause or FIRST_PAUSE_S)
            replica.retry_at = time.monotonic() + replica.pause

    def _take_back(self, replica: Replica) -> None:
        if replica.pause and time.monotonic() >= replica.retry_at:
            logger.warning("model.url=%s works again", replica.url)
            replica.pause = replica.retry_at = 0.0

    async def _post(self, replica: Replica, body: Mapping[str, Any]) -> dict[str, Any]:
        completions = replica.openai.chat.completions.with_raw_response
        try:
            async with asyncio.timeout(self.timeout_s):
                # The body is all in extra_body: the client would copy and check long messages.
                extra: Any = {"extra_body": dict(body), "extra_headers": self._headers}
                response = await completions.create(model=body["model"], messages=[], **extra)
        except (TimeoutError, openai.APITimeoutError) as error:
            has_no_connection = isinstance(error.__cause__, httpx.ConnectTimeout)
            raise RequestError(Fault.lost if has_no_connection else Fault.slow) from None
        except openai.APIStatusError as error:
            raise self._status_error(error) from None
        except openai.APIConnectionError:
            raise RequestError(Fault.lost) from None
        except UnicodeEncodeError:
            message = "the prompt contains half a surrogate pair, which is no text"
            raise RequestError(Fault.refused, message, permanent=True) from None
        if response.status_code != 200:
            raise RequestError(Fault.malformed, f"the server answers {response.status_code}")
        with suppress(ValueError, RecursionError):
            match completion := json.loads(response.content[: MAX_RESPONSE_BYTES + 1]):
                case {"choices": list()}:
                    return completion
        raise RequestError(Fault.malformed, "the server's response is no chat completion")

    def _status_error(self, error: openai.APIStatusError) -> RequestError:
        status, code, message = error.status_code, None, f"the server answers {error.status_code}"
        match error.body:
            case {"message": str(detail), **rest} | {"detail": str(detail), **rest}:
                code = rest.get("code")
                message += f": {' '.join(detail.split())}" if detail else ""
        retry_after = parse_retry_after(error.response.headers.get("retry-after"))
        if status == 429 and code == "insufficient_quota":
            return RequestError(Fault.limited, f"{message} (insufficient_quota)", fatal=True)
        if status == 429:
            return RequestError(Fault.limited, message, retry_after=retry_after)
        if status in (404, 405) and self.has_completed:
            return RequestError(Fault.server, f"{message}, which it did not before")
        if status >= 500 or status in TRANSIENT_STATUSES:
            return RequestError(Fault.server, message, retry_after=retry_after)
        if status < 400:
            return RequestError(Fault.refused, f"{message}, a redirect", fatal=True)
        if status in self._fatal_statuses:
            return RequestError(Fault.refused, self._fatal_statuses[status], fatal=True)
        return RequestError(Fault.refused, message, permanent=True)

    async def models_status(self, timeout_s: float = MODELS_TIMEOUT_S) -> int:
        """HTTP status of the list of models. Raises RequestError if no server answers.

        Of several servers, the status of one that is reachable, if any.
        """
        requests = (self._models_status(replica, timeout_s) for replica in self.replicas)
        results = await asyncio.gather(*requests, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, RequestError):
                raise result
        statuses = [result for result in results if isinstance(result, int)]
        for status in sorted(statuses, key=lambda status: status in GATEWAY_STATUSES):
            return status
        raise next(result for result in results if isinstance(result, RequestError))

    async def _models_status(self, replica: Replica, timeout_s: float) -> int:
        try:
            async with asyncio.timeout(timeout_s):
                models = replica.openai.models.with_raw_response
                response = await models.list(extra_headers=self._headers, timeout=timeout_s)
                return response.status_code
        except openai.APIStatusError as error:
            return error.status_code
        except (TimeoutError, openai.APITimeoutError):
            raise RequestError(Fault.slow, f"no answer within {timeout_s:.0f} s") from None
        except openai.APIConnectionError as error:
            raise RequestError(Fault.lost, str(error.__cause__ or error)) from None

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine on the client's event loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine on the client's event loop."""
        return self.submit(coroutine).result()

    def close(self) -> None:
        """Cancel everything that is running and close the connections."""
        if self._loop.is_closed():
            return

        async def cancel_all() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for replica in self.replicas:
                await replica.openai.close()
            await self._loop.shutdown_default_executor()

        self.run(cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class CircuitBreaker:
    """Holds back all requests while their server is away; use it on the client's event loop only.

    After a failed request, the breaker gets the list of models. If that fails too, the server is
    away, and no request is sent until the list arrives. All times are time.monotonic().
    """

    def __init__(self, client: ServerClient, max_outage_s: float = 0, backoff_s: float = 1) -> None:
        self._client = client
        self._max_outage_s, self._backoff_s = max_outage_s, max(backoff_s, 0.01)
        self._lock = asyncio.Lock()
        self._reachable, self._tripped = asyncio.Event(), asyncio.Event()
        self._reachable.set()
        # Times of the last outage, healthy check and recovery, and the end of the last pause.
        self.last_outage = self._last_healthy = self._last_recovered = self._resume_at = 0.0
        self.error: str | None = None  # why no further request is sent

    def trip(self, reason: str) -> ServerUnavailable:
        """Stop all further requests; returns the error to raise."""
        self.error = self.error or reason
        self._tripped.set()
        return ServerUnavailable(self.error)

    def check(self) -> None:
        """Raises ServerUnavailable once the breaker has tripped."""
        if self.error is not None:
            raise ServerUnavailable(self.error)

    async def sleep(self, seconds: float) -> None:
        """Sleep, but no longer than until the breaker trips."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._tripped.wait()

    def pause(self, seconds: float) -> None:
        """Hold back every request for `seconds` from now."""
        self._resume_at = max(self._resume_at, time.monotonic() + seconds)

    async def wait(self) -> None:
        """Wait while the server is away or paused. Raises ServerUnavailable once tripped."""
        while True:
            await self._reachable.wait()
            self.check()
            remaining = self._resume_at - time.monotonic()
            if remaining <= 0:
                return
            await self.sleep(remaining)

    async def was_reachable_since(self, sent_at: float) -> bool:
        """Whether the server was reachable all the time since a failed request was sent.

        Waits until a server that is away is back. Raises ServerUnavailable after max_outage_s.
        """
        failed_at = time.monotonic()
        async with self._lock:
            self.check()
            if self._last_recovered > sent_at:
                return False
            if self._last_healthy > failed_at:
                return True
            reason = await self._outage_reason()
            if reason:
                self.last_outage = failed_at
                self._reachable.clear()
                try:
                    await self._wait_for_recovery(reason)
                finally:
                    self._reachable.set()
                self._last_recovered = time.monotonic()
            self._last_healthy = time.monotonic()
            return not reason

    async def _outage_reason(self) -> str | None:
        # A missing (404) or broken (500) list of models comes from a server that is reachable. In
        # `transformers serve` without a hub cache, the list is broken.
        try:
            status = await self._client.models_status()
        except RequestError as error:
            return error.message
        return f"its list of models answers {status}" if status in GATEWAY_STATUSES else None

    async def _wait_for_recovery(self, reason: str | None) -> None:
        server = f"model.url={self._client.url}"
        began, pause = time.monotonic(), self._backoff_s
        while reason:
            away = time.monotonic() - began
            if away >= self._max_outage_s:
                message = f"{server} has been away for {away:.0f} s ({reason})"
                raise self.trip(f"{message}; model.server.max_outage_s allows no more")
            remaining = self._max_outage_s - away
            pause = min(pause, MAX_BACKOFF_S, max(0.01, remaining))
            plan = f"waiting for up to {remaining:.0f} s more, next check in {pause:.1f} s"
            logger.warning(f"{server} does not answer ({reason}), for {away:.0f} s now; {plan}")
            await self.sleep(pause)
            self.check()
            pause *= 2
            reason = await self._outage_reason()
        logger.warning(f"{server} is back after {time.monotonic() - began:.0f} s")


def message_text(message: Mapping[str, Any]) -> str | None:
    """The joined text of a chat message, or None. Raises RequestError if it is not text."""
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    if content is not None and not isinstance(content, str):
        raise RequestError(Fault.malformed, "the server's response is no text")
    return content


def printable(text: str) -> str:
    """The text with lone surrogates, which UTF-8 cannot encode, replaced by `?`."""
    return text.encode("utf-8", "replace").decode()


def parse_retry_after(header: str | None) -> float | None:
    """The seconds to wait by a Retry-After header, a number or a date; None if unreadable."""
    wait = math.nan
    with suppress(ValueError, OverflowError):
        wait = parsedate_to_datetime(header or "").timestamp() - time.time()
    with suppress(ValueError):
        wait = float(header or "")
    return max(0.0, wait) if math.isfinite(wait) else None
