"""Every RAP recipe runs to its end on few samples, and selects no easy or biased sample.

RAP selects by three measures: CDE (does the answer need the image?), ACE (attention bias) and DRM
(difficulty). The retest scores some samples again, from responses with other seeds. A report names
the trained model "tuned"; `picks` are numbers of selected samples.
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from difftrain.pipeline import parquet
from difftrain.records import Measure, Rollout, Sample, Score, Selection, View
from difftrain.select.rap import DECISIONS_FOLDER, Decision, Outcome

ROOT = Path(__file__).resolve().parents[2]
NUM_SAMPLES, RETEST_SAMPLES = 60, 8  # debug=smoke sets data.num_samples=60
SMALL = ("debug=smoke", f"probe.retest_samples={RETEST_SAMPLES}", "grpo.max_steps=1")
RECIPES = ("rap", "rap_cde", "rap_ace", "rap_cde_ace")
pytestmark = pytest.mark.slow


def run(output_dir: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    arguments = (*SMALL, f"output_dir={output_dir}", *overrides)
    return subprocess.run(
        [sys.executable, str(ROOT / "launch" / "train.py"), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )


@pytest.fixture(scope="module")
def output_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of all four recipes, which share data, responses, attention and scores."""
    folder = tmp_path_factory.mktemp("rap")
    for recipe in RECIPES:
        done = run(folder, f"recipe={recipe}")
        assert done.returncode == 0, done.stderr[-4000:]
        assert done.stdout.strip().splitlines()[-1].startswith("output: ")
    return folder


def report(output_dir: Path, recipe: str) -> dict:
    (folder,) = (output_dir / "run").glob(f"{recipe}-*")
    return json.loads((folder / "report.json").read_text())


def only_folder_in(folder: Path) -> Path:
    (content,) = folder.iterdir()
    return content


def test_the_recipes_share_the_responses_of_the_base_model(output_dir: Path) -> None:
    rows = parquet.read_rows(only_folder_in(output_dir / "probe"), Rollout)
    keys = {(row.sample_id, row.view, row.mask_percent, row.draw) for row in rows}
    num_samples = len(parquet.read_rows(only_folder_in(output_dir / "data"), Sample))
    # CDE needs 5 responses with the full image and 5 without an image (probe.cde_rollouts).
    assert len(keys) == len(rows) == (5 + 5) * num_samples
    assert {row.view for row in rows} == {View.full_image, View.text_only}
    assert len(list((output_dir / "score").iterdir())) == 1


def test_rap_selects_no_sample_that_its_scores_call_easy_or_biased(output_dir: Path) -> None:
    scores = parquet.read_rows(only_folder_in(output_dir / "score"), Score)
    value = {(row.sample_id, row.measure): row.value for row in scores}
    stages = report(output_dir, "rap")["stages"]
    folder = output_dir / "select" / stages["select tuned"]["folder"]
    selections = parquet.read_rows(folder, Selection)
    assert selections
    for selection in selections:
        assert value[selection.sample_id, Measure.drm] > 0  # 0: all responses are correct
        bias = value[selection.sample_id, Measure.ace]
        assert bias is None or bias <= math.log(0.1)  # difficulty.ace.lambda_a
    decisions = {
        row.sample_id: row for row in parquet.read_rows(folder / DECISIONS_FOLDER, Decision)
    }
    assert len(decisions) == report(output_dir, "rap")["counts"]["samples"]
    for row in decisions.values():
        assert row.reason
        assert row.difficulty == value[row.sample_id, Measure.drm]
        assert row.discrepancy == value[row.sample_id, Measure.cde]
        assert row.bias == value[row.sample_id, Measure.ace]
    selected_ids = {
        key for key, row in decisions.items() if row.outcome in (Outcome.kept, Outcome.brought_in)
    }
    assert selected_ids == {selection.sample_id for selection in selections}


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_report_describes_the_selection(output_dir: Path, recipe: str) -> None:
    content = report(output_dir, recipe)
    assert content["name"] == recipe
    assert content["funnel"]["chosen"] == sum(content["counts"]["picks"].values()) > 0
    assert content["funnel"]["pool"] == content["counts"]["samples"] == NUM_SAMPLES
    assert set(content["retest"]["measures"]) == {"cde", "ace", "drm"}
    assert all(measure["n"] == RETEST_SAMPLES for measure in content["retest"]["measures"].values())


def test_an_empty_selection_is_reported_with_the_counts_and_exit_code_2(
    output_dir: Path,
) -> None:
    # The model cannot answer in four tokens.
    done = run(output_dir, "recipe=rap_cde", "probe.max_new_tokens=4")
    assert done.returncode == 2
    assert "RAP selects 0 samples" in done.stderr
    assert f"of {NUM_SAMPLES} samples CDE leaves 0" in done.stderr
    assert "Traceback" not in done.stderr
    # With this threshold every sample counts as biased.
    done = run(output_dir, "recipe=rap_ace", "difficulty.ace.lambda_a=1e-30")
    assert done.returncode == 2
    assert f"of {NUM_SAMPLES} samples ACE leaves 0" in done.stderr
