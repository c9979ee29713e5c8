"""Is the server there? Its requests wait here together while it is away or busy.

A failed request is the server's fault if the server does not list its models either. Then nobody
asks until it does, and the failure does not count against the request.
"""

import sys
import time
from collections.abc import Callable
from threading import Event, Lock

import httpx

LONGEST_PAUSE = 30.0
"""Seconds between two looks at a server that is away."""
AWAY = (502, 503, 504)
"""What a gateway answers while nobody stands behind it."""
LOOK_SECONDS = 10.0
"""Longest wait for the list of models."""


class ServerGone(OSError):
    """The server was away for longer than the settings allow, or turns everybody away."""


def say(words: str) -> None:
    """Tell whoever waits, on stderr."""
    print(words, file=sys.stderr, flush=True)


class Gate:
    """Before every request: wait until the server is welcome to have it; safe across threads."""

    def __init__(
        self,
        client: httpx.Client,
        url: str,
        patience: float,
        first_pause: float,
        tell: Callable[[str], None] = say,
    ) -> None:
        self._client, self._url = client, url
        self._patience, self._first_pause = patience, max(first_pause, 0.01)
        self._tell = tell
        self._lock = Lock()
        self._seen_at, self._back_at, self._away_since = 0.0, 0.0, 0.0
        self._there = Event()
        self._there.set()
        self._busy_since: float | None = None
        self._open_at = 0.0
        self.stopped = Event()
        self.gone: str | None = None
        """Why nothing more is asked, or None."""

    def why_away(self) -> str | None:
        """Why the server does not list its models, or None if it is there.

        A server without such a list (404), or whose list is broken (500, as transformers serve
        without a cache of the hub), is there.
        """
        try:
            status = self._client.get(f"{self._url}/models", timeout=LOOK_SECONDS).status_code
        except httpx.HTTPError as error:
            return str(error) or type(error).__name__
        return f"its list of models answers {status}" if status in AWAY else None

    def enter(self) -> None:
        """Wait for the server, or for a pause's end. Raises ServerGone if nothing more is asked."""
        while True:
            self.leave_if_over()
            if not self._there.wait(1.0):
                continue
            left = self._open_at - time.monotonic()
            if left <= 0:
                return
            self.stopped.wait(left)

    def leave_if_over(self) -> None:
        """Raises ServerGone if nothing more will be asked."""
        if self.stopped.is_set() or self.gone is not None:
            raise ServerGone(self.gone or "stopped")

    def is_well(self, asked_at: float) -> bool:
        """Whether a failed request's server was there all the while since `asked_at` (monotonic).

        If it is away now, this waits until it is back. Raises ServerGone after `patience` seconds.
        """
        failed_at = time.monotonic()
        with self._lock:
            self.leave_if_over()
            if self._back_at > asked_at:
                return False
            if self._seen_at > failed_at:
                return True
            if (why := self.why_away()) is None:
                self._seen_at = time.monotonic()
                return True
            self._away_since = failed_at
            self._there.clear()
            try:
                self._wait_for_it(why)
            finally:
                self._there.set()
            self._seen_at = self._back_at = time.monotonic()
            return False

    def struck(self, asked_at: float) -> bool:
        """Whether a request sent then was open when the server last went away."""
        return asked_at < self._away_since

    def _wait_for_it(self, why: str) -> None:
        began, pause = time.monotonic(), self._first_pause
        reason: str | None = why
        while reason is not None:
            away = time.monotonic() - began
            if away >= self._patience:
                self.gone = (
                    f"model.url={self._url} has been away for {away:.0f} s ({reason}); "
                    "model.server.max_outage_s allows no more"
                )
                self.leave_if_over()
            pause = min(pause, LONGEST_PAUSE, max(0.01, self._patience - away))
            self._tell(
                f"model.url={self._url} does not answer ({reason}), for {away:.0f} s now; waiting "
                f"for up to {self._patience - away:.0f} s more, next look in {pause:.1f} s"
            )
            self.stopped.wait(pause)
            self.leave_if_over()
            pause *= 2
            reason = self.why_away()
        self._tell(f"model.url={self._url} is back after {time.monotonic() - began:.0f} s")

    def busy(self, wait: float | None, number: int) -> str | None:
        """The server wants a pause of `wait` seconds, for everybody; None: it does not say.

        `number` counts this request's pauses. Gives the reason, and makes no pause, where that
        is longer than patience, or nobody was answered for longer than that.
        """
        now = time.monotonic()
        self.leave_if_over()
        if wait and wait > self._patience:
            return f"it asks to wait for {wait:.0f} s"
        with self._lock:
            self._busy_since = self._busy_since or now
            if now - self._busy_since > self._patience:
                return f"it has been busy, and answered nobody, for {now - self._busy_since:.0f} s"
            pause = wait if wait is not None else self._first_pause * 2 ** min(number, 10)
            self._open_at = max(self._open_at, now + min(pause, max(LONGEST_PAUSE, wait or 0)))
        return None

    def answered(self) -> None:
        """Somebody had an answer: the server is not too busy for all."""
        self._busy_since = None

    def refuse(self, why: str) -> None:
        """Nothing more is asked. Raises ServerGone."""
        self.gone = f"model.url={self._url}: {why}"
        self.leave_if_over()

    def stop(self) -> None:
        """Wake whoever waits here, with ServerGone."""
        self.stopped.set()
