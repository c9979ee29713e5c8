"""The first words with a server, before anything is asked of it in earnest.

Found out, not believed: is it there and may we ask; does it take the fields that switch its own
sampling defaults off; does a picture arrive, and in full; are seeds honoured when many ask at once.
The last is what an artifact may claim of its draws.
"""

import json
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from PIL import Image

from difftrain.config.data import TOKEN_PIXELS
from difftrain.config.model import ModelConfig
from difftrain.config.run_config import ConfigError
from difftrain.model.engines import chat, wire
from difftrain.model.engines.gate import AWAY, LONGEST_PAUSE, Gate, say
from difftrain.model.engines.http import Connection, Server
from difftrain.model.engines.types import Completion, Request
from difftrain.model.engines.wire import Fault, NoReply

GREET_SECONDS = 5.0
PLAIN = {"top_p": 1.0, "repetition_penalty": 1.0, "min_p": 0.0}
DIALECTS: dict[str, Mapping[str, Any]] = {
    "top_k=-1": {**PLAIN, "top_k": -1},
    "top_k=0": {**PLAIN, "top_k": 0},
    "generation_config": {
        "generation_config": json.dumps(
            {"do_sample": True, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0}
        )
    },
    "none": {},
}
"""Ways to say "sample the model's own distribution", tried in turn: vLLM and SGLang take the first,
LMDeploy the second, transformers serve the third. Under `none` the server's own defaults apply."""
WORDS = "Write a list of random words, each one unlike the others."
TRIAL_TOKENS = 16
SAME, OTHERS = 4, 4
"""Requests with one seed, and with seeds of their own, all open at once."""
HOTTEST = 1.5
SIDE = 28


class Untried(ConfigError):
    """A request of the trial brought no answer; `last` says why."""

    def __init__(self, asked: Connection, last: NoReply) -> None:
        told = f"model.url={asked.url}: a request for the model {asked.model}: {last.words}"
        super().__init__([told])
        self.last = last


def connection(config: ModelConfig) -> Connection:
    """The server that the settings name, nothing sent yet."""
    assert config.url is not None
    key = os.environ.get(config.server.api_key_env, "")
    return Connection(config.url, config.served, key, config.server)


def greet(config: ModelConfig) -> None:
    """Raises ConfigError, within seconds, if nobody is there or we are turned away."""
    asked = connection(config)
    try:
        got = asked.looking.get(f"{asked.url}/models", timeout=GREET_SECONDS)
    except httpx.HTTPError as error:
        why = str(error) or type(error).__name__
        raise ConfigError([f"model.url={asked.url}: no server answers there ({why})"]) from None
    finally:
        asked.close()
    if got.status_code in (401, 403):
        raise ConfigError(
            [
                f"model.server.api_key_env={config.server.api_key_env}: the server at {asked.url} "
                f"turns that key away ({got.status_code})"
            ]
        )
    if got.status_code in AWAY:
        raise ConfigError([f"model.url={asked.url}: the server answers {got.status_code}"])


def server(config: ModelConfig, max_pixels: int) -> Server:
    """The engine, once the server has shown what it does. Raises ConfigError if it cannot serve.

    `max_pixels` is the area of the largest picture that it will be sent.
    """
    greet(config)
    asked = connection(config)
    dialect = agree(asked)
    about = {
        "engine": "http",
        "served": asked.model,
        "sampling": dialect,
        "seeds": seeds(asked, config.server.max_concurrency),
        **pictures(asked, max_pixels),
    }
    asked.known = True
    gate = Gate(
        asked.looking,
        asked.url,
        config.server.max_outage_s,
        config.server.backoff_s,
    )
    return Server(asked, about, gate)


def question(seed: int, *pictures: Image.Image, temperature: float = HOTTEST) -> Request:
    """A request of the trial."""
    return Request(
        parts=(*pictures, WORDS),
        system=None,
        seed=seed,
        temperature=temperature,
        max_new_tokens=TRIAL_TOKENS,
    )


def said(asked: Connection, request: Request) -> tuple[Completion, int | None]:
    """An answer and the tokens of its prompt, if the server counts them. Raises NoReply."""
    content = asked.content(asked.body(request))
    completion = wire.loaded(content)
    return chat.answer(content), chat.used(completion, "prompt_tokens")


def tried(asked: Connection, request: Request) -> tuple[Completion, int | None]:
    """The same, a failure asked again as often as any, after a pause. Raises Untried."""
    tries = 1
    while True:
        try:
            return said(asked, request)
        except NoReply as missed:
            if missed.final or tries >= asked.config.max_attempts:
                raise Untried(asked, missed) from None
            pause = asked.config.backoff_s * 2 ** (tries - 1)
            time.sleep(min(LONGEST_PAUSE, pause if missed.wait is None else missed.wait))
        tries += 1


def agree(asked: Connection) -> str:
    """Find the dialect that the server takes and speak it from now on; its name.

    Raises Untried if it takes none, or fails for another reason than that it refuses.
    """
    own, last = dict(asked.extra), None
    for name, fields in DIALECTS.items():
        asked.extra = {**fields, **own}
        try:
            tried(asked, question(1))
        except Untried as error:
            if error.last.hopeless or error.last.kind is not Fault.refused:
                raise
            last = error
        else:
            if name == "none":
                say(f"model.url={asked.url}: the server's own sampling defaults apply to answers")
            return name
    assert last is not None
    raise last


def seeds(asked: Connection, concurrency: int) -> str:
    """`honoured` if one seed gives one text, asked as many times as at once, else `ignored`.

    Raises ConfigError if all seeds give the same text: a server that does not sample would make
    all draws of a sample copies of one another.
    """
    wanted = [question(1)] * SAME + [question(2 + number) for number in range(OTHERS)]
    with ThreadPoolExecutor(min(concurrency, len(wanted))) as pool:
        texts = [answer.text for answer, _ in pool.map(lambda each: tried(asked, each), wanted)]
    if len(set(texts)) == 1:
        raise ConfigError(
            [
                f"model.url={asked.url}: {OTHERS + 1} seeds at temperature {HOTTEST} give the very "
                "same words, so the server does not sample; draws would be copies of one another"
            ]
        )
    if len(set(texts[:SAME])) == 1:
        return "honoured"
    say(f"model.url={asked.url}: the server does not honour seeds; draws cannot be made again")
    return "ignored"


def largest(asked: Connection, max_pixels: int) -> tuple[int, int | None, dict[str, Any]]:
    """Side of the largest picture that the server takes, the prompt's tokens with it, and the
    refusal of a larger one, if there was one.

    Tried first at `max_pixels`, then at half the side each time. Raises Untried if it takes none.
    """
    side, refusal = max(1, int(max_pixels**0.5) // SIDE) * SIDE, {}
    while True:
        shown = Image.linear_gradient("L").resize((side, side)).convert("RGB")
        try:
            _, tokens = tried(asked, question(1, shown))
        except Untried as error:
            if error.last.hopeless or error.last.kind is not Fault.refused or side == SIDE:
                raise
            refusal = refusal or {"side": side, "reason": error.last.words}
            side = max(1, side // 2 // SIDE) * SIDE
        else:
            return side, tokens, refusal


def pictures(asked: Connection, max_pixels: int) -> dict[str, Any]:
    """How many prompt tokens a picture of the largest size adds, and how many it should; the side
    of a larger one that the server refused, which is told with the reason.

    Raises ConfigError if it adds none: the picture does not reach the model. No tokens where the
    server does not count.
    """
    _, without = tried(asked, question(1))
    side, shown_with, refusal = largest(asked, max_pixels)
    found = {"picture_refused": refusal["side"]} if refusal else {}
    if refusal:
        say(
            f"model.url={asked.url}: a picture of {refusal['side']} x {refusal['side']} is refused "
            f"({refusal['reason']}), one of {side} x {side} is not: what shows larger ones may "
            "stay without an answer; raise the server's limit or lower the settings' max_pixels"
        )
    if without is None or shown_with is None:
        return found
    added, wanted = shown_with - without, side * side // TOKEN_PIXELS
    if added <= 0:
        raise ConfigError(
            [f"model.url={asked.url}: a picture adds no token to the prompt; it is not looked at"]
        )
    if added < wanted:
        say(
            f"model.url={asked.url}: a picture of {side} x {side} adds {added} tokens where the "
            f"data layer counts {wanted}: the server makes pictures smaller; raise its limit or "
            "lower data.max_pixels"
        )
    return found | {"picture_tokens": {"side": side, "server": added, "expected": wanted}}
