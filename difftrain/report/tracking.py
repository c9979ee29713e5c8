"""The report's numbers for W&B or TensorBoard: curves by step, marks, strata, a few samples.

Names are those of report.json and log.jsonl. Settings are taken from the report, where passwords
are hidden; the command line, host, user, environment and code are not sent.
"""

# The protobuf modules make their classes while they are imported:
# pyright: reportAttributeAccessIssue=false

import io
import shutil
from base64 import b64decode
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import wandb
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.text.summary import text_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from difftrain.config.report import Tracker
from difftrain.config.run_config import ConfigError
from difftrain.report.comparison.paper import task_set
from difftrain.report.examples import Example, Said, examples
from difftrain.report.inputs import RunInputs, load, steps
from difftrain.report.write import markdown

NAME_LIMIT = 128
"""W&B refuses longer groups and job types."""
TAG_LIMIT = 64
"""W&B refuses longer tags."""
UNSENT = ("offline", "dryrun", "disabled")
"""W&B's modes that need no login."""
UNTOLD = {
    "console": "off",
    "disable_git": True,
    "host": "",
    "save_code": False,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}
"""W&B settings that keep back what it would gather by itself."""


def check_login(to: Tracker) -> None:
    """Raises ConfigError where W&B is asked for, is to be sent to, and knows of no login here."""
    if to is not Tracker.wandb:
        return
    try:
        known = wandb.setup().settings.mode in UNSENT or wandb.login(prompt=False, verify=False)
    except (wandb.Error, ValueError) as error:  # a WANDB_MODE that there is not is the latter
        raise ConfigError([f"report_to=wandb: {error}"]) from error
    finally:
        wandb.teardown()  # whose process would else stay for the whole training
    if not known:
        told = "no login; wandb login, WANDB_API_KEY=KEY, or WANDB_MODE=offline to send it later"
        raise ConfigError([f"report_to=wandb: {told}"])


def track(to: Tracker, inputs: RunInputs, report: dict[str, Any]) -> None:
    """Send a finished run to a tracker; `report` is what write() gave. Tracker.none sends nothing.

    A second call replaces TensorBoard's files, and makes a second W&B run. Raises wandb.Error where
    W&B is asked for, cannot be reached and WANDB_MODE is not offline.
    """
    match to:
        case Tracker.wandb:
            to_wandb(inputs, report)
        case Tracker.tensorboard:
            to_tensorboard(inputs, report)
        case Tracker.none:
            pass


def logs(inputs: RunInputs) -> dict[str, list[dict[str, float]]]:
    """The logged steps of each arm, as callbacks wrote them: rewards by group, alarms, looks."""
    return {arm: steps(each.train) for arm, each in inputs.arms.items()}


def numbers(node: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers in nested dictionaries as {"outer/inner": number}. What is None stays out."""
    found = {}
    for name, value in node.items():
        if isinstance(value, dict):
            found |= numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            found[f"{prefix}{name}"] = value
    return found


def marks(report: dict[str, Any], who: str) -> dict[str, Any]:
    """One checkpoint's benchmarks and, under `mean`, their mean."""
    return report[who] | {"mean": report["means"][who]}


def of_the_run(report: dict[str, Any]) -> dict[str, float]:
    """The numbers that belong to no single checkpoint; `stages` has the seconds of every stage."""
    counts, cost = report["counts"], report["cost"]
    wanted = ("samples", "quarantined", "strata", "picks_strata", "verdicts", "cut_off")
    return numbers(
        {
            "counts": {name: counts[name] for name in wanted},
            "cost": {name: value for name, value in cost.items() if name != "by_stage"},
            "stages": cost["by_stage"],
            "differences": report["differences"],
        }
    )


def table_of(report: dict[str, Any]) -> str:
    """The table that a run is a row of: `shapes/pism`, `orsta reasoning/pism`."""
    return f"{data_of(report)}/{report['measure']}"[-NAME_LIMIT:]


def data_of(report: dict[str, Any]) -> str:
    """The data's name, and which of its tasks are read where not all are."""
    data = report["settings"]["data"]
    tasks = task_set(data) or "+".join(data["tasks"] or ())
    return f"{Path(report['data']).name} {tasks}".strip()


def tags(report: dict[str, Any]) -> list[str]:
    """Short words to filter runs by: what is trained, from what, with which seed."""
    told = [
        report["train_stages"],
        str(report["measure"]),
        data_of(report),
        Path(report["model"]).name,
        f"seed {report['seed']}",
        *(["random control"] if "control" in report["means"] else []),
    ]
    return [each[:TAG_LIMIT] for each in dict.fromkeys(told) if each]


def to_wandb(inputs: RunInputs, report: dict[str, Any]) -> None:
    """One W&B run: group names the table (data/measure), job_type the row, tags what to filter by.

    Curves keep TRL's keys; those of a stratum are `<arm>/rewards/accuracy/mean/stratum/hard`.
    """
    settings = report["settings"]
    with wandb.init(
        project=settings["report"]["project"],
        name=report["name"],
        notes=inputs.folder.name,
        group=table_of(report),
        job_type=report["name"][:NAME_LIMIT],
        tags=tags(report),
        config=settings,
        dir=inputs.folder,
        settings=wandb.Settings(**UNTOLD),
    ) as run:
        for arm, rows in logs(inputs).items():
            run.define_metric(f"{arm}/*", step_metric=f"{arm}/step")
            for row in rows:
                run.log({f"{arm}/{name}": value for name, value in row.items()})
        if rows := shown(inputs, settings["report"]["examples"]):
            run.log({"samples": table(rows)})
        told = {who: marks(report, who) for who in report["means"]}
        run.summary.update(numbers({"marks": told}) | of_the_run(report))


def shown(inputs: RunInputs, number: int) -> list[Example]:
    """The samples that the page shows too, up to `number` of each stratum."""
    found = examples(inputs, load(inputs), number)
    return [each for several in found.values() for each in several]


def table(rows: list[Example]) -> wandb.Table:
    """A row a sample: its pictures, the answer to the whole one and the one that failed."""
    most = max(len(each.pictures) for each in rows)
    answered = ("response", "verdict", "mask_percent", "masked_response", "masked_verdict")
    pictures = [f"picture {number + 1}" for number in range(most)]
    return wandb.Table(
        columns=["sample_id", "stratum", "task", *pictures, "question", "answer", *answered],
        data=[
            [each.sample_id, each.stratum, each.task]
            + [picture(address) for address in each.pictures]
            + [None] * (most - len(each.pictures))
            + [each.question, each.gold]
            + answer(each.whole)[1:]
            + answer(each.masked)
            for each in rows
        ],
    )


def answer(said: Said | None) -> list[Any]:
    """Mask ratio in percent, response and verdict; all None if the model was not asked."""
    return [None] * 3 if said is None else [said.mask_percent, said.response, said.verdict]


def picture(address: str) -> wandb.Image:
    """A picture from its data: address."""
    content = b64decode(address.partition(",")[2])
    return wandb.Image(Image.open(io.BytesIO(content)))


def to_tensorboard(inputs: RunInputs, report: dict[str, Any]) -> None:
    """Event files under `tensorboard`: a folder for each checkpoint, and `run` for the rest.

    A checkpoint's curves and marks have the same tags in each folder, so that TensorBoard draws
    them over one another. The report itself is the text `report`.
    """
    root = inputs.folder / "tensorboard"
    if root.exists():
        shutil.rmtree(root)
    curves = logs(inputs)
    for who in report["means"]:
        rows = curves.get(who, [])
        finished = report["made"].get(f"train {who}", {}).get("finished_at")
        events = [scalars(numbers({"marks": marks(report, who)}))]
        write_events(root / who, timed(rows, finished) + events)
    text = Event(summary=text_pb("report", markdown(report)))
    write_events(root / "run", [scalars(of_the_run(report)), text])


def timed(rows: list[dict[str, float]], finished: str | None) -> list[Event]:
    """Logged steps at the time they were made: `seconds` count from the start of training."""
    ended = datetime.fromisoformat(finished).timestamp() if finished else 0.0
    return [
        scalars(
            {name: value for name, value in row.items() if name != "step"},
            step=int(row["step"]),
            at=ended - rows[-1]["seconds"] + row["seconds"],
        )
        for row in rows
    ]


def scalars(values: dict[str, float], step: int = 0, at: float = 0.0) -> Event:
    """One event with a scalar for each value; `at` in seconds since 1970."""
    tagged = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
    return Event(step=step, wall_time=at, summary=Summary(value=tagged))


def write_events(folder: Path, events: Iterable[Event]) -> None:
    """One event file in a folder of its own."""
    writer = EventFileWriter(str(folder))
    for event in events:
        writer.add_event(event)
    writer.close()
