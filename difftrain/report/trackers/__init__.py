"""Send a run to experiment trackers: W&B, TensorBoard, MLflow and trackio.

Curves, completions and progress are read from the files that the stages write, so that a tracker
never works in the training process. live.py follows a run while it trains, in a process of its own
for each tracker; `send_report` sends a finished run. Both continue one run in the tracker.

Names are the same as in report.json and train_log.jsonl. Settings come from the report, where
passwords are hidden; the command line, host, user, environment and code are not sent.
"""

import shutil
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from difftrain.config.report import Tracker
from difftrain.config.run_config import ConfigError
from difftrain.report.inputs import RunInputs
from difftrain.report.trackers.content import RunIdentity, TrackerState
from difftrain.report.trackers.sender import Sender, TrackerRun

CLIENTS = {
    Tracker.wandb: "wandb_run:WandbRun",
    Tracker.tensorboard: "tensorboard_run:TensorboardRun",
    Tracker.mlflow: "mlflow_run:MlflowRun",
    Tracker.trackio: "trackio_run:TrackioRun",
}
"""Module and class of each tracker's client. They are imported only where they are used."""
MODES_WITHOUT_LOGIN = ("offline", "dryrun", "disabled")  # values of WANDB_MODE


def check_login(trackers: Iterable[Tracker]) -> None:
    """Raises ConfigError if report_to=wandb needs a login to W&B and there is none."""
    if Tracker.wandb not in trackers:
        return
    wandb: Any = import_module("wandb")
    try:
        settings = wandb.setup().settings
        usable = settings.mode in MODES_WITHOUT_LOGIN or wandb.login(prompt=False, verify=False)
    except (wandb.Error, ValueError) as error:  # ValueError: an unknown WANDB_MODE
        raise ConfigError([f"report_to=wandb: {error}"]) from error
    finally:
        wandb.teardown()  # otherwise the process of W&B runs during the whole training
    if not usable:
        raise ConfigError([
            "report_to=wandb: no login; run wandb login, set WANDB_API_KEY=KEY, or "
            "WANDB_MODE=offline to send the run later"
        ])  # fmt: skip


def client_class(tracker: Tracker) -> type[TrackerRun]:
    """The class of a tracker's client; imports the tracker's package."""
    module, _, name = CLIENTS[tracker].partition(":")
    return getattr(import_module(f"{__name__}.{module}"), name)


def send_report(trackers: Iterable[Tracker], inputs: RunInputs, report: dict[str, Any]) -> None:
    """Send a finished run to trackers; `report` is what write_report() returned.

    What a tracker has already is not sent again, except to TensorBoard, whose files are replaced.
    Raises the error of a tracker that cannot be reached.
    """
    for tracker in trackers:
        state = TrackerState.load(inputs.folder, tracker)
        if tracker is Tracker.tensorboard:
            shutil.rmtree(inputs.folder / "tensorboard", ignore_errors=True)
            state.sent.clear()
        run = client_class(tracker)(RunIdentity.of(inputs, report["settings"]), inputs, state)
        sender = Sender(run, inputs, state)
        sender.send_new()
        sender.send_report(inputs, report)
        sender.close()
