"""Grading in processes that are killed when they take too long.

A thread's time-out does not stop an answer that keeps sympy busy for ever, and signals reach the
main thread only. Here every answer has its own wall-clock limit, counted from the moment a worker
takes it; a worker that overruns is killed and replaced, and the answer's outcome is `timed_out`.
How many workers there are changes nothing but the speed.
"""

import selectors
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Self

from difftrain.config.grade import GradeConfig
from difftrain.grade.child import Child
from difftrain.records import Sample

START_SECONDS = 120.0
"""Patience with a worker that starts or loads math-verify; this is no answer's fault."""
STARTS_IN_A_ROW = 3
"""Workers that may die before they are ready until the pool gives up."""


class Ending(StrEnum):
    """How a question to a worker ended when it was not answered."""

    timed_out = "timed_out"
    died = "died"


class WorkersFailed(RuntimeError):
    """Workers cannot be started at all; the message holds their last words."""


@dataclass(slots=True)
class _Post:
    """A worker's place: who sits there, what it is busy with, until when."""

    child: Child
    until: float
    ready: bool = False
    job: int | None = None


@dataclass(slots=True)
class Workers:
    """A pool of killable graders. Use it as a context manager, or call `close`."""

    count: int
    seconds: float
    posts: list[_Post] = field(init=False)
    killed: int = 0
    failed_starts: int = 0

    def __post_init__(self) -> None:
        self.posts = [self._post() for _ in range(self.count)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers."""
        for post in self.posts:
            post.child.kill()
        self.posts = []

    def ask(self, messages: Sequence[dict[str, Any]]) -> list[dict[str, Any] | Ending]:
        """What the workers answer, in the order of the messages.

        Raises WorkersFailed if no worker can be started.
        """
        found: dict[int, dict[str, Any] | Ending] = {}
        waiting = deque(range(len(messages)))
        while len(found) < len(messages):
            for post in self.posts:
                if post.ready and post.job is None and waiting:
                    if post.child.process.poll() is None:
                        self._give(post, waiting.popleft(), messages)
                    else:  # it died while it had nothing to do, which is no answer's fault
                        self._replace(post, Ending.died, found)
            for post in self._awake():
                self._hear(post, messages, found)
            now = time.monotonic()
            for post in self.posts:
                if post.until <= now and not (post.ready and post.job is None):
                    self._replace(post, Ending.timed_out, found)
        return [found[place] for place in range(len(messages))]

    def _post(self) -> _Post:
        return _Post(Child(), time.monotonic() + START_SECONDS)

    def _awake(self) -> list[_Post]:
        """The posts whose workers say something, once one does or the first limit is reached."""
        waited_for = [post for post in self.posts if not post.ready or post.job is not None]
        with selectors.DefaultSelector() as selector:
            for post in waited_for:
                selector.register(post.child, selectors.EVENT_READ, post)
            patience = min((post.until for post in waited_for), default=0.0) - time.monotonic()
            return [key.data for key, _ in selector.select(max(0.0, patience))]

    def _give(self, post: _Post, job: int, messages: Sequence[dict[str, Any]]) -> None:
        post.job, post.until = job, time.monotonic() + self.seconds
        post.child.send({**messages[job], "seconds": self.seconds})

    def _hear(
        self,
        post: _Post,
        messages: Sequence[dict[str, Any]],
        found: dict[int, dict[str, Any] | Ending],
    ) -> None:
        """Take what a worker says: it is ready, it must load math-verify first, or it answers."""
        reply = post.child.receive()
        if reply is False:
            return
        if not isinstance(reply, dict):
            self._replace(post, Ending.died, found)
        elif "ready" in reply:
            post.ready, self.failed_starts = True, 0
            if post.job is not None:
                self._give(post, post.job, messages)
        elif "needs" in reply:
            post.until = time.monotonic() + START_SECONDS
            post.child.send({"warm": True, "seconds": START_SECONDS})
        elif post.job is not None:
            found[post.job] = reply
            post.job = None

    def _replace(
        self, post: _Post, ending: Ending, found: dict[int, dict[str, Any] | Ending]
    ) -> None:
        """Kill a worker, note how its answer ended, and put another in its place."""
        started = post.ready
        post.child.process.kill()
        post.child.process.wait()
        told = post.child.last_words()
        post.child.kill()
        if post.job is not None:
            found[post.job] = ending
            self.killed += 1
        elif not started:  # a worker that never got as far as an answer
            self.failed_starts += 1
            if self.failed_starts >= STARTS_IN_A_ROW:
                raise WorkersFailed(f"graders cannot be started ({ending}): {told}")
        fresh = self._post()
        post.child, post.until, post.ready, post.job = fresh.child, fresh.until, False, None


def grading(response: str, sample: Sample, rules: GradeConfig) -> dict[str, Any]:
    """The message that asks a worker for an answer's credit."""
    return {
        "grade": response,
        "answer": sample.answer,
        "kind": sample.answer_kind,
        "options": sample.options,
        "rules": asdict(rules),
    }
