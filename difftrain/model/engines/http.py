"""Answers from a server that speaks OpenAI's chat completions: vLLM, SGLang, LMDeploy and others.

Each draw is a request of its own, because each has a seed of its own. A failure that the server
outlives counts against the request: after `attempts` of them its sample is set aside with the last
one's reason. While the server is away or busy nothing counts, and everybody waits (gate.py), unless
it is this one request that is turned away while others are answered.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any

from PIL import Image

from difftrain.config.engine import ServerConfig
from difftrain.model.engines import chat, wire
from difftrain.model.engines.gate import Gate, ServerGone
from difftrain.model.engines.types import Completion, GenerationError, K, Request, Result
from difftrain.model.engines.vain import InARow, Refused, Vain
from difftrain.model.engines.wire import Fault, NoReply

THE_SERVERS = (Fault.server, Fault.lost, Fault.slow)
"""Faults that may mean that the server is away."""
ALIVE_SECONDS = 5.0
STRIKES_BEFORE_ALONE = 2
"""A request that was open so often when the server went down is asked while no other such one is:
should one of them be what kills the server, it does not take the others along."""
PASSED_OVER = 4
"""A request is turned away for its own sake once the others had so many times `attempts` answers
for each place among the open ones: a server that takes few at a time has served it by then."""
SQUARE = Image.new("RGB", (56, 56))
PLAINEST = Request(parts=(SQUARE, "Say yes."), system=None, max_new_tokens=4)
"""What a server answers that is well, and not too busy for everybody."""
SHOWN = 300
"""Characters of a server's own words that are repeated."""
TURNED_AWAY = {
    401: "the server answers 401: is the key right that model.server.api_key_env names?",
    402: "the server answers 402: the account cannot pay",
    403: "the server answers 403: the key may not ask this model",
    404: "the server answers 404: are model.url and model.server.name right?",
    405: "the server answers 405: is model.url right?",
}
"""Statuses after which no other request would fare better."""


class Connection:
    """A server, its model and our key: one request at a time, nothing retried."""

    def __init__(self, url: str, model: str, key: str, config: ServerConfig) -> None:
        self.url, self.model, self.config = url.strip().rstrip("/"), model, config
        self._key = key.strip()
        self.client = wire.client(self._key, config.timeout_s, config.max_concurrency)
        self.looking = wire.client(self._key, config.timeout_s, 2)
        """Never in use for answers, so that a look need not wait for one."""
        self.extra: Mapping[str, Any] = dict(config.extra)
        self.urls = chat.DataUrls()
        self.known = False
        """Whether the server has answered: a 404 is then a passing one, as of a router."""

    def body(self, request: Request) -> bytes:
        """What is sent. Raises chat.Unsendable."""
        return chat.body(self.model, request, self.urls, self.extra)

    def content(self, body: bytes) -> bytes:
        """The server's completion. Raises NoReply, without the key in its words."""
        url = f"{self.url}/chat/completions"
        try:
            status, content, after = wire.post(self.client, url, body, self.config.timeout_s)
            if self.known and status in (404, 405):
                raise NoReply(Fault.server, f"the server answers {status}, which it did not before")
            wire.check(status, content, after, TURNED_AWAY)
        except NoReply as missed:
            missed.words = self.clean(missed.words)
            raise
        return content

    def clean(self, words: str) -> str:
        """The words without the key, should the server have repeated it."""
        return (words.replace(self._key, "...") if self._key else words)[:SHOWN]

    def close(self) -> None:
        """Close the connections."""
        self.client.close()
        self.looking.close()


class Server:
    """The engine: so many requests at once, each asked again where that can help."""

    def __init__(self, connection: Connection, info: Mapping[str, Any], gate: Gate) -> None:
        self.connection, self.gate = connection, gate
        self.config = connection.config
        self._info = dict(info)
        self._alone, self._counting = Lock(), Lock()
        self.faults: Counter[Fault] = Counter()
        """Requests that brought no answer, by why; those that a retry mended too."""
        self.answers = 0
        """Requests that were answered."""

    @property
    def info(self) -> dict[str, Any]:
        """What the trial found (trial.py)."""
        return self._info

    def stream(
        self,
        next_requests: Callable[[int], Sequence[tuple[K, Request]]],
        on_idle: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[K, Result]]:
        """As Engine.stream. Raises ServerGone when the server stays away."""
        asked: SimpleQueue[tuple[K, Request] | None] = SimpleQueue()
        done: SimpleQueue[tuple[K, Request, Result | ServerGone | None]] = SimpleQueue()
        workers = open_ = 0
        failed: InARow[K] = InARow()
        try:
            while True:
                for each in (
                    () if failed.too_long else next_requests(self.config.max_concurrency - open_)
                ):
                    asked.put(each)
                    open_ += 1
                for _ in range(open_ - workers):
                    workers += 1
                    Thread(target=self._work, args=(asked, done), daemon=True).start()
                if not open_:
                    if failed.too_long and not (
                        failed.refused and self._is_well(failed.longest, asked, done, on_idle)
                    ):
                        self.gate.refuse(failed.words)
                    if not failed.held:
                        return
                    yield from failed.release()
                    continue
                key, request, found = self._next(done, on_idle)
                open_ -= 1
                if isinstance(found, ServerGone):
                    yield from answered(done)
                    raise found
                assert found is not None, "a thread of ours died; its reason stands above"
                if isinstance(found, Vain):
                    failed.add(key, found, request)
                    continue
                if isinstance(found, Completion):
                    yield from failed.release()
                yield key, found
        finally:
            for _ in range(workers):
                asked.put(None)

    def _is_well(
        self,
        longest: int,
        asked: SimpleQueue[Any],
        done: SimpleQueue[Any],
        on_idle: Callable[[], None],
    ) -> bool:
        """Whether the plainest request, with room for so many tokens, is answered while no other
        is open. Raises ServerGone.
        """
        asked.put((None, replace(PLAINEST, max_new_tokens=longest)))
        *_, found = self._next(done, on_idle)
        if isinstance(found, ServerGone):
            raise found
        return isinstance(found, Completion)

    @staticmethod
    def _next(done: SimpleQueue[Any], on_idle: Callable[[], None]) -> Any:
        while True:
            try:
                return done.get(timeout=ALIVE_SECONDS)
            except Empty:
                on_idle()

    def _work(self, asked: SimpleQueue[Any], done: SimpleQueue[Any]) -> None:
        while (each := asked.get()) is not None:
            key, request = each
            found: Result | ServerGone | None = None
            try:
                found = self.ask(request)
            except ServerGone as error:
                found = error
            finally:
                done.put((key, request, found))

    def ask(self, request: Request) -> Result:
        """The answer, or why there is none. Raises ServerGone when the server stays away."""
        try:
            body = self.connection.body(request)
        except chat.Unsendable as error:
            return GenerationError(str(error))
        failed = strikes = pauses = before = 0
        while True:
            asked_at = time.monotonic()
            try:
                with self._alone if strikes >= STRIKES_BEFORE_ALONE else nullcontext():
                    self.gate.enter()
                    asked_at = time.monotonic()
                    found = chat.answer(self.connection.content(body))
            except NoReply as missed:
                with self._counting:
                    self.faults[missed.kind] += 1
                if missed.hopeless:
                    self.gate.refuse(missed.words)
                if missed.final:
                    return Refused(missed.words)
                if missed.kind is Fault.limited or missed.wait is not None:
                    pauses += 1
                    before = before if pauses > 1 else self.answers
                    if self._is_its_own(missed, pauses, self.answers - before):
                        told = f"{pauses} requests were turned away while others were answered"
                        return Vain(f"{told}, the last: {missed.words}")
                elif missed.kind in THE_SERVERS and not self.gate.is_well(asked_at):
                    strikes += self.gate.struck(asked_at)
                else:
                    failed += 1
                    self._pause(failed)
                if failed >= self.config.max_attempts:
                    return Vain(f"{failed} requests brought none, the last: {missed.words}")
                if strikes >= self.config.max_attempts + STRIKES_BEFORE_ALONE:
                    return Vain(f"the server went down {strikes} times while it was asked")
            else:
                with self._counting:
                    self.answers += 1
                self.gate.answered()
                return found

    def _is_its_own(self, missed: NoReply, pauses: int, others: int) -> bool:
        """Whether a request is turned away for its own sake; if not, the pause is everybody's.

        `others` were answered since its first pause. Raises ServerGone if the server has been too
        busy for all for too long.
        """
        fair = PASSED_OVER * self.config.max_attempts * self.config.max_concurrency
        if pauses >= self.config.max_attempts and others >= fair:
            return True
        why = self.gate.busy(missed.wait, pauses)
        if why is None:
            return False
        try:
            self.connection.content(self.connection.body(PLAINEST))
        except NoReply:
            self.gate.refuse(why)
        return True

    def _pause(self, failed: int) -> None:
        if failed < self.config.max_attempts:
            self.gate.stopped.wait(self.config.backoff_s * 2 ** (failed - 1))

    def close(self) -> None:
        """Wake whoever waits, and close the connections."""
        self.gate.stop()
        self.connection.close()


def answered(done: SimpleQueue[tuple[K, Request, Any]]) -> Iterator[tuple[K, Completion]]:
    """The answers that have come in and were not taken yet."""
    while not done.empty():
        key, _, found = done.get()
        if isinstance(found, Completion):
            yield key, found


__all__ = ["Connection", "Server", "ServerGone"]
