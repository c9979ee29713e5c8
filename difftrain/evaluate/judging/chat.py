"""What goes to an OpenAI-compatible server and what its answer says. Pure; nothing is sent here."""

import json
import time
from email.utils import parsedate_to_datetime
from typing import Any

from difftrain.evaluate.judging.tally import Fault

TURNED_AWAY = {
    401: "the server answers 401: is JUDGE_API_KEY right?",
    402: "the server answers 402: the account cannot pay",
    403: "the server answers 403: the key may not ask this model",
    404: "the server answers 404: are JUDGE_BASE_URL and JUDGE_MODEL right?",
    405: "the server answers 405: is JUDGE_BASE_URL right?",
}
"""Statuses after which no call of this run would fare better."""
AGAIN = (408, 409, 425)
"""Of the 4xx, those that a second request may mend (besides 429)."""


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
        self.words = words or f"no reply ({kind.value})"
        super().__init__(self.words)


def body(model: str, prompt: str, temperature: float, max_tokens: int) -> bytes:
    """The request: one user message and no system prompt, as the reference harness sends it."""
    content = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "temperature": temperature,
        "max_tokens": max_tokens,
    }
    return json.dumps(content).encode()


def read(status: int, content: bytes, retry_after: str | None) -> str:
    """The reply in an answer, stripped. Raises NoReply where there is none."""
    if status == 200:
        return said(content)
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
    if status in TURNED_AWAY:
        raise NoReply(Fault.refused, TURNED_AWAY[status], hopeless=True)
    if 200 <= status < 300:
        raise NoReply(Fault.malformed, words)
    raise NoReply(Fault.refused, words, final=True)


def loaded(content: bytes) -> Any:
    """The JSON in an answer, or None if it is none."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def said(content: bytes) -> str:
    """The text of the first choice. Raises NoReply if there is no choice or no text in it."""
    match loaded(content):
        case {"choices": [{"message": {"content": words}} as choice, *_]}:
            pass
        case {"choices": [{"message": dict()} as choice, *_]}:
            words = None
        case _:
            raise NoReply(Fault.malformed, "the server's answer is no chat completion")
    if isinstance(words, list):
        words = "".join(str(each.get("text", "")) for each in words if isinstance(each, dict))
    if isinstance(words, str) and words.strip():
        return words.strip()
    if words is not None and not isinstance(words, str):
        raise NoReply(Fault.malformed, "the server's answer is no text")
    reason = choice.get("finish_reason")
    told = f"an empty reply (finish_reason {reason})"
    # Cut off or filtered: it would be so again.
    raise NoReply(Fault.empty, told, final=reason in ("length", "content_filter"))


def trouble(content: bytes) -> tuple[str | None, str]:
    """Code and message of an error in OpenAI's form; (None, "") where it has another form."""
    match loaded(content):
        case {"error": {"message": str(message), **rest}}:
            code = rest.get("code")
            return code if isinstance(code, str) else None, " ".join(message.split())
    return None, ""


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
