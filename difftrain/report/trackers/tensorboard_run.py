"""TensorBoard's event files in the run's folder.

`tensorboard` has a folder per arm, and `run` for the whole run. All arms use the same tags, so that
TensorBoard draws their curves in one chart.
"""

# The protobuf modules create their classes at import, where pyright cannot see them:
# pyright: reportAttributeAccessIssue=false

import time
from html import escape
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.text.summary import text_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from difftrain import images
from difftrain.report.inputs import RunInputs
from difftrain.report.text import render_markdown
from difftrain.report.trackers.content import (
    CompletionTable,
    Curve,
    RunIdentity,
    TrackerState,
    arm_scores,
    flat_numbers,
    run_numbers,
)

RGB = 3  # TensorBoard's number for this color space


class TensorboardRun:
    """Event files of a run. Each event has the time of its step."""

    url = None

    def __init__(self, identity: RunIdentity, inputs: RunInputs, state: TrackerState) -> None:
        self.root = inputs.folder / "tensorboard"
        self.writers: dict[str, EventFileWriter] = {}

    def _write(self, folder: str, event: Event) -> None:
        if folder not in self.writers:
            self.writers[folder] = EventFileWriter(str(self.root / folder))
        self.writers[folder].add_event(event)

    def remove(self, arm: str) -> bool:
        """Let TensorBoard remove all earlier events of an arm."""
        for _ in range(2):  # it takes the first such event for the start of the run
            self._write(arm, Event(step=0, session_log=SessionLog(status=SessionLog.START)))
        return True

    def log(self, curve: Curve) -> None:
        """Add the rows of a curve."""
        label = curve.label.removesuffix(curve.arm or "").strip()
        prefix = f"{label}/" if label else ""
        for row in curve.rows:
            names = row.keys() - {curve.axis, "time"}
            values = {prefix + name: row[name] for name in sorted(names)}
            self._write(curve.arm or "run", scalar_event(values, int(row[curve.axis]), row["time"]))

    def log_completions(self, table: CompletionTable) -> None:
        """Add the completions as text, and their images."""
        items = []
        for number, (row, pngs) in enumerate(zip(table.rows, table.images, strict=True), 1):
            lines = [f"**{name}**: {to_paragraph(value)}" for name, value in row.items()]
            items.append("\n\n".join([f"### {number}", *lines]))
            for i, png in enumerate(pngs, 1):
                width, height = images.png_size(png)
                image = Summary.Image(
                    height=height, width=width, colorspace=RGB, encoded_image_string=png
                )
                value = Summary.Value(tag=f"completions/{number}/image {i}", image=image)
                event = Event(step=table.step, wall_time=time.time())
                event.summary.value.append(value)
                self._write(table.arm, event)
        text = text_pb("completions", "\n\n".join(items))
        self._write(table.arm, Event(step=table.step, wall_time=time.time(), summary=text))

    def log_report(self, inputs: RunInputs, report: dict[str, Any]) -> None:
        """Add the scores of each arm, the run's numbers, and report.md as the text `report`."""
        for arm, scores in arm_scores(report).items():
            self._write(arm, scalar_event(flat_numbers({"scores": scores})))
        self._write("run", scalar_event(run_numbers(report)))
        text = text_pb("report", render_markdown("report.md.jinja", report=report))
        self._write("run", Event(summary=text))

    def flush(self) -> None:
        """Write the events to disk."""
        for writer in self.writers.values():
            writer.flush()

    def close(self, failed: bool) -> None:
        """Close the files."""
        for writer in self.writers.values():
            writer.close()


def to_paragraph(value: Any) -> str:
    """A value as one paragraph of Markdown; tags of a response stay readable."""
    return escape(str(value)).replace("\n", "<br>")


def scalar_event(values: dict[str, float], step: int = 0, time: float = 0.0) -> Event:
    """An event with a scalar for each value; `time` is in seconds since 1970."""
    scalars = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
    return Event(step=step, wall_time=time, summary=Summary(value=scalars))
