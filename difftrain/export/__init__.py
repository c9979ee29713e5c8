"""Scores and selection for others: parquet beside the original rows, and other trainers' formats.

Writes scores.parquet, a folder for each trainer, README.md, and manifest.json last. The images are
those that the model saw, so a trainer with the same pixel budget resizes nothing and box answers
stay valid.
"""

import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, Image, List, Value
from huggingface_hub import HfApi
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from difftrain.config import run_config
from difftrain.config.data import DataConfig
from difftrain.config.report import ExportFormat
from difftrain.config.run_config import RunConfig
from difftrain.data import dataset, prompts
from difftrain.data.quarantine import EmptyDatasetError
from difftrain.data.storage import HubUnavailable
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.model_session import ModelSession
from difftrain.pipeline.paths import RunPaths
from difftrain.pipeline.stage import run_stage
from difftrain.recipes import difficulty
from difftrain.records import AnswerKind, Arm, Measure, Sample, Score, Selection, Stratum

logger = logging.getLogger(__name__)
MADE_BY = "python launch/export.py"
BOXED_KINDS = (AnswerKind.number, AnswerKind.choice, AnswerKind.count)
ROWS_PER_GROUP = 32
TEXT = Value("string")
IMAGES = List(Image())
TURNS = List({"role": TEXT, "content": TEXT})
SAMPLE_COLUMNS = ("sample_id", "source", "task", "task_set", "question", "answer", "answer_kind")
EXTRA_COLUMNS = dict.fromkeys(("sample_id", "stratum", "task", "answer_kind"), TEXT)
"""Other trainers pass these to their reward functions or ignore them."""
METHODS = {
    Measure.pism: "the share of the image that must be masked before the model fails",
    Measure.cmab: "how the model's attention is balanced between image and text",
    Measure.cde: "how much more often the model is correct with the image than without it",
    Measure.ace: "how much the model's attention concentrates on single tokens of its own response",
    Measure.drm: "how often the model is incorrect with the image",
}
USE = {
    ExportFormat.trl: '`load_dataset("parquet", data_files="trl/train.parquet")`, for GRPOTrainer',
    ExportFormat.ms_swift: "`swift rlhf --dataset train.jsonl`, started in `ms_swift/`",
    ExportFormat.easyr1: "`data.train_files=easyr1/train.parquet`",
    ExportFormat.verl: "`data.train_files=verl/train.parquet`, with your own reward function",
    ExportFormat.llama_factory: "`dataset_dir: llama_factory`, `dataset: difftrain_selection`",
}
COLORS = {"easy": "#8cc5e3", "medium": "#2f78b4", "hard": "#d1542b", "unsolved": "#55585e",
          "none": "#d5d5d5"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ExportRow:
    """A sample, its scores by measure, its stratum by the run's measure, its selection if any."""

    sample: Sample
    scores: Mapping[Measure, Score]
    stratum: Stratum | None
    selection: Selection | None

    @property
    def prompt(self) -> str:
        """The user's text with options, without image placeholders."""
        return prompts.user_text(self.sample.question, self.sample.options)

    @property
    def prompt_with_images(self) -> str:
        """The user's text after one <image> for each image."""
        return "<image>" * len(self.sample.images) + self.prompt

    @property
    def solution(self) -> str:
        r"""The gold answer as other trainers' rewards read it: \boxed{} or <answer></answer>."""
        answer = self.sample.answer
        if self.sample.answer_kind in BOXED_KINDS:
            return f"\\boxed{{{answer}}}"
        return f"<answer>{answer}</answer>"

    @property
    def image_cells(self) -> list[dict[str, Any]]:
        """The images as cells of an IMAGES column."""
        return [
            {"bytes": png, "path": f"{self.sample.sample_id}-{index}.png"}
            for index, png in enumerate(self.sample.images)
        ]

    @property
    def extra_cells(self) -> dict[str, Any]:
        """The cells of EXTRA_COLUMNS."""
        cells = {name: getattr(self.sample, name) for name in ("sample_id", "task", "answer_kind")}
        return cells | {"stratum": self.stratum}


def run(config: RunConfig, world: World, _: list[str]) -> Path:
    """Data, probe, scores and selection as the recipe makes them, then the export; its folder."""
    paths = RunPaths(config)
    samples = difficulty.load_samples(config, paths, world)
    session = ModelSession(config.model, config.data)
    difficulty.probe(config, paths, world, session, samples)
    difficulty.score(config, paths, world)
    difficulty.select(config, paths, world, Arm.tuned)
    stages = {"data": paths.data, "score": paths.score, "select": paths.selection(Arm.tuned)}
    return export(config, stages, paths.export, world)


def export(config: RunConfig, stages: Mapping[str, Path], folder: Path, world: World) -> Path:
    """Write the folder if it is not finished, and publish it if export.push_to_hub is set.

    `stages`: the folders of `data`, `score` and `select`. Raises MissingArtifact for a stage that
    is not finished, EmptyDatasetError without a selection, HubUnavailable if the hub refuses.
    """
    run_stage(
        folder,
        world,
        lambda: _write_files(config, stages, folder),
        settings=run_config.plain(config.export),
        inputs={name: stage.name for name, stage in stages.items()},
    )
    if world.is_first and (repository := config.export.push_to_hub):
        logger.info("published: %s", publish(folder, repository, config.export.private))
    return folder


def _write_files(config: RunConfig, stages: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    """Write everything but the manifest; returns its counts. Images stay on disk until written."""
    selections = parquet.read_finished(stages["select"], Selection, MADE_BY)
    if config.export.formats and not selections:
        raise EmptyDatasetError("no sample is selected; export.formats=[] writes the scores alone")
    scores: dict[str, dict[Measure, Score]] = {}
    for score in parquet.read_finished(stages["score"], Score, MADE_BY):
        scores.setdefault(score.sample_id, {})[score.measure] = score
    by_id = {selection.sample_id: selection for selection in selections}
    rows = {}
    for sample in parquet.read_finished(stages["data"], Sample, MADE_BY):
        by_measure = scores.get(sample.sample_id, {})
        score = by_measure.get(config.difficulty.measure)
        selection = by_id.get(sample.sample_id)
        stratum = score.stratum if score else None
        rows[sample.sample_id] = ExportRow(sample, by_measure, stratum, selection)
    count = write_scores(folder / "scores.parquet", [*rows.values()], config.data)
    selected = [rows[selection.sample_id] for selection in selections]
    for name in config.export.formats:
        shutil.rmtree(folder / name.value, ignore_errors=True)
        FORMATS[name](folder / name.value, selected)
    data_manifest = manifest.read_manifest(stages["data"])
    rejected = data_manifest["counts"]["quarantined"] if data_manifest else 0
    counts = _counts_by_task([*rows.values()])
    _write_figure(counts, folder / "strata.png")
    text = _card(config, [*rows.values()], counts, rejected)
    (folder / "README.md").write_text(text, encoding="utf-8")
    return {"samples": count, "selected": len(selected)}


def publish(folder: Path, repository: str, private: bool, api: Any = None) -> str:
    """Create the dataset if it does not exist, and upload the folder; returns its address.

    Raises HubUnavailable, naming the finished folder, if the hub refuses or does not answer.
    """
    api = api or HfApi()
    try:
        api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=str(folder),
            repo_type="dataset",
            commit_message="Scores and selection by difftrain",
            ignore_patterns=["manifest.json", ".*"],
        )
    except (OSError, ValueError, httpx.HTTPError) as error:
        message = str(error).splitlines()[0] if str(error) else "-"
        raise HubUnavailable(
            f"export.push_to_hub={repository}: the hub refused the upload "
            f"({type(error).__name__}: {message}). The export is complete at {folder}; "
            "run the same command again with network and `hf auth login`"
        ) from error
    return f"{getattr(api, 'endpoint', 'https://huggingface.co')}/datasets/{repository}"


def _write_parquet(path: Path, features: dict[str, Any], rows: Iterable[dict[str, Any]]) -> int:
    """Write a file whose images `datasets` opens as images; returns the number of rows.

    Keeps ROWS_PER_GROUP rows in memory.
    """
    schema = Features(features).arrow_schema
    path.parent.mkdir(parents=True, exist_ok=True)
    total, buffer = 0, []
    with pq.ParquetWriter(path, schema) as file:
        for row in rows:
            buffer.append(row)
            if len(buffer) == ROWS_PER_GROUP:
                file.write_table(pa.Table.from_pylist(buffer, schema=schema))
                total, buffer = total + len(buffer), []
        if buffer:
            file.write_table(pa.Table.from_pylist(buffer, schema=schema))
    return total + len(buffer)


def write_scores(path: Path, rows: Sequence[ExportRow], data: DataConfig) -> int:
    """Write scores.parquet: every sample, each measure's value and stratum, the selection, and in
    `original` the source's row as JSON (null for the embedded world). Returns the number of rows.

    `images` are the images as the model saw them; box answers refer to their pixels.
    """
    measures = [measure for measure in Measure if any(measure in row.scores for row in rows)]
    features: dict[str, Any] = {**dict.fromkeys(SAMPLE_COLUMNS, TEXT), "options": List(TEXT)}
    for measure in measures:
        features |= {measure.value: Value("float64"), f"{measure.value}_stratum": TEXT}
    features |= {"stratum": TEXT, "selected": Value("bool"), "stage": TEXT, "reason": TEXT}
    features |= {"images": IMAGES, "original": TEXT}

    def cells(row: ExportRow, original: str | None) -> dict[str, Any]:
        values: dict[str, Any] = {name: getattr(row.sample, name) for name in SAMPLE_COLUMNS}
        for measure in measures:
            score = row.scores.get(measure)
            values[measure.value] = score.value if score else None
            values[f"{measure.value}_stratum"] = score.stratum if score else None
        return values | {
            "options": list(row.sample.options),
            "stratum": row.stratum,
            "selected": row.selection is not None,
            "stage": row.selection.stage if row.selection else None,
            "reason": row.selection.reason if row.selection else None,
            "images": row.image_cells,
            "original": original,
        }

    return _write_parquet(path, features, (cells(*pair) for pair in _with_originals(rows, data)))


def _with_originals(
    rows: Sequence[ExportRow], data: DataConfig
) -> Iterator[tuple[ExportRow, str | None]]:
    """Every sample with its source's row as JSON, in the source's order.

    The source is read again, as a stream. Raises EmptyDatasetError if a sample's row is gone.
    """

    def describe(value: Any) -> str:  # what JSON cannot hold
        return f"<{len(value)} bytes>" if isinstance(value, bytes) else str(value)

    remaining = {row.sample.source: row for row in rows}
    for source, original in dataset.original_rows(data):
        if not remaining:
            break
        if (row := remaining.pop(source, None)) is not None:
            yield row, json.dumps(original, ensure_ascii=False, default=describe)
    if remaining and next(iter(remaining)).startswith("shapes/"):
        yield from ((row, None) for row in remaining.values())
    elif remaining:
        raise EmptyDatasetError(
            f"{len(remaining)} samples have no row in {data.path} any more, such as "
            f"{next(iter(remaining))}: the file changed; run the same command again"
        )


def _turns(text: str, response: str | None = None) -> list[dict[str, str]]:
    """The turns of the system, of the user, and of the assistant if there is a response."""
    contents = {"system": prompts.SYSTEM, "user": text, "assistant": response}
    return [{"role": role, "content": content} for role, content in contents.items() if content]


def _write_trl(folder: Path, rows: Sequence[ExportRow]) -> None:
    """train.parquet for GRPOTrainer without changes: prompt, images, solution."""
    columns = {"prompt": TURNS, "images": IMAGES, "solution": TEXT, **EXTRA_COLUMNS}
    cells = (
        {
            "prompt": _turns(row.prompt),
            "images": row.image_cells,
            "solution": row.solution,
            **row.extra_cells,
        }
        for row in rows
    )
    _write_parquet(folder / "train.parquet", columns, cells)


def _write_easyr1(folder: Path, rows: Sequence[ExportRow]) -> None:
    """train.parquet with problem, images and answer, EasyR1's default keys."""
    columns = {"problem": TEXT, "images": IMAGES, "answer": TEXT, **EXTRA_COLUMNS}
    cells = (
        {
            "problem": row.prompt_with_images,
            "images": row.image_cells,
            "answer": row.sample.answer,
            **row.extra_cells,
        }
        for row in rows
    )
    _write_parquet(folder / "train.parquet", columns, cells)


def _write_verl(folder: Path, rows: Sequence[ExportRow]) -> None:
    """train.parquet for verl; data_source `difftrain` needs a reward function of your own."""
    info = dict.fromkeys(("answer", "question", "sample_id", "stratum"), TEXT)
    columns = {
        "data_source": TEXT,
        "prompt": TURNS,
        "images": IMAGES,
        "ability": TEXT,
        "reward_model": {"style": TEXT, "ground_truth": TEXT},
        "extra_info": {"split": TEXT, "index": Value("int64"), **info},
    }
    cells = (
        {
            "data_source": "difftrain",
            "prompt": _turns(row.prompt_with_images),
            "images": row.image_cells,
            "ability": row.sample.task,
            "reward_model": {"style": "rule", "ground_truth": row.sample.answer},
            "extra_info": {
                "split": "train",
                "index": index,
                "answer": row.sample.answer,
                "question": row.prompt,
                "sample_id": row.sample.sample_id,
                "stratum": row.stratum,
            },
        }
        for index, row in enumerate(rows)
    )
    _write_parquet(folder / "train.parquet", columns, cells)


def _write_images(folder: Path, row: ExportRow) -> list[str]:
    """Write a sample's images below images/; returns their names relative to the folder."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    names = []
    for cell in row.image_cells:
        names.append(f"images/{cell['path']}")
        (folder / names[-1]).write_bytes(cell["bytes"])
    return names


def _write_ms_swift(folder: Path, rows: Sequence[ExportRow]) -> None:
    """train.jsonl with messages, images and solution; paths are relative to the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "train.jsonl").open("w", encoding="utf-8") as file:
        for row in rows:
            line = {
                "messages": _turns(row.prompt_with_images),
                "images": _write_images(folder, row),
                "solution": row.solution,
                **row.extra_cells,
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _write_llama_factory(folder: Path, rows: Sequence[ExportRow]) -> None:
    """train.json in sharegpt form and dataset_info.json, for supervised training.

    The response is the rationale if there is one, and the answer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "train.json").open("w", encoding="utf-8") as file:
        file.write("[")
        for index, row in enumerate(rows):
            sample = row.sample
            rationale = f"<think>{sample.rationale}</think>" if sample.rationale else ""
            response = f"{rationale}<answer>{sample.answer}</answer>"
            line = {
                "messages": _turns(row.prompt_with_images, response),
                "images": _write_images(folder, row),
                **row.extra_cells,
            }
            file.write(f"{',' if index else ''}\n{json.dumps(line, ensure_ascii=False)}")
        file.write("\n]\n")
    roles = {f"{role}_tag": role for role in ("role", "content", "user", "assistant", "system")}
    entry = {
        "file_name": "train.json",
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "images": "images"},
        "tags": roles,
    }
    info = json.dumps({"difftrain_selection": entry}, indent=2)
    (folder / "dataset_info.json").write_text(info)


FORMATS: dict[ExportFormat, Callable[[Path, Sequence[ExportRow]], None]] = {
    ExportFormat.trl: _write_trl,
    ExportFormat.ms_swift: _write_ms_swift,
    ExportFormat.easyr1: _write_easyr1,
    ExportFormat.verl: _write_verl,
    ExportFormat.llama_factory: _write_llama_factory,
}


def _counts_by_task(rows: Sequence[ExportRow]) -> dict[str, dict[str, int]]:
    """Task -> stratum -> samples, of the strata that occur; `none`: the measure gives none."""
    strata = Counter((row.sample.task, row.stratum or "none") for row in rows)
    names = [*(stratum.value for stratum in Stratum), "none"]
    present = [name for name in names if any(name == stratum for _, stratum in strata)]
    tasks = sorted({row.sample.task for row in rows})
    return {task: {name: strata[task, name] for name in present} for task in tasks}


def _counts_table(counts: dict[str, dict[str, int]], rows: Sequence[ExportRow]) -> str:
    """Samples and selected samples by task and stratum, in Markdown."""
    selected = Counter(row.sample.task for row in rows if row.selection)
    names = [*next(iter(counts.values()), {})]
    lines = [f"| task | {' | '.join(names)} | samples | selected |"]
    lines.append("|---" + "|--:" * (len(names) + 2) + "|")
    total = {name: sum(strata[name] for strata in counts.values()) for name in names}
    chosen = {**selected, "**all**": selected.total()}
    for task, strata in {**counts, "**all**": total}.items():
        cells = " | ".join(map(str, strata.values()))
        lines.append(f"| {task} | {cells} | {sum(strata.values())} | {chosen.get(task, 0)} |")
    return "\n".join(lines)


def _write_figure(counts: dict[str, dict[str, int]], path: Path) -> None:
    """strata.png: the share of each stratum by task."""
    page = Figure(figsize=(7, 1 + 0.35 * len(counts)), layout="constrained")
    axes = page.add_subplot()
    left = [0.0] * len(counts)
    for name in next(iter(counts.values()), {}):
        shares = [strata[name] / sum(strata.values()) for strata in counts.values()]
        axes.barh(list(counts), shares, left=left, color=COLORS[name], label=name)
        left = [start + share for start, share in zip(left, shares, strict=True)]
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of samples")
    page.legend(loc="outside upper center", ncols=5, frameon=False)
    FigureCanvasAgg(page).print_png(path)


def _card(
    config: RunConfig,
    rows: Sequence[ExportRow],
    counts: dict[str, dict[str, int]],
    rejected: int,
) -> str:
    """The data card: what a stranger needs to judge and use the folder, after the YAML header that
    the hub reads (the configurations that open as tables)."""
    tables = {"scores": "scores.parquet"} | {
        name.value: f"{name.value}/train.parquet"
        for name in config.export.formats
        if name not in (ExportFormat.ms_swift, ExportFormat.llama_factory)
    }
    configs = "\n".join(
        f"- config_name: {name}\n  data_files: {file}" for name, file in tables.items()
    )
    measures = [measure for measure in METHODS if any(measure in row.scores for row in rows)]
    methods = "\n".join(f"* `{measure.value}`: {METHODS[measure]}." for measure in measures)
    formats = "\n".join(f"* `{name.value}/`: {USE[name]}" for name in config.export.formats)
    plain = run_config.plain(config)
    settings = {key: plain[key] for key in ("data", "probe", "difficulty", "select", "seed")}
    max_pixels = config.data.max_pixels
    return f"""---
tags: [difftrain, difficulty, vision-language]
configs:
{configs}
---

# {config.name}: samples scored by difficulty, and a selection

{len(rows)} samples with the difficulty they have for `{config.model.name}`, of which
{sum(row.selection is not None for row in rows)} are selected for training. {rejected} rows of
the source could not be used and are not here. Difficulty is relative to that model: score again
for another one.

## Method

{methods}

Strata follow `{config.difficulty.measure.value}`. Made with difftrain (`python launch/export.py
recipe={config.recipe}`), revision `{manifest.git_revision() or "unknown"}`.

## Counts

{_counts_table(counts, rows)}

![share of each stratum by task](strata.png)

## Files

* `scores.parquet`: every sample with its scores, its strata, its selection, its images, and in
  `original` the source's own row as JSON
{formats}

Images are those that the model saw: at most {max_pixels} pixels
({max_pixels // 784} image tokens of 28 x 28). Boxes count pixels of these
images, so use the same budget in training, or a larger one.

## Settings

```json
{json.dumps(settings, indent=2, sort_keys=True)}
```

## Limits

Licenses of the source and of its images apply. A selection is a claim that these samples are
worth training on; compare it with an equal number of random ones before believing it.
"""
