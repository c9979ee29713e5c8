"""The benchmarks are evaluated at their official size with the tiny model, and after a kill.

The items are those that conftest.py generates, in the form of the official data sets.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from difftrain.config.evaluate import SETS, TSV_FILES, EvaluateConfig, ItemSource
from difftrain.evaluate import BENCHMARKS
from difftrain.evaluate.generate import StoredResponse
from difftrain.evaluate.loading import image_bytes, official_items
from difftrain.pipeline import parquet
from difftrain.records import ItemResult

ROOT = Path(__file__).resolve().parents[2]
PAPER1 = SETS["paper1"]
NUM_ITEMS = sum(BENCHMARKS[name].num_items for name in PAPER1)
REASONING = ("MathVerse", "WeMath", "LogicVista")


def evaluate_command(*arguments: str) -> tuple[list[str], dict[str, str]]:
    """The command of launch/evaluate.py and its environment."""
    command = [sys.executable, str(ROOT / "launch" / "evaluate.py"), *arguments]
    return command, {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}


def run_evaluate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command, environment = evaluate_command(*arguments)
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def write_settings(
    tmp_path: Path,
    in_folders: tuple[str, ...],
    in_files: tuple[str, ...],
    hub_rows: Callable,
    write_folder: Callable,
    write_tsv: Callable,
) -> list[str]:
    """Write benchmarks to folders and to VLMEvalKit's TSV files; arguments to evaluate them."""
    for name in in_folders:
        write_folder(tmp_path, name, hub_rows(name))
    for name in in_files:
        write_folder(tmp_path / "rows", name, hub_rows(name))
        config = EvaluateConfig(
            source=ItemSource.folder, path=str(tmp_path / "rows"), benchmarks=[name]
        )
        items = official_items(name, config)
        rows = [{**row, "image": [image_bytes(image) for image in row["image"]]} for row in items]
        write_tsv(tmp_path / TSV_FILES[name], rows)
    return [
        f"benchmarks=[{', '.join(in_folders + in_files)}]",
        "evaluate.source=folder",
        f"evaluate.path={tmp_path}",
        *(f"evaluate.paths.{name}={tmp_path / TSV_FILES[name]}" for name in in_files),
        "evaluate.min_pixels=3136",
        "evaluate.max_pixels=12544",
        "evaluate.limit=null",
        "evaluate.max_new_tokens=40",  # as in conf/model/tiny.yaml, to save time
        f"output_dir={tmp_path}/out",
    ]


@pytest.fixture
def settings(
    tmp_path: Path, hub_rows: Callable, write_folder: Callable, write_tsv: Callable
) -> list[str]:
    """Arguments to evaluate three benchmarks from folders and three from TSV files."""
    writers = (hub_rows, write_folder, write_tsv)
    return write_settings(tmp_path, PAPER1[:3], PAPER1[3:], *writers)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_killed_evaluation_of_rap_s_other_benchmarks_loses_no_response(
    tmp_path: Path, hub_rows: Callable, write_folder: Callable, write_tsv: Callable
) -> None:
    """MathVerse comes from a folder, WeMath and LogicVista from TSV files, at official size."""
    writers = (hub_rows, write_folder, write_tsv)
    settings = write_settings(tmp_path, REASONING[:1], REASONING[1:], *writers)
    settings.append("evaluate.max_new_tokens=8")  # to save time
    command, environment = evaluate_command(*settings)
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    pattern = "out/responses/*/part-*.parquet"
    while len(list(tmp_path.glob(pattern))) < 3:
        assert process.poll() is None
        time.sleep(0.2)
    process.kill()
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob(pattern)}
    stored = [row for path in before for row in parquet.read_part(path, StoredResponse)]
    assert not list(tmp_path.glob("out/evaluate/*/manifest.json"))
    assert len({row.key for row in stored}) == len(stored) > 0

    resumed = run_evaluate(*settings)
    assert resumed.returncode == 0, resumed.stderr[-4000:]
    for path, changed in before.items():
        assert path.stat().st_mtime_ns == changed  # nothing is generated or written again
    rows = [
        row for path in tmp_path.glob(pattern) for row in parquet.read_part(path, StoredResponse)
    ]
    num_items = sum(BENCHMARKS[name].num_items for name in REASONING)
    assert len(rows) == len({row.key for row in rows}) == num_items
    folder = Path(resumed.stdout.strip().splitlines()[-1].removeprefix("output: "))
    results = parquet.read_rows(folder, ItemResult)
    assert len({(result.benchmark, result.item_id) for result in results}) == num_items
    responses = {(row.benchmark, row.item_id): row.response for row in stored}
    by_key = {(result.benchmark, result.item_id): result.response for result in results}
    assert responses.items() <= by_key.items()
    tables = {
        name: content["tables"]
        for name, content in json.loads((folder / "breakdown.json").read_text()).items()
    }
    # Without a judge only WeMath has a score, by the official string rule.
    assert tables["MathVerse"] == tables["LogicVista"] == {}
    assert tables["WeMath"]["problems"]["Strict"]["n"] == 525
    for name, data_set in (("MathVerse", "MathVerse_MINI"), ("WeMath", "WeMath")):
        assert (folder / "predictions" / f"tiny_{data_set}.tsv").is_file(), name


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_six_benchmarks_of_official_size_are_evaluated(settings: list[str]) -> None:
    started = time.time()
    process = run_evaluate(*settings)
    assert process.returncode == 0, process.stderr[-4000:]
    folder = Path(process.stdout.strip().splitlines()[-1].removeprefix("output: "))
    print(f"{NUM_ITEMS} items in {time.time() - started:.0f} s")
    results = parquet.read_rows(folder, ItemResult)
    assert len(results) == NUM_ITEMS
    assert len({(result.benchmark, result.item_id) for result in results}) == NUM_ITEMS
    summary = json.loads((folder / "summary.json").read_text())
    breakdowns = json.loads((folder / "breakdown.json").read_text())
    for name in PAPER1:
        outcomes = breakdowns[name]["outcomes"]
        # Every item has one outcome. An empty response is counted as `empty` in addition.
        assert sum(n for key, n in outcomes.items() if key != "empty") == BENCHMARKS[name].num_items
        assert outcomes["skipped"] == 0
        assert summary[name]["score"] is None or 0 <= summary[name]["score"] <= 1
        assert (folder / "predictions" / f"tiny_{TSV_FILES[name]}").is_file()
    # Rows of the tables: the overall score, and one row per subject, discipline and so on.
    assert len(breakdowns["MMMU"]["tables"]["validation"]) == 1 + 30 + 6  # subjects, disciplines
    assert len(breakdowns["MMStar"]["tables"]["capabilities"]) == 1 + 6  # capabilities
    assert len(breakdowns["OCRBench"]["tables"]["groups"]) == 5 + 1  # groups, final score
    assert (
        len(breakdowns["HallusionBench"]["tables"]["subsets"]) == 1 + 2 + 9
    )  # VD and VS, subcategories
    scores_md = (folder / "scores.md").read_text()
    # scores.md shows the settings, and the md5 of every TSV file.
    for text in ("| system prompt | think", "| rules | 2025-11 |", "md5", "3,136 to 12,544 pixels"):
        assert text in scores_md
    # A second run finds the finished folder and writes no parquet file again.
    write_times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}
    second = run_evaluate(*settings)
    assert second.returncode == 0
    assert second.stdout.strip().splitlines()[-1] == f"output: {folder}"
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")} == write_times
