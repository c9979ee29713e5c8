"""Trackers that follow a run while it trains, one process for each.

A tracker that is down, or slow, therefore never stops or slows training: its process tries again,
and the run ends without it after FINISH_SECONDS. The process gets a RunInputs when the run starts,
reads what the stages write, and gets the report at the end. If the run fails or is killed, it sends
what there is and ends; the next start of the run continues the same run in the tracker.
"""

import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, Queue
from typing import IO, Any

from difftrain.config.report import Tracker
from difftrain.pipeline.stop_request import STOP_VARIABLE
from difftrain.report.inputs import RunInputs
from difftrain.report.trackers import client_class
from difftrain.report.trackers.content import RunIdentity, TrackerState, scrubbed
from difftrain.report.trackers.sender import Sender

logger = logging.getLogger(__name__)

POLL_SECONDS = 2.0  # pause between two looks at the files
RETRY_SECONDS = 60.0  # pause after the tracker could not be reached
FINISH_SECONDS = 60.0  # how long a run waits at its end until trackers have everything
FAILED_SECONDS = 15.0  # the same for a run that failed
NICENESS = 10  # training has priority on shared cores
SendReport = Callable[[RunInputs, dict[str, Any]], None]


@contextmanager
def live_trackers(
    trackers: Iterable[Tracker], start: Callable[[], RunInputs]
) -> Iterator[SendReport]:
    """Follow a run with these trackers; yields the function that sends its report and waits.

    `start` returns the run's folders; it is called only if there is a tracker.
    """
    names = list(trackers)
    inputs = start() if names else None
    followers = [Follower(name, inputs) for name in names]

    def send_report(final: RunInputs, report: dict[str, Any]) -> None:
        end_all((final, report), FINISH_SECONDS)

    def end_all(message: Any, seconds: float) -> None:
        for follower in followers:
            follower.send(message)
        deadline = time.time() + seconds
        while followers:
            follower = followers.pop()
            follower.wait(max(0.0, deadline - time.time()))

    try:
        yield send_report
    finally:
        end_all(None, FAILED_SECONDS)


class Follower:
    """The process of one tracker, as the training process sees it."""

    def __init__(self, tracker: Tracker, inputs: RunInputs | None) -> None:
        self.tracker = tracker
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C ends the run, whose end the process then notices
            env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        )
        self.send((tracker, inputs, os.getpid()))
        threading.Thread(target=self._forward_messages, daemon=True).start()

    def send(self, message: Any) -> None:
        """Pass a message on, unless the process has ended."""
        assert self.process.stdin is not None
        with suppress(OSError):
            pickle.dump(message, self.process.stdin)
            self.process.stdin.flush()

    def _forward_messages(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            logger.warning("%s: %s", self.tracker, line.decode(errors="replace").strip())

    def wait(self, seconds: float) -> None:
        """Wait until the process has sent everything; else end it and warn."""
        with suppress(subprocess.TimeoutExpired):
            if self.process.wait(seconds) == 0:
                return
        self.process.kill()
        logger.warning(
            "%s may lack the last rows; launch/report.py with the same settings sends them",
            self.tracker,
        )


def main() -> None:
    """Follow one run until the training process sends its report or ends."""
    with suppress(OSError):
        os.nice(NICENESS)
    output = os.fdopen(os.dup(1), "w", buffering=1)
    silence = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):  # what clients print would tear the progress bars of the run
        os.dup2(silence, descriptor)

    def report_crash(kind: type[BaseException], error: BaseException, _: Any) -> None:
        print(f"stopped: {kind.__name__}: {scrubbed(error)}", file=output)

    sys.excepthook = report_crash
    logging.getLogger("difftrain").addHandler(logging.StreamHandler(output))
    tracker, inputs, parent = pickle.load(sys.stdin.buffer)
    messages: Queue[Any] = Queue()
    threading.Thread(target=_read_messages, args=(sys.stdin.buffer, messages), daemon=True).start()
    # In a job that stops on request, training goes on after SIGTERM until it has saved.
    ends = signal.SIG_IGN if STOP_VARIABLE in os.environ else lambda *_: messages.put(None)
    signal.signal(signal.SIGTERM, ends)
    sys.exit(0 if follow(tracker, inputs, messages, parent, output) else 1)


def _read_messages(stream: IO[bytes], messages: Queue[Any]) -> None:
    try:
        messages.put(pickle.load(stream))
    except (EOFError, OSError):
        messages.put(None)


def follow(
    tracker: Tracker, inputs: RunInputs, messages: Queue[Any], parent: int, output: IO[str]
) -> bool:
    """Send the run's rows until a message comes, then the report in it; whether all was sent.

    The message None says that the run has failed; so does the end of the process `parent`.
    """
    sender: Sender | None = None
    next_try, problem, message, is_last = 0.0, None, None, False
    while not is_last:
        try:
            message = messages.get(timeout=POLL_SECONDS)
            is_last = True
        except Empty:
            is_last = os.getppid() != parent
        if is_last:  # a client may wait for its server without end
            watchdog = threading.Timer(FINISH_SECONDS, os._exit, (1,))
            watchdog.daemon = True
            watchdog.start()
        elif time.time() < next_try:
            continue
        try:
            if sender is None:
                state = TrackerState.load(inputs.folder, tracker)
                run = client_class(tracker)(RunIdentity.of(inputs), inputs, state)
                sender = Sender(run, inputs, state)
                if sender.run.url:
                    print(f"this run is at {sender.run.url}", file=output)
            sender.send_new()
            sender.send_progress()
            if message is not None:
                sender.send_report(*message)
            if is_last:
                sender.close(failed=message is None)
            if problem is not None:
                print("reached again", file=output)
            problem = None
        except Exception as error:  # noqa: BLE001  a client may raise anything
            next_try, is_new = time.time() + RETRY_SECONDS, problem is None
            problem = f"{type(error).__name__}: {scrubbed(error)}"
            if is_new:
                advice = f"training goes on, next try in {RETRY_SECONDS:.0f} s"
                print(f"not reached, {advice}: {problem}", file=output)
    return problem is None


if __name__ == "__main__":
    main()
