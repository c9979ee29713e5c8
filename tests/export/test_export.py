"""An export contains scores and selected samples, in formats of other trainers and of difftrain.

PISM and CMAB are measures of difficulty. By its score a sample belongs to a stratum: easy, medium,
hard or unsolved.
"""

import inspect
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from huggingface_hub import HfApi
from PIL import Image
from transformers import AutoProcessor
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from difftrain import export
from difftrain.config.data import DataConfig, Source
from difftrain.config.report import ExportConfig, ExportFormat
from difftrain.config.run_config import RunConfig
from difftrain.data import dataset
from difftrain.data.build import build_dataset
from difftrain.data.quarantine import EmptyDatasetError
from difftrain.data.storage import HubUnavailable
from difftrain.model import resolve
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.records import Measure, Sample, Score, Selection, Stratum, TrainStage

STRATA = (Stratum.easy, Stratum.hard, Stratum.medium)
BOX = "[{'bbox_2d': [200, 150, 400, 450], 'label': \"child's kite\"}]"
ROWS: list[dict[str, Any]] = [
    {"prompt": "<image>Perimeter?", "ground_truth": "\\boxed{\\frac{1}{2}}", "ability": "math"},
    {"prompt": "<image>Find it.", "ground_truth": BOX, "ability": "cv_detection"},
    {"prompt": "<image>Read.", "ground_truth": ["No entry", "Stop"], "ability": "ocr"},
    {"prompt": "Which?", "ground_truth": "B", "options": ["red", "blue"], "pass_rate": 0.25},
    {
        **{"prompt": "How many?", "ground_truth": "3", "ability": "counting"},
        **{"note": "any column ä", "pass_rate": 1, "ids": [1, "b"], "stratum": "theirs"},
    },
    {"prompt": "<image><image>Same?", "ground_truth": "yes", "image_paths": ["a.png", "b.png"]},
    {"prompt": "Nothing here", "ground_truth": ""},
]
"""Rows of a data file. The last row is rejected, because it has no answer."""


def mark_as_finished(folder: Path) -> None:
    """Write the manifest of a stage's folder, so that the stage is finished."""
    manifest.write_manifest(folder, settings={}, inputs={}, seconds=0.0, counts={})


@pytest.fixture(scope="module")
def exported(tmp_path_factory, small_images) -> tuple[RunConfig, Path, list[Sample]]:
    """An export of six samples: its settings, its folder, and the samples.

    Sample i has the PISM score i / 10 (sample 0: None) and the stratum STRATA[i % 3]. All samples
    but the first are selected, in reverse order.
    """
    root = tmp_path_factory.mktemp("export")
    for name, png in small_images.items():
        (root / name).write_bytes(png)
    path = root / "my.jsonl"
    rows = [{"image_paths": ["a.png"], **row} for row in ROWS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = RunConfig(name="small", data=DataConfig(source=Source.jsonl, path=str(path)))
    config.data.max_pixels = 12544  # 16 image tokens of 28 x 28 pixels; a.png must be resized
    build_dataset(config.data, root / "data")
    samples = parquet.read_rows(root / "data", Sample)
    scores = [
        Score(
            sample_id=sample.sample_id,
            measure=measure,
            value=None if i == 0 else i / 10,
            stratum=STRATA[i % 3],
        )
        for i, sample in enumerate(samples)
        for measure in (Measure.pism, Measure.cmab)
    ]
    selections = [
        Selection(sample_id=sample.sample_id, stage=TrainStage.grpo, reason="a test")
        for sample in reversed(samples[1:])
    ]
    parquet.write_all(root / "score", scores)
    parquet.write_all(root / "select", selections)
    mark_as_finished(root / "score")
    mark_as_finished(root / "select")
    stages = {name: root / name for name in ("data", "score", "select")}
    return config, export.export(config, stages, root / "out", World()), samples


@pytest.fixture(scope="module")
def small_images(tmp_path_factory) -> dict[str, bytes]:
    """The bytes of two PNG files by file name."""
    folder = tmp_path_factory.mktemp("images")
    Image.new("RGB", (800, 600), "white").save(folder / "a.png")
    Image.new("RGB", (84, 112), "navy").save(folder / "b.png")
    return {name: (folder / name).read_bytes() for name in ("a.png", "b.png")}


def test_scores_parquet_has_scores_and_the_original_rows(exported):
    _, folder, samples = exported
    rows = pq.read_table(folder / "scores.parquet").to_pylist()
    assert [row["sample_id"] for row in rows] == [sample.sample_id for sample in samples]
    not_selected, selected = rows[0], rows[4]
    # stratum is the stratum by difficulty.measure, which is pism here.
    columns = ("selected", "stage", "pism", "pism_stratum", "stratum")
    assert [not_selected[name] for name in columns] == [False, None, None, "easy", "easy"]
    assert [selected[name] for name in columns] == [True, "grpo", 0.4, "hard", "hard"]
    assert json.loads(selected["original"]) == {"image_paths": ["a.png"], **ROWS[4]}


def test_datasets_opens_the_images_of_scores_parquet(exported):
    _, folder, _ = exported
    rows = load_dataset("parquet", data_files=str(folder / "scores.parquet"), split="train")
    assert rows[5]["images"][1].size == (84, 112)  # b.png is the second image of sample 5
    assert rows.filter(lambda row: row["stratum"] == "hard").num_rows == 2  # samples 1 and 4


def exported_rows(folder: Path, export_format: ExportFormat) -> list[dict[str, Any]]:
    """The rows of a trainer's folder, which has one file with rows."""
    folder = folder / export_format.value
    if (folder / "train.parquet").is_file():
        return pq.read_table(folder / "train.parquet").to_pylist()
    if (folder / "train.json").is_file():
        return json.loads((folder / "train.json").read_text())
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("export_format", list(ExportFormat))
def test_other_columns_of_the_source_travel_to_every_format(exported, export_format):
    _, folder, samples = exported
    by_question = dict(
        zip(
            (sample.question for sample in samples[:0:-1]),
            exported_rows(folder, export_format),
            strict=True,
        )
    )
    row = by_question["How many?"]
    assert (row["note"], row["pass_rate"]) == ("any column ä", 1.0)
    assert json.loads(row["ids"]) == [1, "b"]  # a list of mixed types is stored as JSON
    assert row.get("stratum") != "theirs" or export_format is ExportFormat.verl
    assert by_question["Which?"]["pass_rate"] == 0.25
    assert by_question["Which?"]["note"] is None
    assert by_question["Read."]["answers"] == ["No entry", "Stop"]


def test_other_columns_of_the_source_are_in_scores_parquet(exported):
    _, folder, _ = exported
    rows = pq.read_table(folder / "scores.parquet").to_pylist()
    assert [row["pass_rate"] for row in rows] == [None, None, None, 0.25, 1.0, None]
    assert rows[4]["stratum"] == "hard"  # not the source's column of that name


@pytest.mark.parametrize("export_format", list(ExportFormat))
def test_difftrain_loads_the_same_samples_from_every_exported_format(exported, export_format):
    config, folder, samples = exported
    exported_data = DataConfig(
        source=Source(export_format.value), path=str(folder / export_format.value)
    )
    exported_data.max_pixels = config.data.max_pixels
    loaded = list(dataset.load_samples(exported_data))
    selected = samples[:0:-1]  # all but the first, in reverse order
    assert [sample.sample_id for sample in loaded] == [sample.sample_id for sample in selected]
    assert [sample.answer_kind for sample in loaded] == [sample.answer_kind for sample in selected]
    assert [sample.images for sample in loaded] == [sample.images for sample in selected]


@pytest.mark.parametrize("export_format", list(ExportFormat))
def test_source_auto_loads_the_same_samples_from_every_exported_format(exported, export_format):
    config, folder, samples = exported
    path = str(folder / export_format.value)
    loaded = list(
        dataset.load_samples(
            DataConfig(source=Source.auto, path=path, max_pixels=config.data.max_pixels)
        )
    )
    loaded_ids = [getattr(row, "sample_id", row) for row in loaded]
    assert loaded_ids == [sample.sample_id for sample in samples[:0:-1]]


def test_trl_trains_on_the_exported_selection(exported, tmp_path):
    _, folder, samples = exported
    rows = load_dataset("parquet", data_files=str(folder / "trl" / "train.parquet"), split="train")
    assert rows[0]["images"][0].mode == "RGB"
    solution_and_stratum: dict[str, Any] = {}  # by sample id

    def reward(completions, solution, sample_id, stratum, **_):
        solution_and_stratum.update(
            zip(sample_id, zip(solution, stratum, strict=True), strict=True)
        )
        return [0.0] * len(completions)

    model = resolve.source("tiny")
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=reward,
        args=GRPOConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=10,
            num_generations=2,
            max_completion_length=4,
            max_steps=1,
            report_to="none",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            save_strategy="no",
        ),
        train_dataset=rows,
        processing_class=AutoProcessor.from_pretrained(model),
    )
    trainer.train()
    assert trainer.state.global_step == 1
    assert solution_and_stratum.keys() == {sample.sample_id for sample in samples[1:]}
    # A count is exported as \boxed{}, a text in answer tags.
    assert solution_and_stratum[samples[4].sample_id] == ("\\boxed{3}", "hard")
    assert solution_and_stratum[samples[2].sample_id] == ("<answer>No entry</answer>", "medium")


def test_the_card_states_method_model_settings_counts_and_figure(exported):
    _, folder, _ = exported
    card = (folder / "README.md").read_text()
    header = card.split("---")[1]
    assert "- config_name: trl\n  data_files: trl/train.parquet" in header
    # ROWS has seven rows: one is rejected, six are samples, five of these are selected.
    assert "6 samples with the difficulty they have for `tiny`, of which\n5 are selected" in card
    assert "1 rows of\nthe source could not be used" in card
    # Columns: easy, medium, hard, samples, selected.
    assert "| **all** | 2 | 2 | 2 | 6 | 5 |" in card
    assert '"tau": 0.1' in card
    assert "at most 12544 pixels" in card
    assert "(16 image tokens" in card  # 12544 / 28 ** 2
    with Image.open(folder / "strata.png") as figure:
        assert figure.size[0] > 300  # it is a figure and not an empty image


def test_generated_samples_have_no_original_rows_and_trl_files_need_a_selection(tmp_path):
    # The default source of data generates samples.
    config = RunConfig(data=DataConfig(num_samples=8), export=ExportConfig(formats=[]))
    build_dataset(config.data, tmp_path / "data")
    mark_as_finished(tmp_path / "select")
    mark_as_finished(tmp_path / "score")
    stages = {name: tmp_path / name for name in ("data", "score", "select")}
    export.export(config, stages, tmp_path / "out", World())
    rows = pq.read_table(tmp_path / "out" / "scores.parquet").to_pylist()
    assert [row["original"] for row in rows] == [None] * 8
    # The stage `select` is finished but selected nothing: there are no rows for TRL.
    config.export.formats = [ExportFormat.trl]
    with pytest.raises(EmptyDatasetError, match=r"export\.formats=\[\] writes only the scores"):
        export.export(config, stages, tmp_path / "again", World())


def test_an_export_fails_if_rows_of_its_samples_were_deleted_from_the_data_file(exported, tmp_path):
    config, folder, _ = exported
    path = Path(config.data.path or "")
    content = path.read_text()
    path.write_text("".join(content.splitlines(keepends=True)[:2]))  # rows of 2 of 6 samples
    root = folder.parent
    stages = {name: root / name for name in ("data", "score", "select")}
    try:
        with pytest.raises(EmptyDatasetError, match=r"no longer has the rows of 4 samples"):
            export.export(config, stages, tmp_path / "out", World())
    finally:
        path.write_text(content)
    assert manifest.read_manifest(tmp_path / "out") is None


class HubRecorder:
    """Replaces HfApi: records the calls, and fails for arguments that HfApi does not accept."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        signature = inspect.signature(getattr(HfApi, name))

        def record(*args: Any, **kwargs: Any) -> None:
            bound = signature.bind(self, *args, **kwargs)
            self.calls.append((name, dict(bound.arguments)))

        return record


def test_publishing_creates_a_private_dataset_and_uploads_the_folder(exported):
    _, folder, _ = exported
    api = HubRecorder()
    export.publish(folder, "me/selection", private=True, api=api)
    (first_call, created), (second_call, uploaded) = api.calls
    assert (first_call, second_call) == ("create_repo", "upload_folder")
    assert (created["repo_id"], created["private"]) == ("me/selection", True)
    assert created["repo_type"] == uploaded["repo_type"] == "dataset"
    assert uploaded["folder_path"] == str(folder)
    assert "manifest.json" in uploaded["ignore_patterns"]


def test_the_error_for_publishing_offline_names_the_finished_folder(exported, monkeypatch):
    _, folder, _ = exported
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubUnavailable, match="The export is complete at") as error:
        export.publish(folder, "me/selection", private=True)
    assert str(folder) in str(error.value)


def test_a_repository_without_an_owner_is_a_bad_setting():
    assert [key for key, _ in ExportConfig(push_to_hub="selection").check()] == ["push_to_hub"]
    assert not list(ExportConfig(push_to_hub="me/selection").check())


def test_a_repeated_format_is_a_bad_setting():
    repeated = [ExportFormat.trl, ExportFormat.trl]
    assert [key for key, _ in ExportConfig(formats=repeated).check()] == ["formats"]
