"""MM-Eureka goes from its published files to RAP's selection and the export without a hand step.

The folder is like FanqingM/MM-Eureka-Dataset: dataset.jsonl, K12.zip and MMPR.zip, whose members
have a long prefix of the authors' machine, and a blank image for rows without one. Its images and
questions are of the shapes world, which the tiny model can answer.
"""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from difftrain.config.data import DataConfig, Source
from difftrain.config.report import ExportFormat
from difftrain.data import dataset, prompts
from difftrain.records import AnswerKind, Sample
from difftrain.shapes import pool
from tests.data.small_files import write_jsonl

ROOT = Path(__file__).resolve().parents[2]
NUM_SAMPLES = 60
PREFIX = "mnt/hwfile/someone/dataset/report_data"  # of the members of the published zips
MAX_PIXELS = 12544  # of the shapes world
pytestmark = pytest.mark.slow


def eureka_row(number: int, sample: Sample, image: str) -> dict[str, Any]:
    """A line of dataset.jsonl; numbers are in dollars, as most of MM-Eureka's."""
    is_number = sample.answer_kind in (AnswerKind.number, AnswerKind.count)
    text = f"Question: {prompts.user_text(sample.question, sample.options)}"
    return {
        "id": f"eureka-{number}",
        "conversations": [
            {"role": "system", "content": "You are a careful solver."},
            {"role": "user", "content": f"<image>\n{text}" if number % 2 else text},
        ],
        "answer": f"${sample.answer}$" if is_number else sample.answer,
        "image_urls": [image],
    }


@pytest.fixture(scope="module")
def eureka_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with NUM_SAMPLES usable rows, then a text-only row and one with a gold in parts."""
    folder = tmp_path_factory.mktemp("MM-Eureka-Dataset")
    samples = [row for row in pool.samples(pool.Split.pool, 2 * NUM_SAMPLES)
               if row.answer_kind is not AnswerKind.boxes][:NUM_SAMPLES]  # fmt: skip
    rows = []
    with (
        zipfile.ZipFile(folder / "K12.zip", "w") as k12,
        zipfile.ZipFile(folder / "MMPR.zip", "w") as mmpr,
    ):
        for number, sample in enumerate(samples):
            in_k12 = number % 3 == 0
            image = f"K12/{number:064x}.png" if in_k12 else f"MMPR/images/x/{number}.png"
            archive, url = (k12, image) if in_k12 else (mmpr, f"file:///home/other/{image}")
            archive.writestr(f"{PREFIX}/{image}", sample.images[0])
            rows.append(eureka_row(number, sample, url))
    rows.append(rows[0] | {"id": "text", "image_urls": ["blank_image.jpg"]})
    rows.append(rows[0] | {"id": "parts", "answer": "(1) 3; (2) 4"})
    write_jsonl(folder / "dataset.jsonl", rows)
    return folder


@pytest.fixture(scope="module")
def exported(eureka_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `launch/export.py recipe=rap data=mm_eureka` writes."""
    output_dir = tmp_path_factory.mktemp("outputs")
    arguments = [
        *("recipe=rap", "data=mm_eureka", f"data.path={eureka_folder}"),
        *(f"data.max_pixels={MAX_PIXELS}", "probe.retest_samples=0", f"output_dir={output_dir}"),
    ]
    done = subprocess.run(
        [sys.executable, str(ROOT / "launch" / "export.py"), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return Path(done.stdout.strip().splitlines()[-1].removeprefix("output: "))


def selected_rows(exported: Path) -> list[dict[str, Any]]:
    rows = pq.read_table(exported / "scores.parquet").to_pylist()
    return [row for row in rows if row["selected"]]


def test_every_row_is_scored_or_rejected_and_rap_selects_some(exported: Path) -> None:
    rows = pq.read_table(exported / "scores.parquet").to_pylist()
    assert len(rows) == NUM_SAMPLES
    card = (exported / "README.md").read_text()
    assert "2 rows" in card  # text-only, and a gold answer in parts
    selected = selected_rows(exported)
    assert 0 < len(selected) < NUM_SAMPLES
    for row in selected:
        assert row["drm"] > 0  # at least one of the five responses is incorrect
        assert row["stage"] == "grpo"
        assert row["reason"].startswith(("kept: D = ", "brought in by DRM for an easy one"))
        original = json.loads(row["original"])
        assert original["id"] == row["id"]
        assert original["image_urls"][0].endswith(".png")


@pytest.mark.parametrize("name", list(ExportFormat))
def test_trainers_get_the_selected_rows_with_images_and_mm_eurekas_ids(
    exported: Path, name: ExportFormat
) -> None:
    (file,) = (exported / name.value).glob("train.*")
    suffix = "parquet" if file.suffix == ".parquet" else "json"
    rows = load_dataset(suffix, data_files=str(file), split="train")
    selected = selected_rows(exported)
    assert rows["id"] == [row["id"] for row in selected]
    for row, expected in zip(rows, selected, strict=True):
        image = row["images"][0]
        if isinstance(image, str):  # ms_swift and llama_factory have paths
            assert (exported / name.value / image).is_file()
        else:
            assert image.size == (112, 112)
        if name in (ExportFormat.trl, ExportFormat.ms_swift):
            assert expected["answer"] in row["solution"]


def test_difftrain_reads_the_export_back_as_the_same_samples(exported: Path) -> None:
    config = DataConfig(
        source=Source.ms_swift, path=str(exported / "ms_swift"), max_pixels=MAX_PIXELS
    )
    read_back = [row for row in dataset.load_samples(config) if isinstance(row, Sample)]
    expected = [(row["question"], row["answer"]) for row in selected_rows(exported)]
    assert [(row.question, row.answer) for row in read_back] == expected
