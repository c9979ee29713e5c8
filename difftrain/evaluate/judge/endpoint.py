"""One chat completion from an OpenAI-compatible server, asked again where that can help.

Address and key come from the environment and appear in no message, file or log.
Not here: what is asked (judge.py) and which replies are kept (cache.py).
"""

import logging
import os
import time
from threading import Event, Lock

import httpx

from difftrain.config.judge import KEY, MODEL, URL, JudgeClientConfig
from difftrain.config.run_config import ConfigError
from difftrain.evaluate.judge import chat
from difftrain.evaluate.judge.usage import Tally
from difftrain.evaluate.types import JudgeDown
from difftrain.model.engines import wire
from difftrain.model.engines.wire import Fault, NoReply

LONGEST_WAIT = 120.0
"""Seconds; a server that wants a longer pause is taken to be out for this run."""
SHOWN = 300
"""Characters of a server's own words that are repeated."""
OUTAGE = 24
"""Calls that fail in a row before the server is taken to be out for this run."""
OUT = {Fault.limited, Fault.server, Fault.lost, Fault.slow, Fault.malformed}
"""What counts towards an outage; an empty reply is an answer of a sort, and so is a refusal by a
server that has replied to other prompts."""

for _name in ("httpx", "httpcore"):  # They log addresses.
    logging.getLogger(_name).setLevel(logging.WARNING)


class Endpoint:
    """The server that the environment names; safe to use from several threads."""

    def __init__(self, config: JudgeClientConfig, tally: Tally) -> None:
        self.model = os.environ[MODEL].strip()
        self._url = os.environ[URL].strip().rstrip("/")
        self._key = os.environ.get(KEY, "").strip()
        self._config, self._tally = config, tally
        self._client = wire.client(self._key, config.timeout_s, config.max_concurrency)
        self._lock, self._stopped = Lock(), Event()
        self._open_at, self._failed_in_a_row, self._answered = 0.0, 0, False
        self.out: str | None = None
        """Why nothing more is asked in this run, or None."""

    def check_key(self) -> None:
        """Raises ConfigError if the server turns the key away; costs no call.

        A server that cannot be reached, or has no list of models, passes.
        """
        try:
            status = self._client.get(f"{self._url}/models").status_code
        except httpx.HTTPError:
            return
        if status in (401, 403):
            raise ConfigError([f"evaluate.judge=endpoint: the server turns {KEY} away ({status})"])

    def reply(self, prompt: str, temperature: float, max_tokens: int) -> str:
        """The judge's words, stripped. Raises JudgeDown if there are none to be had."""
        body = chat.body(self.model, prompt, temperature, max_tokens)
        attempts = self._config.max_attempts
        for left in reversed(range(attempts)):
            self._pass_the_gate()
            if not self._tally.take_call(self._config.max_calls):
                self._tally.fault(Fault.over_budget)
                raise JudgeDown(f"the budget of {self._config.max_calls} calls is spent")
            try:
                found = self._post(body)
            except NoReply as missed:
                self._tally.fault(missed.kind, self._clean(missed.words))
                self._note(missed)
                if missed.final or not left:
                    raise self._down(missed) from None
                pause = self._config.backoff_s * 2 ** (attempts - left - 1)
                self._stopped.wait(min(LONGEST_WAIT, pause))
            else:
                with self._lock:
                    self._failed_in_a_row, self._answered = 0, True
                return found
        raise AssertionError("unreachable")

    def _post(self, body: bytes) -> str:
        """One request. Raises NoReply with what went wrong."""
        url, timeout = f"{self._url}/chat/completions", self._config.timeout_s
        return chat.read(*wire.post(self._client, url, body, timeout))

    def _note(self, missed: NoReply) -> None:
        """Remember what concerns every thread: a wanted pause, a server that is out."""
        wait = missed.wait or 0.0
        with self._lock:
            self._open_at = max(self._open_at, time.monotonic() + min(wait, LONGEST_WAIT))
            if missed.hopeless and not self._answered:
                self.out = self._clean(missed.words)
            elif wait > LONGEST_WAIT:
                self.out = f"the server asks to wait for {wait:.0f} s"

    def _down(self, missed: NoReply) -> JudgeDown:
        words = self._clean(missed.words)
        cached = self._tally.counted("from_cache")
        with self._lock:
            refused = missed.kind is Fault.refused and not self._answered and not cached
            self._failed_in_a_row += missed.kind in OUT or refused
            if self._failed_in_a_row >= OUTAGE and self.out is None:
                self.out = f"{OUTAGE} calls in a row have failed, the last one: {words}"
        return JudgeDown(words)

    def _clean(self, words: str) -> str:
        """The words without key and address, should the server have repeated them."""
        for secret in (self._key, self._url):
            words = words.replace(secret, "...") if secret else words
        return words[:SHOWN]

    def _pass_the_gate(self) -> None:
        """Wait until requests are welcome again. Raises JudgeDown if that is not in this run."""
        while not self._stopped.is_set() and self.out is None:
            left = self._open_at - time.monotonic()
            if left <= 0:
                return
            self._stopped.wait(left)
        if self.out is not None:
            self._tally.fault(Fault.outage)
        raise JudgeDown(self.out or "stopped")

    def stop(self) -> None:
        """Wake whoever waits and refuse all further calls."""
        self._stopped.set()

    def close(self) -> None:
        """Stop, and close the connections."""
        self.stop()
        self._client.close()
