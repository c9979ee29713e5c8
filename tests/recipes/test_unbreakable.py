"""The probe, which samples responses of the base model, is killed and gets unusual data."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from difftrain.pipeline import parquet
from difftrain.records import Rollout

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = (
    "probe.mask_percents=[0,30,60,90]",
    "probe.draws=4",
    "difficulty=pism",
    "difficulty.extra_measures=[]",
)
NUM_KILLS = 20
pytestmark = pytest.mark.slow


def command(*arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "launch" / "probe.py"), *SETTINGS, *arguments]


def run_probe(*arguments: str) -> Path:
    done = subprocess.run(command(*arguments), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return Path(done.stdout.strip().splitlines()[-1].removeprefix("output: "))


def request_key(row: Rollout) -> tuple[Any, ...]:
    """What identifies the request of one response."""
    return row.sample_id, row.view, row.mask_percent, row.draw


def num_parts(folder: Path) -> int:
    """How many parquet parts the probe has written in this output folder."""
    return len(list(folder.glob("probe/*/part-*.parquet")))


def start_and_kill(folder: Path, rng: random.Random, arguments: list[str]) -> bool:
    """Start a probe as a random rank of a random number of ranks, and kill it at a random moment.

    Returns whether the kill came before the probe's own end.
    """
    # Until there is a part, the probe is rank 0 alone, which also writes the data.
    rank, size = rng.choice([(0, 1), (0, 2), (1, 2), (3, 4)]) if num_parts(folder) else (0, 1)
    before, new_parts, delay = num_parts(folder), rng.choice([0, 1, 1, 2]), rng.uniform(0, 0.3)
    child = subprocess.Popen(
        command(*arguments),
        env={**os.environ, "RANK": str(rank), "WORLD_SIZE": str(size), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    # With new_parts=0 the kill comes at a random time in the first 15 s, else after those parts.
    deadline = time.monotonic() + (rng.uniform(0, 15) if new_parts == 0 else 90)
    while child.poll() is None and time.monotonic() < deadline:
        if new_parts and num_parts(folder) >= before + new_parts:
            time.sleep(delay)
            break
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    return child.wait() == -signal.SIGKILL


@pytest.mark.timeout(1500)
def test_a_probe_killed_twenty_times_as_various_ranks_ends_like_an_undisturbed_probe(
    tmp_path: Path,
) -> None:
    """In deterministic mode, so that the responses must be equal to the last token."""
    shared = ["data.num_samples=150", "model.deterministic=true", "model.batch_size=3"]
    undisturbed = run_probe(f"output_dir={tmp_path / 'undisturbed'}", *shared)
    arguments = [f"output_dir={tmp_path / 'killed'}", *shared]
    rng, kills = random.Random(7), 0
    written = set()  # names of the parts that killed probes have written
    for _ in range(NUM_KILLS):
        kills += start_and_kill(tmp_path / "killed", rng, arguments)
        written |= {path.name for path in (tmp_path / "killed").glob("probe/*/part-*.parquet")}
    assert kills == NUM_KILLS
    folder = run_probe(*arguments)
    assert folder.name == undisturbed.name
    assert written <= {path.name for path in parquet.parts(folder)}
    assert len(written) >= 10  # enough of the killed probes had written something
    rows, expected = (parquet.read_rows(path, Rollout) for path in (folder, undisturbed))
    assert len({request_key(row) for row in rows}) == len(rows)  # no request was repeated
    assert sorted(rows, key=request_key) == sorted(expected, key=request_key)
    assert not list(folder.glob("*.tmp"))


def write_image_and_build_row(folder: Path, color: str, question: str) -> dict[str, Any]:
    """A row of a jsonl file; its image has one color and is written to the folder."""
    Image.new("RGB", (112, 112), color).save(folder / f"{color}.png")
    return {
        "image_paths": [f"{color}.png"],
        "prompt": f"<image>{question}",
        "ground_truth": "3",
        "ability": "x",
    }


def write_jsonl(folder: Path, rows: list[dict[str, Any]]) -> str:
    """Write the rows; returns the override that names the file."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in rows))
    return f"data.path={path}"


def test_ten_thousand_duplicates_are_probed_once_and_counted(tmp_path: Path) -> None:
    repeated, other = (
        write_image_and_build_row(tmp_path, "red", "How many?"),
        write_image_and_build_row(tmp_path, "blue", "How many?"),
    )
    data_path = write_jsonl(tmp_path, [*[repeated] * 10_000, other])
    folder = run_probe("data=jsonl", data_path, f"output_dir={tmp_path / 'outputs'}")
    assert len({rollout.sample_id for rollout in parquet.read_rows(folder, Rollout)}) == 2
    (manifest_path,) = (tmp_path / "outputs" / "data").glob("*/manifest.json")
    counts = json.loads(manifest_path.read_text())["counts"]
    assert counts["samples"] == 2
    assert counts["quarantined"] == 9_999


def test_a_question_of_100_kilobytes_is_quarantined_and_the_other_question_is_probed(
    tmp_path: Path,
) -> None:
    rows = [
        write_image_and_build_row(tmp_path, "red", "How many?"),
        write_image_and_build_row(tmp_path, "blue", "How many? " * 10_000),
    ]
    folder = run_probe(
        "data=jsonl", write_jsonl(tmp_path, rows), f"output_dir={tmp_path / 'outputs'}"
    )
    assert len({rollout.sample_id for rollout in parquet.read_rows(folder, Rollout)}) == 1
    counts = json.loads((folder / "manifest.json").read_text())["counts"]
    assert counts["quarantined"] == 1
    # The question has more tokens than the model takes.
    assert "the model takes 2048" in (folder / "quarantine.jsonl").read_text()
