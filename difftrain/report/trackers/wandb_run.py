"""A run in Weights & Biases, online or offline (WANDB_MODE)."""

from typing import Any

import wandb

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

MAX_NAME_CHARS, MAX_TAG_CHARS = 128, 64  # W&B refuses longer groups and job types, and tags
INIT_TIMEOUT_S = 30.0  # how long W&B may take to open the run
# Settings that keep W&B from collecting anything by itself.
PRIVATE_SETTINGS = {
    "console": "off",
    "disable_git": True,
    "host": "",
    "save_code": False,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}


class WandbRun:
    """A W&B run. A curve's name is the arm (tuned or control), TRL's key and maybe a stratum (easy
    to unsolved): `tuned/rewards/accuracy/mean/stratum/hard`."""

    def __init__(self, identity: RunIdentity, inputs: RunInputs, state: TrackerState) -> None:
        self.state = state
        self.run = wandb.init(
            id=state.run_id,
            resume="allow",
            project=identity.project,
            name=identity.name,
            notes=identity.folder,
            group=identity.group[-MAX_NAME_CHARS:],  # its end, so that the measure is in it
            job_type=identity.name[:MAX_NAME_CHARS],
            tags=[tag[:MAX_TAG_CHARS] for tag in identity.tags],
            config=identity.settings,
            dir=inputs.folder,
            settings=wandb.Settings(init_timeout=INIT_TIMEOUT_S, **PRIVATE_SETTINGS),
        )
        self.url = self.run.url
        # A killed process may have sent more rows than its state says; W&B drops rows before them.
        self.state.next_step = max(self.state.next_step, self.run.step)
        for label in [*inputs.arms, *(f"sft {arm}" for arm in inputs.arms)]:
            self.run.define_metric(f"{label}/*", step_metric=f"{label}/step")
        self.run.define_metric("progress/*", step_metric="progress/seconds")

    def _log(self, values: dict[str, Any]) -> None:
        # Numbered by us: of two offline folders of one run, the second continues the first. Without
        # commit=True W&B would hold a numbered row back until the next one.
        self.run.log(values, step=self.state.next_step, commit=True)
        self.state.next_step += 1

    def remove(self, arm: str) -> bool:
        """W&B only appends."""
        return False

    def log(self, curve: Curve) -> None:
        """Add the rows of a curve."""
        for row in curve.rows:
            values = {name: value for name, value in row.items() if name != "time"}
            self._log({f"{curve.label}/{name}": value for name, value in values.items()})

    def log_completions(self, table: CompletionTable) -> None:
        """Add a table of completions with their images."""
        values = {"step": table.step, "completions": wandb_table(table.rows, table.images)}
        self._log({f"{table.arm}/{name}": value for name, value in values.items()})

    def log_report(self, inputs: RunInputs, report: dict[str, Any]) -> None:
        """Add the scores to the summary, and the table of example samples."""
        rows, pngs = example_rows(inputs, report)
        if rows:
            self._log({"samples": wandb_table(rows, pngs)})
        scores = flat_numbers({"scores": arm_scores(report)})
        self.run.summary.update(scores | run_numbers(report))

    def flush(self) -> None:
        """W&B sends by itself."""

    def close(self, failed: bool) -> None:
        """End the run, and wait until W&B has it."""
        self.run.finish(exit_code=int(failed))


def wandb_table(rows: list[dict[str, Any]], pngs: list[list[bytes]]) -> wandb.Table:
    """A table with the images of each row before its question."""
    cells = [[wandb.Image(images.from_png(png)) for png in row_pngs] for row_pngs in pngs]
    merged = with_image_columns(rows, cells, before="question")
    return wandb.Table(columns=list(merged[0]), data=[list(row.values()) for row in merged])
