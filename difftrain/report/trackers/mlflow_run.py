"""A run in MLflow: on the server of MLFLOW_TRACKING_URI, else in files in <output_dir>/mlruns."""

import logging
import os
import re
from collections.abc import Iterable
from typing import Any

import pandas as pd
from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]
from mlflow.entities import (  # pyright: ignore[reportMissingImports]
    Metric,
    Param,
    RunStatus,
)
from mlflow.exceptions import MlflowException  # pyright: ignore[reportMissingImports]
from PIL import Image

from difftrain import images
from difftrain.report.inputs import RunInputs
from difftrain.report.text import flatten
from difftrain.report.trackers.content import (
    CompletionTable,
    Curve,
    RunIdentity,
    TrackerState,
    arm_scores,
    example_rows,
    flat_numbers,
    run_numbers,
    scrubbed,
    with_image_columns,
)

logger = logging.getLogger(__name__)

ENVIRONMENT = {
    "MLFLOW_ALLOW_FILE_STORE": "true",  # MLflow 3 refuses its file store without it
    # The sender tries again by itself.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
MAX_BATCH = 500  # the server takes 1000 metrics and 100 parameters in one request
MAX_PARAMS, MAX_PARAM_CHARS = 100, 6000
FORBIDDEN = re.compile(r"[^\w\-. :/]")  # in the name of a metric


class MlflowRun:
    """An MLflow run. Its tags `group` and `job_type` are the table and the row."""

    url = None

    def __init__(self, identity: RunIdentity, inputs: RunInputs, state: TrackerState) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        files = (inputs.folder.parents[1] / "mlruns").absolute().as_uri()
        self.client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or files)
        if state.is_open:
            self.client.update_run(state.run_id, status=RunStatus.to_string(RunStatus.RUNNING))
        else:
            self._create(identity, state)
        self.run_id = state.run_id
        self._log_params(identity.settings)

    def _create(self, identity: RunIdentity, state: TrackerState) -> None:
        experiment = self.client.get_experiment_by_name(identity.project)
        experiment_id = (
            self.client.create_experiment(identity.project)
            if experiment is None
            else experiment.experiment_id
        )
        tags = {"group": identity.group, "job_type": identity.name, "folder": identity.folder}
        tags |= {"tags": ", ".join(identity.tags)}
        run = self.client.create_run(experiment_id, tags=tags, run_name=identity.name)
        state.run_id, state.is_open = run.info.run_id, True
        state.save()  # what fails from here on must not create another run

    def _log_params(self, settings: dict[str, Any]) -> None:
        existing = self.client.get_run(self.run_id).data.params  # MLflow lets none change
        params = [
            Param(name, str(value)[:MAX_PARAM_CHARS])
            for name, value in flatten(settings).items()
            if name not in existing
        ]
        try:
            for start in range(0, len(params), MAX_PARAMS):
                self.client.log_batch(self.run_id, params=params[start : start + MAX_PARAMS])
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            # A name or a length that this server does not take.
            logger.warning("the settings are in settings.json instead: %s", scrubbed(error))
            self.client.log_dict(self.run_id, settings, "settings.json")

    def remove(self, arm: str) -> bool:
        """MLflow only appends."""
        return False

    def log(self, curve: Curve) -> None:
        """Add the rows of a curve."""
        self._log_metrics(
            Metric(metric_name(f"{curve.label}/{name}"), value, int(1000 * row["time"]), step)
            for row in curve.rows
            for step in (int(row[curve.axis]),)
            for name, value in row.items()
            if name not in (curve.axis, "time")
        )

    def _log_metrics(self, metrics: Iterable[Metric]) -> None:
        metrics = list(metrics)
        for start in range(0, len(metrics), MAX_BATCH):
            self.client.log_batch(self.run_id, metrics=metrics[start : start + MAX_BATCH])

    def log_completions(self, table: CompletionTable) -> None:
        """Add completions with their images to the table of their arm."""
        self._log_table(table.rows, table.images, f"completions/{table.arm}.json")

    def _log_table(
        self, rows: list[dict[str, Any]], pngs: list[list[bytes]], artifact: str
    ) -> None:
        cells = [[images.from_png(png) for png in row_pngs] for row_pngs in pngs]
        merged = with_image_columns(rows, cells, before="question")
        blank = Image.new("RGB", (1, 1))  # MLflow takes no column with images in some rows only
        for row in merged:
            row |= {
                name: blank
                for name, value in row.items()
                if value is None and name.startswith("image ")
            }
        self.client.log_table(self.run_id, pd.DataFrame(merged), artifact)

    def log_report(self, inputs: RunInputs, report: dict[str, Any]) -> None:
        """Add the final numbers, the report's files, and the table of example samples."""
        numbers = flat_numbers({"scores": arm_scores(report)}) | run_numbers(report)
        self._log_metrics(Metric(metric_name(name), value, 0, 0) for name, value in numbers.items())
        for name in ("report.md", "report.html", "report.json"):
            if (inputs.folder / name).is_file():
                self.client.log_artifact(self.run_id, str(inputs.folder / name))
        rows, pngs = example_rows(inputs, report)
        if rows:
            self._log_table(rows, pngs, "samples.json")

    def flush(self) -> None:
        """MLflow has what was added."""

    def close(self, failed: bool) -> None:
        """End the run."""
        status = RunStatus.FAILED if failed else RunStatus.FINISHED
        self.client.set_terminated(self.run_id, status=RunStatus.to_string(status))


def metric_name(name: str) -> str:
    """The name with dots after its first part, and `_` for each character that MLflow refuses.

    MLflow's file store has a file per metric, so that no metric can be named as a folder of others:
    `tuned/seconds` beside `tuned/seconds/grading`.
    """
    label, slash, rest = name.partition("/")
    return FORBIDDEN.sub("_", label + slash + rest.replace("/", "."))
