"""Whole runs with dynamic sampling: what a user sees in the report, and when the pool is dead."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, str(ROOT / "launch" / "train.py"), "recipe=grpo_dynamic", "debug=smoke")
pytestmark = pytest.mark.slow


def run(*settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *settings], capture_output=True, text=True)


def test_the_report_counts_and_draws_all_groups_that_were_asked(tmp_path: Path) -> None:
    done = run(
        f"output_dir={tmp_path}", "control=random", "grpo.max_steps=4", "grpo.sampler=learnable"
    )
    assert done.returncode == 0, done.stderr[-4000:]
    folder = Path(done.stdout.strip().splitlines()[-1].removeprefix("output: "))
    report = json.loads((folder / "report.json").read_text())
    for arm in ("tuned", "control"):
        (train,) = (tmp_path / "train").glob(report["stages"][f"train {arm}"]["folder"])
        rows = [json.loads(line) for line in (train / "train_log.jsonl").read_text().splitlines()]
        sampled = sum(row["groups_asked"] for row in rows)
        logged = [
            json.loads(line) for line in (train / "prompt_log.jsonl").read_text().splitlines()
        ]
        assert len([row for row in logged if row["step"]]) == sampled
        cost = report["cost"]["by_stage"][f"train {arm}"]
        assert cost["generations"] == 8 * sampled  # completions of a group
        assert cost["tokens"] > 0
        assert report["training"][arm]["groups"]["sampled"] == sampled
        prior = [row for row in logged if not row["step"]]
        assert max(row["correct"] + row["incorrect"] for row in prior) > 0  # the probe's answers
    assert "groups of responses" in (folder / "report.md").read_text()
    assert "Groups sampled and trained on" in (folder / "report.html").read_text()


def test_a_dead_pool_ends_with_exit_code_2_and_the_base_models_weights(tmp_path: Path) -> None:
    # With one token no answer can be complete, so all rewards are 0.
    done = run(f"output_dir={tmp_path}", "grpo.max_completion_length=1", "grpo.max_steps=50")
    assert done.returncode == 2, done.stderr[-4000:]
    assert "DeadPoolError: grpo tuned: no group had unequal rewards" in done.stderr
    assert "were always wrong and 0 always right. Select other strata" in done.stderr
    assert "Traceback" not in done.stderr
    (path,) = tmp_path.glob("train/*/checkpoint/model.safetensors")
    weights = load_file(path)
    base = load_file(ROOT / "difftrain" / "shapes" / "tiny" / "model.safetensors")
    assert all((weights[key] == base[key]).all() for key in base)
    assert not list(tmp_path.glob("train/*/manifest.json"))  # it does not count as trained


def test_a_floor_that_cannot_be_met_ends_with_exit_code_2(tmp_path: Path) -> None:
    done = run(f"output_dir={tmp_path}", "grpo.sampler=learnable", "grpo.task_floor=0.9")
    assert done.returncode == 2, done.stderr[-4000:]
    assert "grpo.task_floor=0.9: " in done.stderr
    assert "set it to at most 0." in done.stderr
