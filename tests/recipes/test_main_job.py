"""The main job, whole and small: the title's command with debug=smoke."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from transformers import AutoModelForImageTextToText, AutoProcessor

from difftrain.pipeline import parquet
from difftrain.records import ItemResult, Rollout, Sample, Score, Selection

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("debug=smoke", "select.strata=[hard,medium,unsolved]", "control=random")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "launch" / "train.py"), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )


def output_of(done: subprocess.CompletedProcess[str]) -> Path:
    assert done.returncode == 0, done.stderr[-4000:]
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("output: ")
    return Path(last.removeprefix("output: "))


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a small main job."""
    return output_of(run(*SMALL, f"output_dir={tmp_path_factory.mktemp('job')}"))


def stage(job: Path, name: str) -> Path:
    (folder,) = (job.parents[1] / name).iterdir()
    return folder


def test_the_report_has_every_key_of_its_contract(job: Path) -> None:
    report = json.loads((job / "report.json").read_text())
    assert {
        "name",
        "train_stages",
        "seed",
        "model",
        "data",
        "counts",
        "base",
        "tuned",
    } <= report.keys()
    assert {"cost", "recipe_difference", "control", "differences"} <= report.keys()
    assert report["name"] == "grpo_hard"
    kept = "select.strata=[hard, medium, unsolved]"
    assert report["recipe_difference"] == ["name=grpo_hard", kept]
    for name in ("base", "tuned", "control"):
        for benchmark in ("MathVista", "MMVet", "OCRBench", "HallusionBench", "MMMU", "MMStar"):
            score = report[name][f"shapes/{benchmark}"]
            assert 0 <= score["low"] <= score["score"] <= score["high"] <= 1
            assert score["n"] == 8


def test_no_row_is_lost(job: Path) -> None:
    counts = json.loads((job / "report.json").read_text())["counts"]
    samples = parquet.read_rows(stage(job, "data"), Sample)
    assert counts["samples"] == len(samples) + counts["quarantined"] == 60
    assert counts["samples"] == sum(counts["strata"].values()) + counts["quarantined"]
    scores = parquet.read_rows(stage(job, "score"), Score)
    assert len(scores) == 2 * len(samples)


def test_the_control_has_the_size_of_the_arm(job: Path) -> None:
    sizes = [len(parquet.read_rows(f, Selection)) for f in (job.parents[1] / "select").iterdir()]
    assert len(sizes) == 2
    assert sizes[0] == sizes[1] > 0


def test_no_draw_is_asked_twice(job: Path) -> None:
    rows = parquet.read_rows(stage(job, "probe"), Rollout)
    keys = [(row.sample_id, row.view, row.mask_percent, row.draw) for row in rows]
    assert len(set(keys)) == len(keys)


def test_base_and_tuned_are_marked_on_the_same_items(job: Path) -> None:
    items = [
        sorted((mark.benchmark, mark.item_id) for mark in parquet.read_rows(folder, ItemResult))
        for folder in (job.parents[1] / "evaluate").iterdir()
    ]
    assert len(items) == 3
    assert items[0] == items[1] == items[2]


def test_training_and_evaluation_share_no_sample(job: Path) -> None:
    from difftrain.shapes import benchmarks

    trained = {sample.sample_id for sample in parquet.read_rows(stage(job, "data"), Sample)}
    for name in ("MathVista", "MMVet", "OCRBench", "HallusionBench", "MMMU", "MMStar"):
        assert not trained & {item["sample_id"] for item in benchmarks.items(name, 40)}


def test_the_checkpoint_loads_as_any_model_does(job: Path) -> None:
    AutoProcessor.from_pretrained(job / "checkpoint")
    AutoModelForImageTextToText.from_pretrained(job / "checkpoint")


def test_the_page_is_self_contained(job: Path) -> None:
    page = (job / "report.html").read_text()
    assert "<img" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert (job / "report.md").read_text().startswith("#")


def written(folder: Path) -> dict[Path, float]:
    """When each part, step log, manifest.json and trained weight was written; reports left out."""
    names = ("part-*.parquet", "train_log.jsonl", "manifest.json", "model.safetensors")
    paths = [path for name in names for path in folder.rglob(name) if "run" not in path.parts]
    return {path: path.stat().st_mtime for path in paths}


def test_the_same_command_again_redoes_nothing(job: Path) -> None:
    folder = job.parents[1]
    before = written(folder)
    started = time.time()
    assert output_of(run(*SMALL, f"output_dir={folder}")) == job
    assert written(folder) == before
    assert time.time() - started < 120


def test_another_tau_redoes_only_scoring_and_what_follows(job: Path) -> None:
    folder = job.parents[1]
    rows = len(parquet.read_rows(stage(job, "probe"), Rollout))
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "launch" / "score.py"),
            *SMALL,
            f"output_dir={folder}",
            "difficulty.pism.tau=0.5",
        ],
        capture_output=True,
        text=True,
    )
    output_of(done)
    assert len(list((folder / "probe").iterdir())) == 1
    after = parquet.read_rows(next((folder / "probe").iterdir()), Rollout)
    keys = {(row.sample_id, row.mask_percent, row.draw) for row in after}
    assert len(keys) == len(after) >= rows
    assert len(list((folder / "score").iterdir())) == 2


def test_an_empty_stratum_ends_with_the_counts_and_exit_code_2(job: Path) -> None:
    done = run("debug=smoke", f"output_dir={job.parents[1]}", "grpo.prompts_per_step=64",
               "grpo.num_generations=2", "grpo.per_device_train_batch_size=2")  # fmt: skip
    assert done.returncode == 2
    assert "the strata hold easy" in done.stderr
    assert "Traceback" not in done.stderr
