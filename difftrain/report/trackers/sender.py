"""Sends a run's rows to one tracker, each row once."""

from typing import Any, Protocol

from difftrain.report.inputs import RunInputs
from difftrain.report.trackers.content import (
    CompletionTable,
    Curve,
    LogReader,
    RunIdentity,
    TrackerState,
    completion_tables,
    curves,
    progress,
    resumed_steps,
)


class TrackerRun(Protocol):
    """A run in a tracker, opened or continued: `state.run_id` is its id."""

    url: str | None

    def __init__(self, identity: RunIdentity, inputs: RunInputs, state: TrackerState) -> None: ...

    def remove(self, arm: str) -> bool:
        """Remove the rows of an arm; False if the tracker cannot."""
        ...

    def log(self, curve: Curve) -> None:
        """Add the rows of a curve."""

    def log_completions(self, table: CompletionTable) -> None:
        """Add a table of completions with their images."""

    def log_report(self, inputs: RunInputs, report: dict[str, Any]) -> None:
        """Add the final scores, differences and example samples."""

    def flush(self) -> None:
        """Make what was added visible."""

    def close(self, failed: bool) -> None:
        """End the run in the tracker; a later start continues it."""


class Sender:
    """Sends what is new in a run's files to a tracker.

    A row counts as sent from the next call on, because clients send in the background: a killed
    process sends its last rows again instead of losing them.
    """

    def __init__(self, run: TrackerRun, inputs: RunInputs, state: TrackerState) -> None:
        self.run, self.inputs, self.state = run, inputs, state
        self.reader = LogReader()
        self.shares: dict[str, float] = {}  # by progress curve, what was sent last
        state.is_open = True
        state.save()

    def send_new(self) -> None:
        """Send the rows that were logged since the last call."""
        self.state.save()
        self._repeat_resumed()
        sent = self.state.sent
        for curve in curves(self.inputs, self.reader):
            last = sent.get(curve.key, -1)
            new_rows = [row for row in curve.rows if row["step"] > last]
            if new_rows:
                self.run.log(Curve(curve.label, curve.arm, curve.key, new_rows))
                sent[curve.key] = new_rows[-1]["step"]
        for key, table in completion_tables(self.inputs, self.reader, dict(sent)):
            self.run.log_completions(table)
            sent[key] = table.step
        self.run.flush()

    def _repeat_resumed(self) -> None:
        """Count the steps that a resumed training repeats as not sent."""
        sent, handled = self.state.sent, self.state.resumes
        for arm, label, steps in resumed_steps(self.inputs, self.reader):
            new_steps = steps[handled.get(label, 0) :]
            keys = [key for key in sent if key.partition("/")[0] == label]
            if new_steps and any(sent[key] > min(new_steps) for key in keys):
                if self.run.remove(arm):
                    keys = [key for key in sent if key.partition("/")[0] in (arm, f"sft {arm}")]
                    new_steps = [-1]
                for key in keys:
                    sent[key] = min(sent[key], *new_steps)
            handled[label] = len(steps)

    def send_progress(self) -> None:
        """Send how much of the stages that are running is done."""
        for curve, share, is_finished in progress(self.inputs, self.state):
            if not is_finished and share == self.shares.get(curve.key):
                continue
            self.shares[curve.key] = share
            self.run.log(curve)
            self.state.sent[curve.key] = curve.rows[-1]["seconds"]
            if is_finished:
                self.state.finished.append(curve.key)
        self.run.flush()

    def send_report(self, inputs: RunInputs, report: dict[str, Any]) -> None:
        """Send the final scores, differences and example samples."""
        self.run.log_report(inputs, report)

    def close(self, failed: bool = False) -> None:
        """End the run in the tracker, and note what it has."""
        self.run.close(failed)
        self.state.save()
