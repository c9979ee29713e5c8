"""A whole run gives the results that are stored in tests/golden (default seed, CPU).

The golden files hold the results of an earlier run with the same settings. A recipe's name says
which samples it trains on by SFT and by GRPO: the medium (mid), the hard, or as many random samples
as are medium (rand_m). Medium and hard are strata (classes of difficulty).
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
RUNS = {  # name of the golden file: settings of the run
    "smoke": ("recipe=grpo_hard", "control=random"),  # random samples train a second model
    "difficulty_all": (
        "recipe=grpo_mid_hard",
        "difficulty=all",
        "probe.retest_samples=8",
        "control=random",
    ),
    "rap": ("recipe=rap", "probe.retest_samples=8"),
    "sft_then_grpo": ("recipe=sft_rand_m_grpo_hard",),
}
pytestmark = [pytest.mark.slow, pytest.mark.golden]


@pytest.fixture(scope="module", params=RUNS)
def result_and_golden(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """The results of a small run, and those in its golden file."""
    folder = tmp_path_factory.mktemp(request.param)
    # debug=smoke runs all stages with few samples and steps.
    overrides = ("debug=smoke", *RUNS[request.param], f"output_dir={folder}")
    done = subprocess.run(
        [sys.executable, str(ROOT / "launch" / "train.py"), *overrides],
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    printed = subprocess.run(
        [sys.executable, str(GOLDEN / "behavior.py"), str(folder)], capture_output=True, text=True
    )
    assert printed.returncode == 0, printed.stderr
    return json.loads(printed.stdout), json.loads((GOLDEN / f"{request.param}.json").read_text())


def test_samples_and_selections_are_the_golden_ones(result_and_golden) -> None:
    result, golden = result_and_golden
    assert result["samples"] == golden["samples"]
    assert result["selections"] == golden["selections"]


def test_every_sample_has_its_golden_difficulty(result_and_golden) -> None:
    result, golden = result_and_golden
    assert result["strata"].keys() == golden["strata"].keys()
    for measure, rows in golden["strata"].items():
        for (stratum, value), (golden_stratum, golden_value) in zip(
            result["strata"][measure], rows, strict=True
        ):
            assert stratum == golden_stratum
            assert value == pytest.approx(golden_value, abs=2e-3)  # processors round differently


def test_every_benchmark_score_and_report_figure_is_the_golden_one(result_and_golden) -> None:
    result, golden = result_and_golden
    assert result["item_scores"] == golden["item_scores"]
    assert result["report"] == golden["report"]
