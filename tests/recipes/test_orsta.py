"""Training on samples in the format of the Orsta data set, with all of its eight tasks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from difftrain.shapes import pool
from tests.data.small_files import orsta_file, orsta_row

ROOT = Path(__file__).resolve().parents[2]
FAMILIES = {  # Orsta's tasks, and the family of generated questions that is used for each here
    "math": "count_plus",
    "puzzle": "verify",
    "science": "prior",
    "chart": "bar",
    "detection": "locate",
    "grounding": "locate",
    "counting": "count",
    "ocr": "read",
}
# The column `ability` names these tasks; the task of other rows is in the name of their file.
ABILITIES = {"detection": "cv_detection", "grounding": "cv_grounding", "counting": "counting"}
ROWS_PER_TASK = 3
pytestmark = pytest.mark.slow


def in_orsta_format(gold: str) -> str:
    """Gold boxes as Orsta writes them: as Python text, with coordinates from 0 to 1000.

    `gold` is JSON with pixels of an image of 112 x 112.
    """
    boxes = json.loads(gold)
    for box in boxes:
        box["bbox_2d"] = [round(value * 1000 / 112) for value in box["bbox_2d"]]
    return str(boxes)


def write_data(folder: Path) -> None:
    """Write one file per task, named as in the release; one puzzle row occurs twice."""
    for number, (task, family) in enumerate(FAMILIES.items()):
        rows = []
        for index in range(ROWS_PER_TASK):
            # Tasks of one family get different samples.
            drawn = pool.sample(pool.Split.pool, family, index + 100 * number, seed=5)
            has_boxes = task in ("detection", "grounding")
            gold = in_orsta_format(drawn.answer) if has_boxes else drawn.answer
            row = orsta_row(drawn.images[0], drawn.question, gold, ABILITIES.get(task), has_boxes)
            rows.append(row)
        if task == "puzzle":
            rows[-1] = rows[0]
        orsta_file(folder / "train" / f"train_{task}_shapes_{ROWS_PER_TASK}.parquet", rows)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a run that trains on all samples by GRPO."""
    folder = tmp_path_factory.mktemp("orsta")
    write_data(folder)
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "launch" / "train.py"),
            "recipe=grpo_full",
            "debug=smoke",
            "data=orsta",
            f"data.path={folder}",
            "data.max_pixels=12544",  # 112 x 112, the size of the generated images
            "grpo.prompts_per_step=4",
            "grpo.max_steps=6",
            f"output_dir={folder}/artifacts",
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    num_rows = ROWS_PER_TASK * len(FAMILIES)
    assert f"data: {num_rows} rows, {num_rows} samples, 0 quarantined" in done.stderr
    assert "1 rows are exact duplicates" in done.stderr  # counted, but not removed
    return Path(done.stdout.strip().splitlines()[-1].removeprefix("output: "))


def test_a_run_on_orsta_rows_of_all_eight_tasks_trains_on_every_row(run_folder: Path) -> None:
    counts = json.loads((run_folder / "report.json").read_text())["counts"]
    # picks: the number of samples selected for GRPO; grpo_full selects all.
    assert counts["samples"] == counts["picks"]["grpo"] == ROWS_PER_TASK * len(FAMILIES)
    assert (run_folder / "checkpoint" / "model.safetensors").is_file()


def test_the_report_shows_the_reward_of_every_task(run_folder: Path) -> None:
    rewards = json.loads((run_folder / "report.json").read_text())["training"]["tuned"]["rewards"]
    tasks = {name.removeprefix("task/") for name in rewards if name.startswith("task/")}
    assert tasks == FAMILIES.keys()
    text = (run_folder / "report.md").read_text()
    for task in FAMILIES:
        assert f"task: {task}" in text
