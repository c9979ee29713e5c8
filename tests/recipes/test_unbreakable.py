"""Killed twenty times, fed with duplicates and endless questions: the probe loses nothing."""

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
LADDER = (
    "probe.mask_percents=[0,30,60,90]",
    "probe.draws=4",
    "difficulty=pism",
    "difficulty.extra_measures=[]",
)
KILLS = 20
pytestmark = pytest.mark.slow


def command(*arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "launch" / "probe.py"), *LADDER, *arguments]


def probed(*arguments: str) -> Path:
    done = subprocess.run(command(*arguments), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return Path(done.stdout.strip().splitlines()[-1].removeprefix("output: "))


def key(row: Rollout) -> tuple[Any, ...]:
    return row.sample_id, row.view, row.mask_percent, row.draw


def parts(folder: Path) -> int:
    return len(list(folder.glob("probe/*/part-*.parquet")))


def killed(folder: Path, rng: random.Random, arguments: list[str]) -> bool:
    """Start a probe as some rank of some world and kill it at a random moment; whether it was."""
    rank, size = rng.choice([(0, 1), (0, 2), (1, 2), (3, 4)]) if parts(folder) else (0, 1)
    before, extra, rest = parts(folder), rng.choice([0, 1, 1, 2]), rng.uniform(0, 0.3)
    child = subprocess.Popen(
        command(*arguments),
        env={**os.environ, "RANK": str(rank), "WORLD_SIZE": str(size), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    latest = time.monotonic() + (rng.uniform(0, 15) if extra == 0 else 40)
    while child.poll() is None and time.monotonic() < latest:
        if extra and parts(folder) >= before + extra:
            time.sleep(rest)
            break
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    return child.wait() == -signal.SIGKILL


@pytest.mark.timeout(1500)
def test_killed_at_twenty_moments_as_any_rank_of_any_world_the_probe_ends_as_undisturbed(
    tmp_path: Path,
) -> None:
    """In deterministic mode, so that the rows can be compared to the last token."""
    shared = ["data.num_samples=150", "model.deterministic=true", "model.batch_size=3"]
    undisturbed = probed(f"output_dir={tmp_path / 'whole'}", *shared)
    there = [f"output_dir={tmp_path / 'killed'}", *shared]
    rng, kills, written = random.Random(7), 0, set()
    for _ in range(KILLS):
        kills += killed(tmp_path / "killed", rng, there)
        written |= {path.name for path in (tmp_path / "killed").glob("probe/*/part-*.parquet")}
    assert kills == KILLS
    folder = probed(*there)
    assert folder.name == undisturbed.name
    assert written <= {path.name for path in parquet.parts(folder)}
    assert len(written) >= 10
    rows, expected = (parquet.read_rows(each, Rollout) for each in (folder, undisturbed))
    assert len({key(row) for row in rows}) == len(rows)  # no request was repeated
    assert sorted(rows, key=key) == sorted(expected, key=key)
    assert not list(folder.glob("*.tmp"))


def row(folder: Path, name: str, prompt: str) -> dict[str, Any]:
    Image.new("RGB", (112, 112), name).save(folder / f"{name}.png")
    user_text = f"<image>{prompt}"
    return {
        "image_paths": [f"{name}.png"],
        "prompt": user_text,
        "ground_truth": "3",
        "ability": "x",
    }


def jsonl(folder: Path, rows: list[dict[str, Any]]) -> str:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return f"data.path={path}"


def test_ten_thousand_duplicates_are_asked_once_and_counted(tmp_path: Path) -> None:
    same, other = row(tmp_path, "red", "How many?"), row(tmp_path, "blue", "How many?")
    path = jsonl(tmp_path, [*[same] * 10_000, other])
    folder = probed("data=jsonl", path, f"output_dir={tmp_path / 'made'}")
    assert len({each.sample_id for each in parquet.read_rows(folder, Rollout)}) == 2
    (manifest_path,) = (tmp_path / "made" / "data").glob("*/manifest.json")
    counts = json.loads(manifest_path.read_text())["counts"]
    assert counts["samples"] == 2
    assert counts["quarantined"] == 9_999


def test_a_question_of_100_kilobytes_is_set_aside_with_its_length_and_the_others_are_asked(
    tmp_path: Path,
) -> None:
    rows = [row(tmp_path, "red", "How many?"), row(tmp_path, "blue", "How many? " * 10_000)]
    folder = probed("data=jsonl", jsonl(tmp_path, rows), f"output_dir={tmp_path / 'made'}")
    assert len({each.sample_id for each in parquet.read_rows(folder, Rollout)}) == 1
    counts = json.loads((folder / "manifest.json").read_text())["counts"]
    assert counts["quarantined"] == 1
    assert "the model takes 2048" in (folder / "quarantine.jsonl").read_text()
