"""A run in trackio: its local database, or the server or Space that its variables name."""

from typing import Any

import trackio  # pyright: ignore[reportMissingImports]

from difftrain import images
from difftrain.report.inputs import RunInputs
from difftrain.report.trackers.content import (
    CompletionTable,
    Curve,
    RunIdentity,
    TrackerState,
    arm_scores,
    example_rows,
    flat_numbers,
    run_numbers,
    with_image_columns,
)


class TrackioRun:
    """A trackio run, named after the run's folder. trackio sends in the background, and keeps what
    it cannot send for the next start."""

    url = None

    def __init__(self, identity: RunIdentity, inputs: RunInputs, state: TrackerState) -> None:
        self.run = trackio.init(
            project=identity.project,
            name=f"{identity.folder}-{state.run_id}",
            group=identity.group,
            config=identity.settings | {"job_type": identity.name, "tags": identity.tags},
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def remove(self, arm: str) -> bool:
        """trackio only appends."""
        return False

    def log(self, curve: Curve) -> None:
        """Add the rows of a curve."""
        for row in curve.rows:
            names = row.keys() - {curve.axis, "time"}
            values = {f"{curve.label}/{name}": row[name] for name in sorted(names)}
            self.run.log(values, step=int(row[curve.axis]))

    def log_completions(self, table: CompletionTable) -> None:
        """Add a table of completions with their images."""
        value = trackio_table(table.rows, table.images)
        self.run.log({f"{table.arm}/completions": value}, step=table.step)

    def log_report(self, inputs: RunInputs, report: dict[str, Any]) -> None:
        """Add the final numbers and the table of example samples."""
        values: dict[str, Any] = flat_numbers({"scores": arm_scores(report)}) | run_numbers(report)
        rows, pngs = example_rows(inputs, report)
        if rows:
            values["samples"] = trackio_table(rows, pngs)
        self.run.log(values)

    def flush(self) -> None:
        """trackio sends by itself."""

    def close(self, failed: bool) -> None:
        """End the run, and wait up to half a minute until trackio has it."""
        trackio.finish()


def trackio_table(rows: list[dict[str, Any]], pngs: list[list[bytes]]) -> Any:
    """A table with the images of each row before its question."""
    cells = [[trackio.Image(images.from_png(png)) for png in row_pngs] for row_pngs in pngs]
    merged = with_image_columns(rows, cells, before="question")
    return trackio.Table(columns=list(merged[0]), data=[list(row.values()) for row in merged])
