"""Send a run's training curves, scores, strata and a few samples to W&B or TensorBoard.

Names are the same as in report.json and train_log.jsonl. Settings come from the report, where
passwords are hidden; the command line, host, user, environment and code are not sent.
"""

# The protobuf modules create their classes at import, where pyright cannot see them:
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
from difftrain.report.html import examples_by_stratum
from difftrain.report.inputs import RunInputs, joined_steps, load_run
from difftrain.report.text import flatten, render_markdown

MAX_NAME_CHARS, MAX_TAG_CHARS = 128, 64  # W&B refuses longer groups and job types, and tags
MODES_WITHOUT_LOGIN = ("offline", "dryrun", "disabled")  # values of WANDB_MODE
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


def check_login(tracker: Tracker) -> None:
    """Raises ConfigError if report_to=wandb needs a login to W&B and there is none."""
    if tracker is not Tracker.wandb:
        return
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


def send_report(tracker: Tracker, inputs: RunInputs, report: dict[str, Any]) -> None:
    """Send a finished run to a tracker; `report` is what write_report() returned.

    A second call replaces TensorBoard's files, but creates a second W&B run. Raises wandb.Error if
    W&B cannot be reached and WANDB_MODE is not offline.
    """
    if tracker is Tracker.wandb:
        send_to_wandb(inputs, report)
    elif tracker is Tracker.tensorboard:
        write_tensorboard(inputs, report)


def flat_numbers(node: dict[str, Any]) -> dict[str, float]:
    """The numbers of nested dictionaries as {"outer/inner": number}; other values are left out."""
    flat = flatten(node, separator="/")
    return {name: value for name, value in flat.items() if isinstance(value, int | float)}


def run_numbers(report: dict[str, Any]) -> dict[str, float]:
    """The numbers that belong to no arm: counts, costs and differences between arms."""
    counts, cost = report["counts"], report["cost"]
    names = ("samples", "quarantined", "strata", "picks_strata", "verdicts", "truncated")
    return flat_numbers({
        "counts": {name: counts[name] for name in names},
        "cost": {name: value for name, value in cost.items() if name != "by_stage"},
        "stages": cost["by_stage"],
        "differences": report["differences"],
    })  # fmt: skip


def send_to_wandb(inputs: RunInputs, report: dict[str, Any]) -> None:
    """Send one W&B run. Its group is `data/measure`, its job type the name of the run.

    If only some tasks are read, the group names them. A curve's name is the arm (tuned or control),
    TRL's key and maybe a stratum (easy to unsolved): `tuned/rewards/accuracy/mean/stratum/hard`.
    """
    settings, measure = report["settings"], report["measure"]
    tasks = paper_task_set(settings["data"]) or "+".join(settings["data"]["tasks"] or ())
    data_name = f"{Path(report['data']).name} {tasks}".strip()
    tags = [report["train_stages"], measure, data_name, Path(report["model"]).name]
    tags += [f"seed {report['seed']}", "random control" if "control" in report["means"] else ""]
    group = f"{data_name}/{measure}"[-MAX_NAME_CHARS:]  # its end, so that the measure is in it
    with wandb.init(
        project=settings["report"]["project"],
        name=report["name"],
        notes=inputs.folder.name,
        group=group,
        job_type=report["name"][:MAX_NAME_CHARS],
        tags=[tag[:MAX_TAG_CHARS] for tag in dict.fromkeys(tags) if tag],
        config=settings,
        dir=inputs.folder,
        settings=wandb.Settings(**PRIVATE_SETTINGS),
    ) as run:
        for arm in inputs.arms:
            run.define_metric(f"{arm}/*", step_metric=f"{arm}/step")
            for row in joined_steps(inputs.train_folders(arm)):
                run.log({f"{arm}/{name}": value for name, value in row.items()})
        by_stratum = examples_by_stratum(inputs, load_run(inputs), settings["report"]["examples"])
        if by_stratum:
            run.log({"samples": examples_table(by_stratum)})
        scores = {arm: report[arm] | {"mean": mean} for arm, mean in report["means"].items()}
        run.summary.update(flat_numbers({"scores": scores}) | run_numbers(report))


def examples_table(by_stratum: dict[str, list[dict[str, Any]]]) -> wandb.Table:
    """A row per sample with its images and its responses to the full and to a masked image."""
    examples = [(stratum, row) for stratum, rows in by_stratum.items() for row in rows]
    max_images = max(len(example["images"]) for _, example in examples)
    table_rows: list[dict[str, Any]] = []
    for stratum, example in examples:
        pngs = [b64decode(data_url.partition(",")[2]) for data_url in example["images"]]
        image_cells: list[Any] = [wandb.Image(images.from_png(png)) for png in pngs]
        image_cells += [None] * (max_images - len(image_cells))
        full_image, masked = example["full_image"] or {}, example["masked"] or {}
        row = {
            "sample_id": example["sample_id"],
            "stratum": stratum,
            "task": example["task"],
            **{f"image {number}": image for number, image in enumerate(image_cells, 1)},
            "question": example["question"],
            "answer": example["gold_answer"],
            "response": full_image.get("response"),
            "verdict": full_image.get("verdict"),
            "parsed_answer": full_image.get("parsed_answer"),
            "grading_rule": full_image.get("rule"),
            "mask_percent": masked.get("mask_percent"),
            "masked_response": masked.get("response"),
            "masked_verdict": masked.get("verdict"),
        }
        table_rows.append(row)
    return wandb.Table(columns=list(table_rows[0]), data=[list(row.values()) for row in table_rows])


def write_tensorboard(inputs: RunInputs, report: dict[str, Any]) -> None:
    """Write event files under `tensorboard`: a folder per arm, and `run` for the whole run.

    All arms use the same tags, so that TensorBoard draws their curves in one chart. Each step's
    event has the time of that step. report.md is sent as the text `report`.
    """
    root = inputs.folder / "tensorboard"
    if root.exists():
        shutil.rmtree(root)
    for arm, mean in report["means"].items():
        steps, events, end_s = [], [], 0.0
        if arm in inputs.arms:
            steps = joined_steps(inputs.train_folders(arm))
            names = [name for name in report["stages"] if name.partition(",")[0] == f"train {arm}"]
            finished_at = report["stages"][names[-1]]["finished_at"]
            end_s = datetime.fromisoformat(finished_at).timestamp()
        for row in steps:  # row["seconds"] counts from the start of training, `time` since 1970
            values = {name: value for name, value in row.items() if name != "step"}
            time = end_s - steps[-1]["seconds"] + row["seconds"]
            events.append(scalar_event(values, int(row["step"]), time))
        events.append(scalar_event(flat_numbers({"scores": report[arm] | {"mean": mean}})))
        write_events(root / arm, events)
    text = Event(summary=text_pb("report", render_markdown("report.md.jinja", report=report)))
    write_events(root / "run", [scalar_event(run_numbers(report)), text])


def scalar_event(values: dict[str, float], step: int = 0, time: float = 0.0) -> Event:
    """An event with a scalar for each value; `time` is in seconds since 1970."""
    scalars = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
    return Event(step=step, wall_time=time, summary=Summary(value=scalars))


def write_events(folder: Path, events: Iterable[Event]) -> None:
    """Write the events to one file in `folder`."""
    writer = EventFileWriter(str(folder))
    for event in events:
        writer.add_event(event)
    writer.close()
