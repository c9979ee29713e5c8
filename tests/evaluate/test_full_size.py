"""All six benchmarks at their official size: loading, the tiny model, scorers and tables."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from difftrain.config.evaluate import OFFICIAL, TSV_FILES, EvaluateConfig, ItemSource
from difftrain.evaluate import BENCHMARKS
from difftrain.evaluate.loading import image_bytes, official_items
from difftrain.pipeline import parquet
from difftrain.records import ItemResult

ROOT = Path(__file__).resolve().parents[2]
ITEMS = sum(benchmark.num_items for benchmark in BENCHMARKS.values())


def evaluate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "launch" / "evaluate.py"), *arguments]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.fixture
def settings(
    tmp_path: Path, hub_rows: Callable, write_folder: Callable, write_tsv: Callable
) -> list[str]:
    """Three benchmarks as data sets in folders, three as the harness's TSV files."""
    folders, files = OFFICIAL[:3], OFFICIAL[3:]
    for name in folders:
        write_folder(tmp_path, name, hub_rows(name))
    for name in files:
        write_folder(tmp_path / "rows", name, hub_rows(name))
        config = EvaluateConfig(
            source=ItemSource.folder, path=str(tmp_path / "rows"), benchmarks=[name]
        )
        items = official_items(name, config)
        rows = [{**row, "image": [image_bytes(each) for each in row["image"]]} for row in items]
        write_tsv(tmp_path / TSV_FILES[name], rows)
    return [
        f"benchmarks=[{', '.join(OFFICIAL)}]",
        *("evaluate.source=folder", f"evaluate.path={tmp_path}"),
        *(f"evaluate.paths.{name}={tmp_path / TSV_FILES[name]}" for name in files),
        *("evaluate.min_pixels=3136", "evaluate.max_pixels=12544"),
        *("evaluate.limit=null", "evaluate.max_new_tokens=8", f"output_dir={tmp_path}/out"),
    ]


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_six_benchmarks_of_official_size_are_asked_scored_and_told(settings: list[str]) -> None:
    started = time.time()
    done = evaluate(*settings)
    assert done.returncode == 0, done.stderr[-4000:]
    folder = Path(done.stdout.strip().splitlines()[-1].removeprefix("output: "))
    print(f"{ITEMS} items in {time.time() - started:.0f} s")
    marks = parquet.read_rows(folder, ItemResult)
    assert len(marks) == ITEMS
    assert len({(mark.benchmark, mark.item_id) for mark in marks}) == ITEMS
    summary = json.loads((folder / "summary.json").read_text())
    breakdowns = json.loads((folder / "breakdown.json").read_text())
    for name in OFFICIAL:
        outcomes = breakdowns[name]["outcomes"]
        assert sum(n for key, n in outcomes.items() if key != "empty") == BENCHMARKS[name].num_items
        assert outcomes["skipped"] == 0
        assert summary[name]["score"] is None or 0 <= summary[name]["score"] <= 1
        assert (folder / "predictions" / f"tiny_{TSV_FILES[name]}").is_file()
    assert len(breakdowns["MMMU"]["tables"]["validation"]) == 1 + 30 + 6
    assert len(breakdowns["MMStar"]["tables"]["capabilities"]) == 1 + 6
    assert len(breakdowns["OCRBench"]["tables"]["groups"]) == 5 + 1
    assert len(breakdowns["HallusionBench"]["tables"]["subsets"]) == 1 + 2 + 9
    page = (folder / "scores.md").read_text()
    for line in ("| system prompt | think", "| rules | 2025-11 |", "md5", "3,136 to 12,544 pixels"):
        assert line in page
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}
    again = evaluate(*settings)
    assert again.returncode == 0
    assert again.stdout.strip().splitlines()[-1] == f"output: {folder}"
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")} == written
