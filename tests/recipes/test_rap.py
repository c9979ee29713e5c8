"""Every rap recipe to its end on a small pool of shapes, and what it must never do."""

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


def run(store: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "launch" / "train.py"), *SMALL, f"output_dir={store}", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifacts of all four recipes; they share data, probe, attention and scores."""
    folder = tmp_path_factory.mktemp("rap")
    for recipe in RECIPES:
        done = run(folder, f"recipe={recipe}")
        assert done.returncode == 0, done.stderr[-4000:]
        assert done.stdout.strip().splitlines()[-1].startswith("output: ")
    return folder


def report(store: Path, recipe: str) -> dict:
    (folder,) = (store / "run").glob(f"{recipe}-*")
    return json.loads((folder / "report.json").read_text())


def only(folder: Path) -> Path:
    (content,) = folder.iterdir()
    return content


def test_the_recipes_share_one_probe(store: Path) -> None:
    rows = parquet.read_rows(only(store / "probe"), Rollout)
    keys = {(row.sample_id, row.view, row.mask_percent, row.draw) for row in rows}
    samples = len(parquet.read_rows(only(store / "data"), Sample))
    assert len(keys) == len(rows) == 10 * samples
    assert {row.view for row in rows} == {View.full_image, View.text_only}
    assert len(list((store / "score").iterdir())) == 1


def test_rap_picks_no_sample_that_its_own_table_calls_easy_or_biased(store: Path) -> None:
    scores = parquet.read_rows(only(store / "score"), Score)
    value = {(row.sample_id, row.measure): row.value for row in scores}
    folder = store / "select" / report(store, "rap")["stages"]["select tuned"]["folder"]
    picks = parquet.read_rows(folder, Selection)
    assert picks
    for pick in picks:
        assert value[pick.sample_id, Measure.drm] > 0
        bias = value[pick.sample_id, Measure.ace]
        assert bias is None or bias <= math.log(0.1)
    decisions = {
        row.sample_id: row for row in parquet.read_rows(folder / DECISIONS_FOLDER, Decision)
    }
    assert len(decisions) == report(store, "rap")["counts"]["samples"]
    for row in decisions.values():
        assert row.reason
        assert row.difficulty == value[row.sample_id, Measure.drm]
        assert row.discrepancy == value[row.sample_id, Measure.cde]
        assert row.bias == value[row.sample_id, Measure.ace]
    kept = {
        key for key, row in decisions.items() if row.outcome in (Outcome.kept, Outcome.brought_in)
    }
    assert kept == {pick.sample_id for pick in picks}


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_report_describes_the_selection(store: Path, recipe: str) -> None:
    content = report(store, recipe)
    assert content["name"] == recipe
    assert content["funnel"]["chosen"] == sum(content["counts"]["picks"].values()) > 0
    assert content["funnel"]["pool"] == content["counts"]["samples"] == 60
    assert set(content["retest"]["measures"]) == {"cde", "ace", "drm"}
    assert all(each["n"] == 8 for each in content["retest"]["measures"].values())


def test_where_nothing_survives_the_counts_are_reported_with_exit_code_2(store: Path) -> None:
    done = run(store, "recipe=rap_cde", "probe.max_new_tokens=4")  # too few for any answer
    assert done.returncode == 2
    assert "RAP selects 0 samples" in done.stderr
    assert "of 60 samples CDE leaves 0" in done.stderr
    assert "Traceback" not in done.stderr
    done = run(store, "recipe=rap_ace", "difficulty.ace.lambda_a=1e-30")
    assert done.returncode == 2
    assert "of 60 samples ACE leaves 0" in done.stderr
