"""The report's numbers for W&B or TensorBoard: training curves, scores, strata, a few samples.

Names are those of report.json and train_log.jsonl. Settings come from the report, where passwords
are hidden; the command line, host, user, environment and code are not sent.
"""

# The protobuf modules make their classes while they are imported:
# pyright: reportAttributeAccessIssue=false

import shutil
from base64 import b64decode
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import wandb
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.text.summary import text_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from difftrain import images
from difftrain.config.report import Tracker
from difftrain.config.run_config import ConfigError
from difftrain.report.compare.presets import paper_task_set
from difftrain.report.html import examples_by_stratum, render_markdown
from difftrain.report.inputs import RunInputs, load_run, training_steps

MAX_NAME_CHARS = 128
"""W&B refuses longer groups and job types."""
MAX_TAG_CHARS = 64
"""W&B refuses longer tags."""
OFFLINE_MODES = ("offline", "dryrun", "disabled")
"""W&B's modes that need no login."""
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
"""W&B settings that keep it from collecting anything by itself."""


def check_login(tracker: Tracker) -> None:
    """Raises ConfigError if report_to=wandb would send to W&B and there is no login."""
    if tracker is not Tracker.wandb:
        return
    try:
        settings = wandb.setup().settings
        usable = settings.mode in OFFLINE_MODES or wandb.login(prompt=False, verify=False)
    except (wandb.Error, ValueError) as error:  # ValueError: a WANDB_MODE that does not exist
        raise ConfigError([f"report_to=wandb: {error}"]) from error
    finally:
        wandb.teardown()  # its process would run during the whole training
    if not usable:
        raise ConfigError([
            "report_to=wandb: no login; run wandb login, set WANDB_API_KEY=KEY, or "
            "WANDB_MODE=offline to send the run later"
        ])  # fmt: skip


def send_report(tracker: Tracker, inputs: RunInputs, report: dict[str, Any]) -> None:
    """Send a finished run to a tracker; `report` is what write_report() returned.

    A second call replaces TensorBoard's files, and makes a second W&B run. Raises wandb.Error if
    W&B cannot be reached and WANDB_MODE is not offline.
    """
    match tracker:
        case Tracker.wandb:
            send_to_wandb(inputs, report)
        case Tracker.tensorboard:
            write_tensorboard(inputs, report)
        case Tracker.none:
            pass


def training_logs(inputs: RunInputs) -> dict[str, list[dict[str, float]]]:
    """The logged steps of each arm under the keys of the training log."""
    return {arm: training_steps(folders.train) for arm, folders in inputs.arms.items()}


def flat_numbers(node: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers in nested dictionaries as {"outer/inner": number}; None is left out."""
    numbers: dict[str, float] = {}
    for name, value in node.items():
        if isinstance(value, dict):
            numbers |= flat_numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            numbers[f"{prefix}{name}"] = value
    return numbers


def scores_by_arm(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Each arm's benchmarks and, under `mean`, their mean."""
    return {arm: report[arm] | {"mean": mean} for arm, mean in report["means"].items()}


def run_numbers(report: dict[str, Any]) -> dict[str, float]:
    """The numbers that belong to no single arm; `stages` has the seconds of every stage."""
    counts, cost = report["counts"], report["cost"]
    names = ("samples", "quarantined", "strata", "picks_strata", "verdicts", "truncated")
    return flat_numbers({
        "counts": {name: counts[name] for name in names},
        "cost": {name: value for name, value in cost.items() if name != "by_stage"},
        "stages": cost["by_stage"],
        "differences": report["differences"],
    })  # fmt: skip


def table_and_tags(report: dict[str, Any]) -> tuple[str, list[str]]:
    """The table that a run is a row of (`orsta reasoning/pism`), and short words to filter runs by.

    The data's name contains its task set or tasks if not all are read.
    """
    data = report["settings"]["data"]
    tasks = paper_task_set(data) or "+".join(data["tasks"] or ())
    data_name = f"{Path(report['data']).name} {tasks}".strip()
    tags = [
        report["train_stages"],
        str(report["measure"]),
        data_name,
        Path(report["model"]).name,
        f"seed {report['seed']}",
        *(["random control"] if "control" in report["means"] else []),
    ]
    table = f"{data_name}/{report['measure']}"[-MAX_NAME_CHARS:]
    return table, [tag[:MAX_TAG_CHARS] for tag in dict.fromkeys(tags) if tag]


def send_to_wandb(inputs: RunInputs, report: dict[str, Any]) -> None:
    """One W&B run: the group is the table (data/measure), the job type the row; tags to filter by.

    Curves keep TRL's keys; those of a stratum are `<arm>/rewards/accuracy/mean/stratum/hard`.
    """
    settings, (table, tags) = report["settings"], table_and_tags(report)
    with wandb.init(
        project=settings["report"]["project"],
        name=report["name"],
        notes=inputs.folder.name,
        group=table,
        job_type=report["name"][:MAX_NAME_CHARS],
        tags=tags,
        config=settings,
        dir=inputs.folder,
        settings=wandb.Settings(**PRIVATE_SETTINGS),
    ) as run:
        for arm, rows in training_logs(inputs).items():
            run.define_metric(f"{arm}/*", step_metric=f"{arm}/step")
            for row in rows:
                run.log({f"{arm}/{name}": value for name, value in row.items()})
        groups = examples_by_stratum(inputs, load_run(inputs), settings["report"]["examples"])
        if groups:
            run.log({"samples": examples_table(groups)})
        run.summary.update(flat_numbers({"scores": scores_by_arm(report)}) | run_numbers(report))


def examples_table(groups: dict[str, list[dict[str, Any]]]) -> wandb.Table:
    """A row per sample: its images, and the responses to the full and to the masked image."""
    examples = [(name, each) for name, group in groups.items() for each in group]
    max_images = max(len(example["images"]) for _, example in examples)

    def image(address: str) -> wandb.Image:
        return wandb.Image(images.from_png(b64decode(address.partition(",")[2])))

    def cells(response: dict[str, Any] | None, *names: str) -> list[Any]:
        return [response[name] if response else None for name in names]

    return wandb.Table(
        columns=[
            *("sample_id", "stratum", "task"),
            *(f"image {number + 1}" for number in range(max_images)),
            *("question", "answer", "response", "verdict"),
            *("mask_percent", "masked_response", "masked_verdict"),
        ],
        data=[
            [example["sample_id"], stratum, example["task"]]
            + [image(address) for address in example["images"]]
            + [None] * (max_images - len(example["images"]))
            + [example["question"], example["gold_answer"]]
            + cells(example["full_image"], "response", "verdict")
            + cells(example["masked"], "mask_percent", "response", "verdict")
            for stratum, example in examples
        ],
    )


def write_tensorboard(inputs: RunInputs, report: dict[str, Any]) -> None:
    """Event files under `tensorboard`: a folder per arm, and `run` for the rest.

    An arm's curves and scores have the same tags in each folder, so that TensorBoard draws them in
    one chart. The report itself is the text `report`.
    """
    root = inputs.folder / "tensorboard"
    if root.exists():
        shutil.rmtree(root)
    logs = training_logs(inputs)
    for arm, scores in scores_by_arm(report).items():
        finished_at = report["stages"].get(f"train {arm}", {}).get("finished_at")
        events = step_events(logs.get(arm, []), finished_at)
        events.append(scalar_event(flat_numbers({"scores": scores})))
        write_events(root / arm, events)
    text = Event(summary=text_pb("report", render_markdown(report)))
    write_events(root / "run", [scalar_event(run_numbers(report)), text])


def step_events(rows: list[dict[str, float]], finished_at: str | None) -> list[Event]:
    """Logged steps at the time they were taken: `seconds` count from the start of training."""
    end = datetime.fromisoformat(finished_at).timestamp() if finished_at else 0.0
    return [
        scalar_event(
            {name: value for name, value in row.items() if name != "step"},
            step=int(row["step"]),
            time=end - rows[-1]["seconds"] + row["seconds"],
        )
        for row in rows
    ]


def scalar_event(values: dict[str, float], step: int = 0, time: float = 0.0) -> Event:
    """One event with a scalar for each value; `time` in seconds since 1970."""
    scalars = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
    return Event(step=step, wall_time=time, summary=Summary(value=scalars))


def write_events(folder: Path, events: Iterable[Event]) -> None:
    """One event file in its own folder."""
    writer = EventFileWriter(str(folder))
    for event in events:
        writer.add_event(event)
    writer.close()
