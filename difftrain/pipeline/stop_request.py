"""Stop training early but cleanly: a batch job requests it shortly before its time limit.

The job creates the file that STOP_VARIABLE names. Training looks for it after every step from
which it can resume, saves a checkpoint and raises StopRequested; the same command continues from
that checkpoint. Other stages ignore it: their finished parts are valid at any time. A job whose
start has saved nothing is not started again, because the next start would fail in the same way.
"""

import os
import signal
from pathlib import Path

STOP_VARIABLE = "DIFFTRAIN_STOP_FILE"
"""Environment variable with the path of the file whose existence requests the stop."""


class StopRequested(RuntimeError):
    """Training has saved a checkpoint and ended before its last step."""


def is_requested() -> bool:
    """Whether the stop file exists, as this process sees it."""
    path = os.environ.get(STOP_VARIABLE)
    return path is not None and Path(path).exists()


def note_saved() -> None:
    """Create the file that tells the job that this start has saved something new."""
    if STOP_VARIABLE in os.environ:
        Path(os.environ[STOP_VARIABLE]).with_suffix(".saved").touch()


def ignore_sigterm() -> None:
    """Leave stopping to the stop file, if there may be one; call this in the main thread.

    A scheduler that preempts a job can send SIGTERM to all its processes, which would end them
    before they save. Processes that this one starts can still be terminated.
    """
    if STOP_VARIABLE in os.environ:
        signal.signal(signal.SIGTERM, lambda *_: None)  # a new program does not inherit a handler
        os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
