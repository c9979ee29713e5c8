"""Every RAP recipe runs to its end on a small pool, and selects no easy or biased sample."""

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
SMALL = ("debug=smoke", "probe.retest_samples=8", "grpo.max_steps=1")
RECIPES = ("rap", "rap_cde", "rap_ace", "rap_cde_ace")
pytestmark = pytest.mark.slow


def run(output_dir: Path, *words: str) -> subprocess.CompletedProcess[str]:
    overrides = (*SMALL, f"output_dir={output_dir}", *words)
    return subprocess.run(
        [sys.executable, str(ROOT / "launch" / "train.py"), *overrides],
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )


@pytest.fixture(scope="module")
def output_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs of all four recipes, which share data, probe, attention and scores."""
    folder = tmp_path_factory.mktemp("rap")
    for recipe in RECIPES:
        done = run(folder, f"recipe={recipe}")
        assert done.returncode == 0, done.stderr[-4000:]
        assert done.stdout.strip().splitlines()[-1].startswith("output: ")
    return folder


def report(output_dir: Path, recipe: str) -> dict:
    (folder,) = (output_dir / "run").glob(f"{recipe}-*")
    return json.loads((folder / "report.json").read_text())


def only(folder: Path) -> Path:
    (content,) = folder.iterdir()
    return content


def test_the_recipes_share_one_probe(output_dir: Path) -> None:
    rows = parquet.read_rows(only(output_dir / "probe"), Rollout)
    keys = {(row.sample_id, row.view, row.mask_percent, row.draw) for row in rows}
    num_samples = len(parquet.read_rows(only(output_dir / "data"), Sample))
    assert len(keys) == len(rows) == 10 * num_samples
    assert {row.view for row in rows} == {View.full_image, View.text_only}
    assert len(list((output_dir / "score").iterdir())) == 1


def test_rap_selects_no_sample_that_its_scores_call_easy_or_biased(output_dir: Path) -> None:
    scores = parquet.read_rows(only(output_dir / "score"), Score)
    value = {(row.sample_id, row.measure): row.value for row in scores}
    folder = output_dir / "select" / report(output_dir, "rap")["stages"]["select tuned"]["folder"]
    selections = parquet.read_rows(folder, Selection)
    assert selections
    for selection in selections:
        assert value[selection.sample_id, Measure.drm] > 0
        bias = value[selection.sample_id, Measure.ace]
        assert bias is None or bias <= math.log(0.1)
    decisions = {
        row.sample_id: row for row in parquet.read_rows(folder / DECISIONS_FOLDER, Decision)
    }
    assert len(decisions) == report(output_dir, "rap")["counts"]["samples"]
    for row in decisions.values():
        assert row.reason
        assert row.difficulty == value[row.sample_id, Measure.drm]
        assert row.discrepancy == value[row.sample_id, Measure.cde]
        assert row.bias == value[row.sample_id, Measure.ace]
    kept = {
        key for key, row in decisions.items() if row.outcome in (Outcome.kept, Outcome.brought_in)
    }
    assert kept == {selection.sample_id for selection in selections}


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_report_describes_the_selection(output_dir: Path, recipe: str) -> None:
    content = report(output_dir, recipe)
    assert content["name"] == recipe
    assert content["funnel"]["chosen"] == sum(content["counts"]["picks"].values()) > 0
    assert content["funnel"]["pool"] == content["counts"]["samples"] == 60
    assert set(content["retest"]["measures"]) == {"cde", "ace", "drm"}
    assert all(measure["n"] == 8 for measure in content["retest"]["measures"].values())


def test_an_empty_selection_is_reported_with_the_counts_and_exit_code_2(
    output_dir: Path,
) -> None:
    done = run(output_dir, "recipe=rap_cde", "probe.max_new_tokens=4")  # too few for any answer
    assert done.returncode == 2
    assert "RAP selects 0 samples" in done.stderr
    assert "of 60 samples CDE leaves 0" in done.stderr
    assert "Traceback" not in done.stderr
    done = run(output_dir, "recipe=rap_ace", "difficulty.ace.lambda_a=1e-30")
    assert done.returncode == 2
    assert "of 60 samples ACE leaves 0" in done.stderr
