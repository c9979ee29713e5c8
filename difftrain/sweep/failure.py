"""Why a run failed, read from its log.

`python -m difftrain.sweep.failure LOG EXIT_CODE` prints it, for the script of a SLURM task.
"""

import re
import sys
from pathlib import Path

from difftrain.cli import BAD_INPUT

NUM_LAST_LINES = 12  # lines at the end of a failed run's log that are printed
LAUNCHER_ERRORS = ("subprocess.CalledProcessError", "multiprocessing.errors.ChildFailedError")
"""Errors of accelerate launch itself. It prints them after the traceback of a failed process."""
START_PREFIX = "=== "  # begins the line that a log gets when its run is started
ERROR_LINE = re.compile(r"(?:rank \d+: )?[\w.]*(?:Error|Exception|Failed|Timeout|Requested)\b.*")
"""A line with the name of an exception at its start."""


def failure_reason(exit_code: int, log: Path) -> str:
    """Why a run failed. accelerate launch exits with 1 for every error, so its log is read, too."""
    refusals = tuple(f"{error.__name__}:" for error in BAD_INPUT)
    if exit_code == 2 or any(line.startswith(refusals) for line in last_lines(log, 60)):
        return "refused (bad settings or input)"
    return f"ended by signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"


def last_lines(log: Path, count: int = NUM_LAST_LINES) -> list[str]:
    """The last lines in the log since the run's last start; of a progress bar, only its last state.

    The traceback of the launcher is removed if it follows the traceback of the run.
    """
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 65536))  # enough bytes for the last lines
        text = file.read().decode(errors="replace")
    text = text.rpartition(f"\n{START_PREFIX}")[2]
    head, separator, traceback = text.rpartition("Traceback (most recent call last):")
    if separator and any(error in traceback for error in LAUNCHER_ERRORS):
        text = head
    lines = [line.rsplit("\r", 1)[-1].rstrip() for line in text.split("\n")]
    return [line for line in lines if line][-count:]


def error_line(log: Path) -> str:
    """The last line of the log that names an error, else its last line; empty without a log."""
    lines = last_lines(log, 60) if log.is_file() else []
    errors = [line.strip() for line in lines if ERROR_LINE.match(line)]
    return (errors or lines or [""])[-1]


if __name__ == "__main__":
    log, exit_code = Path(sys.argv[1]), int(sys.argv[2])
    print(f"FAILED, {failure_reason(exit_code, log)}: {error_line(log)}")
    print("\n".join(f"    {line}" for line in last_lines(log)))
