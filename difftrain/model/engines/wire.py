"""One request to an OpenAI-compatible server and what its answer says; nothing is asked twice.

Shared by the engine (http.py) and by the judge of the benchmarks.
"""

import json
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any

import httpx

MOST_BYTES = 8 << 20
"""An answer larger than this is no answer."""
CONNECT_SECONDS = 10.0
"""Longest wait for a connection."""
AGAIN = (408, 409, 425)
"""Of the 4xx, those that a second request may mend (besides 429)."""


class Fault(StrEnum):
    """Why a request brought no reply. Each is counted, the ones that a retry mended too."""

    limited = "limited"
    """429: too many requests."""
    server = "server"
    """5xx, 408 and 409: the server's trouble, not the request's."""
    lost = "lost"
    """No connection, or one that broke."""
    slow = "slow"
    """Not whole within the time-out."""
    malformed = "malformed"
    """Something that is no chat completion."""
    empty = "empty"
    """A reply without text."""
    refused = "refused"
    """Another 4xx: this prompt is not accepted (too long, blocked)."""
    over_budget = "over_budget"
    """Not sent: the budget of calls is spent."""
    outage = "outage"
    """Not sent: too many calls in a row have failed."""


class NoReply(Exception):
    """A request brought no reply. `wait` is the pause that the server wants, in seconds.

    `final`: the same request would fail again. `hopeless`: every other request would, too.
    """

    def __init__(
        self,
        kind: Fault,
        words: str | None = None,
        *,
        wait: float | None = None,
        final: bool = False,
        hopeless: bool = False,
    ) -> None:
        self.kind, self.wait = kind, wait
        self.final, self.hopeless = final or hopeless, hopeless
        self.words = plain(words or f"no reply ({kind.value})")
        super().__init__(self.words)


def plain(words: str) -> str:
    """The words as they can be written to any file: halves of characters become `?`."""
    return words.encode("utf-8", "replace").decode()


def client(key: str, timeout: float, connections: int) -> httpx.Client:
    """A client that follows no redirection and sends the key, if there is one."""
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    limits = httpx.Limits(max_connections=connections)
    return httpx.Client(headers=headers, timeout=timeout, limits=limits, follow_redirects=False)


def post(
    asked: httpx.Client, url: str, body: bytes, timeout: float
) -> tuple[int, bytes, str | None]:
    """Status, content and Retry-After of one answer. Raises NoReply where it does not come whole.

    `timeout` in seconds is from the request to the answer's last byte.
    """
    until = time.monotonic() + timeout
    content = bytearray()
    limits = httpx.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS))
    try:
        with asked.stream("POST", url, content=body, timeout=limits) as got:
            for piece in got.iter_bytes():
                content += piece
                if time.monotonic() > until:
                    raise NoReply(Fault.slow)
                if len(content) > MOST_BYTES:
                    raise NoReply(Fault.malformed)
            return got.status_code, bytes(content), got.headers.get("retry-after")
    except httpx.TimeoutException:
        raise NoReply(Fault.slow) from None
    except httpx.DecodingError:
        raise NoReply(Fault.malformed) from None
    except (httpx.HTTPError, OSError):
        raise NoReply(Fault.lost) from None


def check(
    status: int, content: bytes, retry_after: str | None, turned_away: Mapping[int, str]
) -> None:
    """Raises NoReply for any status but 200.

    `turned_away` has the words for statuses after which no other request would fare better.
    """
    if status == 200:
        return
    code, message = trouble(content)
    words = f"the server answers {status}" + (f": {message}" if message else "")
    if status == 429:
        if code == "insufficient_quota":
            raise NoReply(Fault.limited, f"{words} (insufficient_quota)", hopeless=True)
        raise NoReply(Fault.limited, words, wait=seconds(retry_after))
    if status >= 500 or status in AGAIN:
        raise NoReply(Fault.server, words, wait=seconds(retry_after))
    if 300 <= status < 400:
        raise NoReply(Fault.refused, f"the server answers {status}, a redirection", hopeless=True)
    if status in turned_away:
        raise NoReply(Fault.refused, turned_away[status], hopeless=True)
    if 200 <= status < 300:
        raise NoReply(Fault.malformed, words)
    raise NoReply(Fault.refused, words, final=True)


def loaded(content: bytes) -> Any:
    """The JSON in an answer, or None if it is none."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def trouble(content: bytes) -> tuple[str | None, str]:
    """Code and message of an error in OpenAI's form or vLLM's old one; else (None, "")."""
    match loaded(content):
        case {"error": {"message": str(message), **rest}}:
            code = rest.get("code")
            return code if isinstance(code, str) else None, " ".join(message.split())
        case {"object": "error", "message": str(message)} | {"detail": str(message)}:
            return None, " ".join(message.split())
    return None, ""


def joined(words: Any) -> Any:
    """A message's content as one text where it came in parts."""
    if isinstance(words, list):
        return "".join(str(each.get("text", "")) for each in words if isinstance(each, dict))
    return words


def seconds(retry_after: str | None) -> float | None:
    """A Retry-After header, in seconds from now: a number, or a date."""
    if not retry_after:
        return None
    try:
        wait = float(retry_after)
    except ValueError:
        try:
            wait = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, wait) if wait == wait and wait != float("inf") else None
