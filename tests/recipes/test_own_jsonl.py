"""A user's own jsonl with image files goes through probe, score, train and report."""

import json
import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from difftrain.shapes import pool

ROOT = Path(__file__).resolve().parents[2]


NUM_USABLE, NUM_UNUSABLE = 24, 5


def write_images_and_build_rows(folder: Path) -> list[dict]:
    """NUM_USABLE rows in two formats, then NUM_UNUSABLE rows, of which the last is a duplicate."""
    (folder / "pictures").mkdir()
    good_rows: list[dict] = []
    for number in range(NUM_USABLE):
        family = ("count", "count_plus")[number % 2]
        sample = pool.sample(pool.Split.pool, family, number, seed=5)
        name = f"pictures/{number}.{'png' if number % 3 else 'jpg'}"
        with Image.open(BytesIO(sample.images[0])) as image:
            image.resize((330, 330)).save(folder / name)
        if number % 2:
            good_rows.append(
                {
                    "image_paths": [name],
                    "prompt": f"<image>{sample.question}",
                    "ground_truth": f"\\boxed{{{sample.answer}}}",
                    "ability": "math",
                }
            )
        else:
            messages = [{"role": "user", "content": f"<image>{sample.question}"}]
            good_rows.append({"messages": messages, "images": [name], "solution": sample.answer})
    (folder / "pictures" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    good = good_rows[1]
    return [
        *good_rows,
        {**good, "image_paths": ["pictures/missing.png"]},
        {**good, "image_paths": ["pictures/broken.png"]},
        {**good, "prompt": "<image> "},
        {**good, "ground_truth": ""},
        good,  # a duplicate
    ]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """The finished process of launch/train.py, which trained on all usable rows by GRPO."""
    folder = tmp_path_factory.mktemp("own")
    path, rows = folder / "my.jsonl", write_images_and_build_rows(folder)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return subprocess.run(
        [
            sys.executable,
            str(ROOT / "launch" / "train.py"),
            "debug=smoke",
            "data=jsonl",
            f"data.path={path}",
            "data.max_pixels=12544",  # 112 x 112, the image size of the tiny model
            "recipe=grpo_full",
            f"output_dir={folder}/artifacts",
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )


def run_folder_of(done: subprocess.CompletedProcess[str]) -> Path:
    """The folder that the last line of the output names."""
    assert done.returncode == 0, done.stderr[-4000:]
    return Path(done.stdout.strip().splitlines()[-1].removeprefix("output: "))


def test_a_users_rows_are_trained_on_and_reported(done: subprocess.CompletedProcess[str]) -> None:
    counts = json.loads((run_folder_of(done) / "report.json").read_text())["counts"]
    assert counts["samples"] == NUM_USABLE + NUM_UNUSABLE
    assert counts["quarantined"] == NUM_UNUSABLE
    assert sum(counts["strata"].values()) == NUM_USABLE


def test_rows_that_cannot_be_used_are_reported_with_their_reasons(
    done: subprocess.CompletedProcess[str],
) -> None:
    folder = run_folder_of(done)  # OUTPUT_DIR/run/NAME
    output_dir = folder.parents[1]
    (data,) = (output_dir / "data").iterdir()  # the only run of the data stage
    lines = [json.loads(line) for line in (data / "quarantine.jsonl").read_text().splitlines()]
    line_numbers = [int(line["source"].split(":")[-1]) for line in lines]
    assert line_numbers == list(range(NUM_USABLE + 1, NUM_USABLE + NUM_UNUSABLE + 1))
    reasons = [line["reason"].split(":")[0] for line in lines]
    assert len(set(reasons)) == NUM_UNUSABLE  # each row has a reason of its own
    assert "duplicate" in reasons[-1]
    assert reasons[0] in (folder / "report.html").read_text()
