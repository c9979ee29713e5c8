"""What goes to the judge's server and what its answer says. Pure; nothing is sent here."""

import json

from difftrain.model.engines import wire
from difftrain.model.engines.wire import Fault, NoReply, seconds

__all__ = ["NoReply", "body", "read", "said", "seconds"]

TURNED_AWAY = {
    401: "the server answers 401: is JUDGE_API_KEY right?",
    402: "the server answers 402: the account cannot pay",
    403: "the server answers 403: the key may not ask this model",
    404: "the server answers 404: are JUDGE_BASE_URL and JUDGE_MODEL right?",
    405: "the server answers 405: is JUDGE_BASE_URL right?",
}
"""Statuses after which no call of this run would fare better."""


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
    wire.check(status, content, retry_after, TURNED_AWAY)
    return said(content)


def said(content: bytes) -> str:
    """The text of the first choice. Raises NoReply if there is no choice or no text in it."""
    match wire.loaded(content):
        case {"choices": [{"message": {"content": words}} as choice, *_]}:
            pass
        case {"choices": [{"message": dict()} as choice, *_]}:
            words = None
        case _:
            raise NoReply(Fault.malformed, "the server's answer is no chat completion")
    words = wire.joined(words)
    if isinstance(words, str) and words.strip():
        return words.strip()
    if words is not None and not isinstance(words, str):
        raise NoReply(Fault.malformed, "the server's answer is no text")
    reason = choice.get("finish_reason")
    told = f"an empty reply (finish_reason {reason})"
    # Cut off or filtered: it would be so again.
    raise NoReply(Fault.empty, told, final=reason in ("length", "content_filter"))
