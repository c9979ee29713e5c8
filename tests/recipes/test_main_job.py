"""The main command, launch/train.py, as a whole but with few samples (debug=smoke).

The base model is not trained, the tuned model is trained on the selected samples, and the control
on as many random samples. pism and cmab are measures of difficulty.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForImageTextToText, AutoProcessor

from difftrain.pipeline import parquet
from difftrain.records import ItemResult, Rollout, Sample, Score, Selection

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("debug=smoke", "select.strata=[hard,medium,unsolved]", "control=random")
# debug=smoke sets data.num_samples=60 and evaluate.limit=8.
NUM_SAMPLES, ITEMS_PER_BENCHMARK = 60, 8


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
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a small run, with a second model trained on random samples (control)."""
    return output_of(run(*SMALL, f"output_dir={tmp_path_factory.mktemp('run_folder')}"))


def stage_folder(run_folder: Path, name: str) -> Path:
    """The only folder of the stage with this name; run_folder is OUTPUT_DIR/run/NAME."""
    (folder,) = (run_folder.parents[1] / name).iterdir()
    return folder


def test_the_report_has_all_its_keys_and_scores(run_folder: Path) -> None:
    report = json.loads((run_folder / "report.json").read_text())
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
    # The keys that the recipe's file sets, with the values of this run (see SMALL).
    strata = "select.strata=[hard, medium, unsolved]"
    assert report["recipe_difference"] == ["name=grpo_hard", strata]
    for name in ("base", "tuned", "control"):
        for benchmark in ("MathVista", "MMVet", "OCRBench", "HallusionBench", "MMMU", "MMStar"):
            score = report[name][f"shapes/{benchmark}"]
            assert 0 <= score["low"] <= score["score"] <= score["high"] <= 1
            assert score["n"] == ITEMS_PER_BENCHMARK


def test_the_counts_account_for_every_row_of_the_data(run_folder: Path) -> None:
    counts = json.loads((run_folder / "report.json").read_text())["counts"]
    samples = parquet.read_rows(stage_folder(run_folder, "data"), Sample)
    assert counts["samples"] == len(samples) + counts["quarantined"] == NUM_SAMPLES
    assert counts["samples"] == sum(counts["strata"].values()) + counts["quarantined"]
    scores = parquet.read_rows(stage_folder(run_folder, "score"), Score)
    assert len(scores) == 2 * len(samples)  # by the measures pism and cmab


def test_the_control_trains_on_as_many_samples_as_the_recipe_selects(run_folder: Path) -> None:
    folders = (run_folder.parents[1] / "select").iterdir()  # one of the recipe, one of the control
    sizes = [len(parquet.read_rows(folder, Selection)) for folder in folders]
    assert len(sizes) == 2
    assert sizes[0] == sizes[1] > 0


def test_no_response_is_sampled_twice(run_folder: Path) -> None:
    """Responses to one prompt are numbered by `draw`."""
    rows = parquet.read_rows(stage_folder(run_folder, "probe"), Rollout)
    keys = [(row.sample_id, row.view, row.mask_percent, row.draw) for row in rows]
    assert len(set(keys)) == len(keys)


def test_base_tuned_and_control_are_graded_on_the_same_items(run_folder: Path) -> None:
    items = [
        sorted((row.benchmark, row.item_id) for row in parquet.read_rows(folder, ItemResult))
        for folder in (run_folder.parents[1] / "evaluate").iterdir()
    ]
    assert len(items) == 3  # evaluations: base, tuned, control
    assert items[0] == items[1] == items[2]


def test_no_benchmark_item_is_in_the_training_data(run_folder: Path) -> None:
    from difftrain.shapes import benchmarks

    data = {
        sample.sample_id for sample in parquet.read_rows(stage_folder(run_folder, "data"), Sample)
    }
    for name in ("MathVista", "MMVet", "OCRBench", "HallusionBench", "MMMU", "MMStar"):
        assert not data & {item["sample_id"] for item in benchmarks.items(name, size=40)}


def test_the_checkpoint_loads_by_from_pretrained(run_folder: Path) -> None:
    AutoProcessor.from_pretrained(run_folder / "checkpoint")
    AutoModelForImageTextToText.from_pretrained(run_folder / "checkpoint")


def test_the_html_report_needs_no_other_file_and_no_network(run_folder: Path) -> None:
    html = (run_folder / "report.html").read_text()
    assert "<img" in html
    assert "http://" not in html.replace("http://www.w3.org", "")  # w3.org: names in SVG figures
    assert (run_folder / "report.md").read_text().startswith("#")


def modified_times(folder: Path) -> dict[Path, float]:
    """When each part, step log, manifest.json and weights file was written, without reports."""
    names = ("part-*.parquet", "train_log.jsonl", "manifest.json", "model.safetensors")
    paths = [path for name in names for path in folder.rglob(name) if "run" not in path.parts]
    return {path: path.stat().st_mtime for path in paths}


def test_the_same_command_again_repeats_no_stage(run_folder: Path) -> None:
    folder = run_folder.parents[1]
    before = modified_times(folder)
    assert output_of(run(*SMALL, f"output_dir={folder}")) == run_folder
    assert modified_times(folder) == before


def test_the_same_command_again_imports_neither_torch_nor_trl(run_folder: Path) -> None:
    """Importing them takes longer than everything else that a finished run needs."""
    program = str(ROOT / "launch" / "train.py")
    command = [sys.executable, "-X", "importtime", program, *SMALL]
    done = subprocess.run(
        [*command, f"output_dir={run_folder.parents[1]}"], capture_output=True, text=True
    )
    assert output_of(done) == run_folder
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "difftrain.pipeline.paths" in imported
    assert "this run is finished" in done.stderr
    assert not imported & {"torch", "transformers", "trl"}


def test_another_tau_reuses_the_responses_and_repeats_the_scoring(run_folder: Path) -> None:
    """A mask ratio counts as failed if the share of correct responses is below tau."""
    folder = run_folder.parents[1]
    num_rollouts = len(parquet.read_rows(stage_folder(run_folder, "probe"), Rollout))
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
    rollouts = parquet.read_rows(next((folder / "probe").iterdir()), Rollout)
    keys = {(row.sample_id, row.mask_percent, row.draw) for row in rollouts}
    assert len(keys) == len(rollouts) >= num_rollouts
    assert len(list((folder / "score").iterdir())) == 2  # one for each tau


def test_a_stratum_too_small_for_a_step_is_reported_with_the_counts_and_exit_code_2(
    run_folder: Path,
) -> None:
    done = run("debug=smoke", f"output_dir={run_folder.parents[1]}", "grpo.prompts_per_step=64",
               "grpo.num_generations=2", "grpo.per_device_train_batch_size=2")  # fmt: skip
    assert done.returncode == 2
    assert "the strata hold easy" in done.stderr
    assert "Traceback" not in done.stderr
