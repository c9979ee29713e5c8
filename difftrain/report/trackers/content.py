"""What trackers get: the run's names and settings, curves, completions, progress, final numbers."""

import json
import re
import secrets
import time
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from difftrain.pipeline import manifest
from difftrain.pipeline.stage import PROGRESS
from difftrain.records import Sample
from difftrain.report.build import SECRET_IN_URL, hide_secrets
from difftrain.report.compare.presets import paper_task_set
from difftrain.report.html import examples_by_stratum
from difftrain.report.inputs import RunInputs, load_run, read_columns
from difftrain.report.text import flatten

TRAIN_LOG, EVAL_LOG, COMPLETION_LOG = "train_log.jsonl", "eval_log.jsonl", "completions.jsonl"
RESUME_LOG = "resume_log.jsonl"
FOLDER = "tracking"  # in the run's folder: what each tracker has, by tracker
Rows = list[dict[str, Any]]


@dataclass(slots=True)
class TrackerState:
    """What one tracker has of one run, in FOLDER/<tracker>.json."""

    path: Path
    run_id: str = field(default_factory=lambda: secrets.token_hex(4))
    """The tracker's id of the run."""
    is_open: bool = False
    """Whether the tracker has a run of this id."""
    created: float = field(default_factory=time.time)
    next_step: int = 0
    """The next step of W&B's history, which counts rows."""
    sent: dict[str, float] = field(default_factory=dict)
    """The last step that was sent of each curve."""
    finished: list[str] = field(default_factory=list)
    """Progress curves whose last row was sent."""
    resumes: dict[str, int] = field(default_factory=dict)
    """How many lines of RESUME_LOG were taken into account, by label."""

    @classmethod
    def load(cls, run_folder: Path, tracker: str) -> Self:
        """The stored state of a run's tracker, or a new one."""
        path = run_folder / FOLDER / f"{tracker}.json"
        return cls(path, **manifest.read_json(path)) if path.is_file() else cls(path)

    def save(self) -> None:
        """Write the state."""
        content = {name: value for name, value in asdict(self).items() if name != "path"}
        manifest.write_json(self.path, content)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunIdentity:
    """The names and settings under which a tracker shows a run; passwords are hidden.

    The group is the table, `data/measure`, and if only some tasks are read it names them. The job
    type is the row: the name of the run.
    """

    project: str
    name: str
    folder: str  # the name of the run's folder
    group: str
    tags: list[str]
    settings: dict[str, Any]

    @classmethod
    def of(cls, inputs: RunInputs, settings: dict[str, Any] | None = None) -> Self:
        """The identity of a run; its settings are those of the report, if there is one."""
        plain = json.loads(json.dumps(settings or hide_secrets(inputs.settings), default=str))
        data, measure = plain["data"], plain["difficulty"]["measure"]
        source = data["path"] if data["source"] in ("jsonl", "auto") else data["source"]
        tasks = paper_task_set(data) or "+".join(data["tasks"] or ())
        data_name = f"{Path(source).name} {tasks}".strip()
        tags = [plain["train_stages"], measure, data_name, Path(plain["model"]["name"]).name]
        tags += [f"seed {plain['seed']}", "random control" if "control" in inputs.arms else ""]
        return cls(
            project=plain["report"]["project"],
            name=plain["name"],
            folder=inputs.folder.name,
            group=f"{data_name}/{measure}",
            tags=[tag for tag in dict.fromkeys(tags) if tag],
            settings=plain,
        )


@dataclass(frozen=True, slots=True)
class Curve:
    """Rows of numbers. Each has the `axis` and the `time` (seconds since 1970) of its values.

    `label` is the arm (`tuned`), what was trained before (`sft tuned`), or `progress`. `key` names
    the source of the rows, because a label can have several.
    """

    label: str
    arm: str | None
    key: str
    rows: Rows
    axis: str = "step"


@dataclass(frozen=True, slots=True)
class CompletionTable:
    """Completions of one step of an arm, with question, gold answer and images (PNG)."""

    arm: str
    step: int
    rows: Rows
    images: list[list[bytes]]  # by row


def scrubbed(message: object) -> str:
    """A message of a tracker in one line, without passwords in URLs."""
    return SECRET_IN_URL.sub("hidden@", re.sub(r"\s+", " ", str(message)).strip())


class LogReader:
    """Reads growing .jsonl files, again only if they have changed."""

    def __init__(self) -> None:
        self._rows: dict[Path, tuple[tuple[int, int], Rows]] = {}

    def rows(self, path: Path) -> Rows:
        """The rows of a file, without an unfinished last line; none if there is no file."""
        try:
            stat = path.stat()
        except FileNotFoundError:
            return []
        version = stat.st_size, stat.st_mtime_ns
        if self._rows.get(path, (None,))[0] != version:
            lines = path.read_text().splitlines(keepends=True)
            rows = [json.loads(line) for line in lines if line.endswith("\n")]
            self._rows[path] = version, rows
        return self._rows[path][1]

    def counted_on(self, folders: Iterable[Path], name: str) -> Rows:
        """The rows of consecutive rounds with steps counted on; `time` is when a step was logged.

        Rows of steps that are not in the train log have the current time.
        """
        rows, offset = [], 0
        for folder in folders:
            train_rows = self.rows(folder / TRAIN_LOG)
            times = _step_times(folder / TRAIN_LOG, train_rows)
            for row in self.rows(folder / name):
                now = times.get(row["step"], time.time())
                rows.append(row | {"step": row["step"] + offset, "time": now})
            offset += train_rows[-1]["step"] if train_rows else 0
        return rows


def _step_times(path: Path, rows: Rows) -> dict[int, float]:
    """When each step was logged: the last one when the file was written, others before it."""
    if not rows or "seconds" not in rows[-1]:
        return {}
    end_s = path.stat().st_mtime
    return {row["step"]: end_s - rows[-1]["seconds"] + row["seconds"] for row in rows}


def curves(inputs: RunInputs, reader: LogReader) -> Iterator[Curve]:
    """The training curves of all arms, as far as they are logged."""
    for arm, folders in inputs.arms.items():
        if folders.sft:
            rows = reader.counted_on([folders.sft], TRAIN_LOG)
            yield Curve(f"sft {arm}", arm, f"sft {arm}", rows)
        for name in (TRAIN_LOG, EVAL_LOG):
            rows = reader.counted_on(inputs.train_folders(arm), name)
            yield Curve(arm, arm, f"{arm}/{name}", rows)


def resumed_steps(inputs: RunInputs, reader: LogReader) -> Iterator[tuple[str, str, list[int]]]:
    """(arm, label, steps after which its training was repeated) of each training."""
    for arm, folders in inputs.arms.items():
        trainings = {f"sft {arm}": [folders.sft] if folders.sft else []}
        trainings[arm] = inputs.train_folders(arm)
        for label, paths in trainings.items():
            yield arm, label, [row["step"] for row in reader.counted_on(paths, RESUME_LOG)]


def completion_tables(
    inputs: RunInputs, reader: LogReader, sent: Mapping[str, float]
) -> Iterator[tuple[str, CompletionTable]]:
    """The tables of steps after the last one that was `sent`, each with its key in `sent`."""
    for arm in inputs.arms:
        key = f"{arm}/{COMPLETION_LOG}"
        by_step: dict[int, Rows] = {}
        for row in reader.counted_on(inputs.train_folders(arm), COMPLETION_LOG):
            if row["step"] > sent.get(key, -1):
                by_step.setdefault(row["step"], []).append(row)
        if not by_step:
            continue
        ids = sorted({row["sample_id"] for rows in by_step.values() for row in rows})
        names = ["sample_id", "images", "question", "answer", "task"]
        samples = read_columns(inputs.data, Sample, names, ids).set_index("sample_id")
        for step, rows in sorted(by_step.items()):
            table, images = [], []
            for row in rows:
                sample = samples.loc[row["sample_id"]]
                about = {name: sample[name] for name in ("task", "question", "answer")}
                row = {name: value for name, value in row.items() if name != "time"}
                table.append({"step": row.pop("step"), **about, **row})
                images.append(list(sample["images"]))
            yield key, CompletionTable(arm, step, table, images)


def progress(inputs: RunInputs, state: TrackerState) -> Iterator[tuple[Curve, float, bool]]:
    """How much of each probe and evaluation is done, over the seconds since tracking began.

    With each curve come its share, and whether the stage is finished. Stages that had finished
    before are left out.
    """
    now_s = int(time.time() - state.created)
    for stage, folder in inputs.stages().items():
        key, name = f"progress/{stage}", stage.replace(", ", " ")
        shares = []
        for path in folder.glob(f"{PROGRESS}*"):
            try:
                shares.append(manifest.read_json(path))
            except (FileNotFoundError, ValueError):  # the stage has just finished
                continue
        is_finished = manifest.read_manifest(folder) is not None
        if is_finished and key in state.sent and key not in state.finished:
            values: dict[str, float] = {"share": 1.0}
        elif shares and not is_finished:
            done, total = (sum(numbers) for numbers in zip(*shares, strict=True))
            values = {"share": done / total if total else 1.0, "done": done, "total": total}
        else:
            continue
        row = {f"{name}/{metric}": value for metric, value in values.items()}
        row |= {"seconds": now_s, "time": time.time()}
        curve = Curve("progress", None, key, [row], axis="seconds")
        yield curve, values["share"], is_finished


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


def arm_scores(report: dict[str, Any]) -> dict[str, Any]:
    """The scores of every arm by benchmark, with their mean."""
    return {arm: report[arm] | {"mean": mean} for arm, mean in report["means"].items()}


def example_rows(inputs: RunInputs, report: dict[str, Any]) -> tuple[Rows, list[list[bytes]]]:
    """A row per example sample with its responses to the full and to a masked image; its images."""
    max_examples = report["settings"]["report"]["examples"]
    by_stratum = examples_by_stratum(inputs, load_run(inputs), max_examples)
    rows, images = [], []
    for stratum, examples in by_stratum.items():
        for example in examples:
            urls = example["images"]
            images.append([b64decode(data_url.partition(",")[2]) for data_url in urls])
            full_image, masked = example["full_image"] or {}, example["masked"] or {}
            rows.append({
                "sample_id": example["sample_id"],
                "stratum": stratum,
                "task": example["task"],
                "question": example["question"],
                "answer": example["gold_answer"],
                "response": full_image.get("response"),
                "verdict": full_image.get("verdict"),
                "parsed_answer": full_image.get("parsed_answer"),
                "grading_rule": full_image.get("rule"),
                "mask_percent": masked.get("mask_percent"),
                "masked_response": masked.get("response"),
                "masked_verdict": masked.get("verdict"),
            })  # fmt: skip
    return rows, images


def with_image_columns(rows: Rows, images: list[list[Any]], before: str) -> Rows:
    """The same rows with columns `image 1`, `image 2`, ... in front of the column `before`.

    A row with fewer images than others has None there.
    """
    max_images = max(map(len, images), default=0)
    merged = []
    for row, row_images in zip(rows, images, strict=True):
        cells = [*row_images, *[None] * (max_images - len(row_images))]
        columns = {f"image {number}": cell for number, cell in enumerate(cells, 1)}
        names = list(row)
        first = {name: row[name] for name in names[: names.index(before)]}
        merged.append(first | columns | row)
    return merged
