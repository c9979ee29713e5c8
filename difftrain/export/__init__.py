"""Exports the scores and the selected samples, in the file formats of other trainers.

Writes scores.parquet, a folder for each trainer, README.md, strata.png and, last, manifest.json.
Images have the size in which the model got them. A trainer with the same pixel budget does not
resize them, so the coordinates in box answers stay valid.
"""

import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, Image, List, Value
from huggingface_hub import HfApi
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from difftrain.config.data import DataConfig
from difftrain.config.report import ExportFormat
from difftrain.config.run_config import RunConfig
from difftrain.data import dataset, prompts
from difftrain.data.quarantine import EmptyDatasetError
from difftrain.data.storage import hub_request
from difftrain.difficulty.definition import definition
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.model_session import ModelSession
from difftrain.pipeline.paths import RunPaths
from difftrain.pipeline.stage import run_stage
from difftrain.recipes import difficulty
from difftrain.records import AnswerKind, Arm, Measure, Sample, Score, Selection, Stratum

logger = logging.getLogger(__name__)
MADE_BY = "python launch/export.py"  # the command that errors about unfinished stages name
BOXED_KINDS = (AnswerKind.number, AnswerKind.choice, AnswerKind.count)  # exported as \boxed{}
ROWS_PER_GROUP = 32  # a parquet file is written in groups of rows, to save memory
TEXT = Value("string")
COLUMN_TYPES = {
    **{measure.value: Value("float64") for measure in Measure},
    "options": List(TEXT),
    "selected": Value("bool"),
    "images": List(Image()),
    "prompt": List({"role": TEXT, "content": TEXT}),
    "reward_model": {"style": TEXT, "ground_truth": TEXT},
    "extra_info": {
        "split": TEXT,
        "index": Value("int64"),
        **dict.fromkeys(("answer", "question", "sample_id", "stratum"), TEXT),
    },
}
"""The types of all columns that are not text."""
SAMPLE_COLUMNS = ("sample_id", "source", "task", "task_set", "question", "answer", "answer_kind")
EXTRA_TYPES = {bool: Value("bool"), int: Value("int64"), float: Value("float64")}
COLORS = {"easy": "#8cc5e3", "medium": "#2f78b4", "hard": "#d1542b", "unsolved": "#55585e",
          "none": "#d5d5d5"}  # fmt: skip
"""Stratum -> color, in the order of the figure; `none`: the sample has no stratum."""


@dataclass(frozen=True, slots=True)
class ExportRow:
    """A sample, its scores, its stratum (easy to unsolved) by difficulty.measure, its selection."""

    sample: Sample
    scores: Mapping[Measure, Score]
    stratum: Stratum | None
    selection: Selection | None


def run(config: RunConfig, world: World, _recipe_settings: list[str]) -> Path:
    """Run the recipe up to its selection, then export scores and selection; returns the folder."""
    paths = RunPaths(config)
    samples = difficulty.load_samples(config, paths, world)
    session = ModelSession(config.model, config.data)
    difficulty.probe(config, paths, world, session, samples)
    difficulty.score(config, paths, world)
    difficulty.select(config, paths, world, Arm.tuned, minimum=1)
    stages = {"data": paths.data, "score": paths.score, "select": paths.selection(Arm.tuned)}
    return export(config, stages, paths.export, world)


def export(config: RunConfig, stages: Mapping[str, Path], folder: Path, world: World) -> Path:
    """Write the folder if it is not finished, and upload it if export.push_to_hub is set.

    `stages`: the folders of `data`, `score` and `select`. Raises MissingArtifact if a stage is not
    finished, EmptyDatasetError if no sample is selected, HubUnavailable if the hub refuses.
    """
    run_stage(
        folder,
        world,
        lambda: _write_files(config, stages, folder),
        settings=asdict(config.export),
        inputs={name: stage.name for name, stage in stages.items()},
    )
    if world.is_first and (repository := config.export.push_to_hub):
        logger.info("published: %s", publish(folder, repository, config.export.private))
    return folder


def _write_files(config: RunConfig, stages: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    """Write all files except manifest.json; returns the counts for the manifest."""
    selections = parquet.read_finished(stages["select"], Selection, MADE_BY)
    if config.export.formats and not selections:
        raise EmptyDatasetError("no sample is selected; export.formats=[] writes only the scores")
    scores: dict[str, dict[Measure, Score]] = {}
    for score in parquet.read_finished(stages["score"], Score, MADE_BY):
        scores.setdefault(score.sample_id, {})[score.measure] = score
    selection_by_id = {selection.sample_id: selection for selection in selections}
    row_by_id = {}
    for sample in parquet.read_finished(stages["data"], Sample, MADE_BY):
        by_measure = scores.get(sample.sample_id, {})
        score = by_measure.get(config.difficulty.measure)
        stratum = score.stratum if score else None
        selection = selection_by_id.get(sample.sample_id)
        row_by_id[sample.sample_id] = ExportRow(sample, by_measure, stratum, selection)
    rows = list(row_by_id.values())
    measures = [measure for measure in Measure if any(measure in row.scores for row in rows)]
    folder.mkdir(parents=True, exist_ok=True)
    extra_types = _extra_types(row.sample for row in rows)
    score_rows = _score_rows(rows, measures, config.data, extra_types)
    _write_parquet(folder / "scores.parquet", score_rows, extra_types)
    selected = [row_by_id[selection.sample_id] for selection in selections]
    for export_format in config.export.formats:
        _write_format(folder / export_format, export_format, selected, extra_types)
    tasks = pd.Series([row.sample.task for row in rows], name="task")
    strata = pd.crosstab(tasks, pd.Series([row.stratum or "none" for row in rows]))
    strata = strata[[name for name in COLORS if name in strata]]
    _write_figure(strata, folder / "strata.png")
    is_selected = pd.Series([row.selection is not None for row in rows])
    counts = strata.assign(samples=strata.sum(axis=1), selected=is_selected.groupby(tasks).sum())
    counts.loc["**all**"] = counts.sum()  # bold in Markdown
    settings = asdict(config)
    settings = {key: settings[key] for key in ("data", "probe", "difficulty", "select", "seed")}
    data_manifest = manifest.read_manifest(stages["data"])
    template = Path(__file__).with_name("card.md.jinja").read_text(encoding="utf-8")
    card = jinja2.Template(template, trim_blocks=True, keep_trailing_newline=True).render(
        config=config,
        counts=counts,
        measures=measures,
        meanings={measure: definition(measure).meaning for measure in measures},
        rejected=data_manifest["counts"]["quarantined"] if data_manifest else 0,
        revision=manifest.git_revision() or "unknown",
        settings=json.dumps(settings, indent=2, sort_keys=True),
        token_side=config.data.side,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    return {"samples": len(rows), "selected": len(selected)}


def publish(folder: Path, repository: str, private: bool, api: Any = None) -> str:
    """Create the hub dataset if it does not exist, and upload the folder; returns its address.

    Raises HubUnavailable, naming the finished folder, if the hub refuses or does not answer.
    """
    api = api or HfApi()  # tests give another client
    advice = "run the same command again with network and `hf auth login`"
    with hub_request(
        f"export.push_to_hub={repository}: the upload to the hub failed",
        f"The export is complete at {folder}; {advice}",
    ):
        api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=str(folder),
            repo_type="dataset",
            commit_message="Scores and selection by difftrain",
            ignore_patterns=["manifest.json", ".*"],
        )
    return f"{getattr(api, 'endpoint', 'https://huggingface.co')}/datasets/{repository}"


def _write_parquet(
    path: Path, rows: Iterator[dict[str, Any]], extra_types: Mapping[str, Any]
) -> None:
    """Write a parquet file in which the library `datasets` recognizes images."""
    groups = iter(lambda: list(islice(rows, ROWS_PER_GROUP)), [])  # ends at an empty group
    first_group = next(groups)
    types = {**dict.fromkeys(first_group[0], TEXT), **extra_types, **COLUMN_TYPES}
    schema = Features({name: types[name] for name in first_group[0]}).arrow_schema
    with pq.ParquetWriter(path, schema) as file:
        for group in chain([first_group], groups):
            file.write_table(pa.Table.from_pylist(group, schema=schema))


def _extra_cells(sample: Sample) -> dict[str, Any]:
    """The source's columns that difftrain does not read, and all accepted answers if several."""
    cells = json.loads(sample.extra) if sample.extra else {}
    return cells | ({"answers": list(sample.accepted)} if sample.accepted else {})


def _extra_types(samples: Iterable[Sample]) -> dict[str, Any]:
    """The type of each extra column: that of all its values, or TEXT for values as JSON."""
    types: dict[str, Any] = {}
    for sample in samples:
        for name, value in _extra_cells(sample).items():
            value_type = _extra_type(value)
            known = types.setdefault(name, value_type)
            if known != value_type:
                is_number = {known.dtype, value_type.dtype} == {"int64", "float64"}
                types[name] = Value("float64") if is_number else TEXT
    return types


def _extra_type(value: Any) -> Any:
    """The column type of one value; TEXT if it can only be stored as JSON."""
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        return List(TEXT)
    is_too_large = type(value) is int and abs(value) >= 2**63
    return TEXT if is_too_large else EXTRA_TYPES.get(type(value), TEXT)


def _with_extra(
    row: dict[str, Any], sample: Sample, extra_types: Mapping[str, Any]
) -> dict[str, Any]:
    """The row with the sample's extra columns, except those whose name the row already has."""
    cells, added = _extra_cells(sample), {}
    for name in extra_types.keys() - row.keys():
        value = cells.get(name)
        if extra_types[name] == TEXT and not isinstance(value, str | None):
            value = json.dumps(value, ensure_ascii=False)
        added[name] = value
    return row | dict(sorted(added.items()))


def _score_rows(
    rows: Sequence[ExportRow],
    measures: Sequence[Measure],
    data: DataConfig,
    extra_types: Mapping[str, Any],
) -> Iterator[dict[str, Any]]:
    """Yields the rows of scores.parquet; `original` is the source's row as JSON.

    `images` have the size in which the model got them; box answers refer to their pixels.
    """
    for row, original in _with_originals(rows, data):
        sample, selection = row.sample, row.selection
        cells = {name: getattr(sample, name) for name in SAMPLE_COLUMNS}
        cells["options"] = list(sample.options)
        for measure in measures:
            score = row.scores.get(measure)
            cells[measure.value] = score.value if score else None
            cells[f"{measure.value}_stratum"] = score.stratum if score else None
        cells |= {
            "stratum": row.stratum,
            "selected": selection is not None,
            "stage": selection.stage if selection else None,
            "reason": selection.reason if selection else None,
            "images": _image_cells(sample),
            "original": original,
        }
        yield _with_extra(cells, sample, extra_types)


def _with_originals(
    rows: Sequence[ExportRow], data: DataConfig
) -> Iterator[tuple[ExportRow, str | None]]:
    """Reads the source again; yields each sample with its row as JSON (None: it was generated).

    Raises EmptyDatasetError if the source no longer has a sample's row.
    """

    def describe(value: Any) -> str:  # for values that JSON cannot represent
        return f"<{len(value)} bytes>" if isinstance(value, bytes) else str(value)

    remaining = {row.sample.source: row for row in rows}
    for location, original in dataset.original_rows(data):
        if not remaining:
            break
        if (row := remaining.pop(location, None)) is not None:
            yield row, json.dumps(original, ensure_ascii=False, default=describe)
    # Generated samples have no row, and all samples of a run have the same kind of source.
    if remaining and next(iter(remaining)).startswith("shapes/"):
        yield from ((row, None) for row in remaining.values())
    elif remaining:
        raise EmptyDatasetError(
            f"{data.path} no longer has the rows of {len(remaining)} samples, such as "
            f"{next(iter(remaining))}: the file changed; run the same command again"
        )


def _image_cells(sample: Sample) -> list[dict[str, Any]]:
    name = sample.sample_id
    return [{"bytes": png, "path": f"{name}-{i}.png"} for i, png in enumerate(sample.images)]


def _messages(text: str, response: str | None = None) -> list[dict[str, str]]:
    contents = {"system": prompts.SYSTEM, "user": text, "assistant": response}
    return [{"role": role, "content": content} for role, content in contents.items() if content]


def _to_format(export_format: ExportFormat, row: ExportRow, index: int) -> dict[str, Any]:
    """A selected sample as a row in a trainer's format."""
    sample, answer = row.sample, row.sample.answer
    text = prompts.user_text(sample.question, sample.options)
    text_with_images = "<image>" * len(sample.images) + text
    # Rewards of other trainers can parse `solution`. They do not read the labels; user code may.
    tagged = f"<answer>{answer}</answer>"
    solution = f"\\boxed{{{answer}}}" if sample.answer_kind in BOXED_KINDS else tagged
    labels = {
        "sample_id": sample.sample_id,
        "stratum": row.stratum,
        "task": sample.task,
        "answer_kind": sample.answer_kind,
    }
    images, messages = _image_cells(sample), _messages(text_with_images)
    match export_format:
        case ExportFormat.trl:  # GRPOTrainer reads these columns
            return {"prompt": _messages(text), "images": images, "solution": solution, **labels}
        case ExportFormat.easyr1:  # its default column names
            return {"problem": text_with_images, "images": images, "answer": answer, **labels}
        case ExportFormat.ms_swift:
            return {"messages": messages, "images": images, "solution": solution, **labels}
        case ExportFormat.llama_factory:  # for supervised training
            rationale = f"<think>{sample.rationale}</think>" if sample.rationale else ""
            messages = _messages(text_with_images, rationale + tagged)
            return {"messages": messages, "images": images, **labels}
        case ExportFormat.verl:  # the user adds a reward for data_source `difftrain`
            return {
                "data_source": "difftrain",
                "prompt": messages,
                "images": images,
                "ability": sample.task,
                "reward_model": {"style": "rule", "ground_truth": answer},
                "extra_info": {
                    "split": "train",
                    "index": index,
                    "answer": answer,
                    "question": text,
                    "sample_id": sample.sample_id,
                    "stratum": row.stratum,
                },
            }


def _write_format(
    folder: Path,
    export_format: ExportFormat,
    rows: Sequence[ExportRow],
    extra_types: Mapping[str, Any],
) -> None:
    """Write a trainer's folder: train.parquet with the images inside it; or train.jsonl (ms_swift)
    or train.json and dataset_info.json (llama_factory), with paths relative to the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    converted = (
        _with_extra(_to_format(export_format, row, index), row.sample, extra_types)
        for index, row in enumerate(rows)
    )
    if export_format not in (ExportFormat.ms_swift, ExportFormat.llama_factory):
        _write_parquet(folder / "train.parquet", converted, extra_types)
        return
    (folder / "images").mkdir()
    lines = []
    for row in converted:
        for image in row["images"]:
            (folder / "images" / image["path"]).write_bytes(image["bytes"])
        row["images"] = [f"images/{image['path']}" for image in row["images"]]
        lines.append(json.dumps(row, ensure_ascii=False))
    if export_format is ExportFormat.ms_swift:
        (folder / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        array = "[\n" + ",\n".join(lines) + "\n]\n"
        (folder / "train.json").write_text(array, encoding="utf-8")
        shutil.copyfile(Path(__file__).with_name("dataset_info.json"), folder / "dataset_info.json")


def _write_figure(counts: pd.DataFrame, path: Path) -> None:
    """Draw strata.png: for each task, the share of samples in each stratum."""
    figure = Figure(figsize=(7, 1 + 0.35 * len(counts)), layout="constrained")
    axes = figure.add_subplot()
    shares = counts.div(counts.sum(axis=1), axis=0)
    left = shares.cumsum(axis=1) - shares
    for name in shares:
        axes.barh(shares.index, shares[name], left=left[name], color=COLORS[name], label=name)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of samples")
    figure.legend(loc="outside upper center", ncols=5, frameon=False)
    FigureCanvasAgg(figure).print_png(path)
