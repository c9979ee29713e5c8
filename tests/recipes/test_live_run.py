"""One real run, whose curves are looked at in TensorBoard's and W&B's files while it trains."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.report.tracker_files import history, read_events

ROOT = Path(__file__).resolve().parents[2]
STEPS = 6
ARGUMENTS = ("debug=smoke", "select.strata=[hard,medium,unsolved]", f"grpo.max_steps={STEPS}",
             "report_to=[tensorboard,wandb]", "report.completions_steps=2")  # fmt: skip
pytestmark = pytest.mark.slow


def steps_in_tensorboard(folder: Path) -> list[int]:
    """The steps whose reward TensorBoard has, so far."""
    events = folder / "tensorboard" / "tuned"
    if not events.is_dir():
        return []
    sent = read_events(events)
    return (
        [row.step for row in sent.Scalars("reward")] if "reward" in sent.Tags()["scalars"] else []
    )


def steps_in_wandb(folder: Path) -> list[int]:
    """The steps whose reward is in W&B's offline file, so far."""
    rows = [row for path in folder.glob("wandb/offline-run-*/*.wandb") for row in history(path)]
    return [row["tuned/step"] for row in rows if "tuned/reward" in row]


@pytest.mark.timeout(1500)
def test_tensorboard_and_wandb_show_the_steps_of_a_run_while_it_trains(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "launch" / "train.py"), *ARGUMENTS, f"output_dir={tmp_path}"],
        env=os.environ | {
            "CUDA_VISIBLE_DEVICES": "",
            "WANDB_MODE": "offline",
            **{f"WANDB_{name}_DIR": str(tmp_path / name) for name in ("DATA", "CACHE", "CONFIG")},
        },
    )  # fmt: skip
    seen: dict[str, list[int]] = {"tensorboard": [], "wandb": []}  # numbers of steps, while running
    while process.poll() is None:
        for folder in tmp_path.glob("run/*"):
            seen["tensorboard"].append(len(steps_in_tensorboard(folder)))
            seen["wandb"].append(len(steps_in_wandb(folder)))
        time.sleep(1)
    assert process.returncode == 0
    (folder,) = tmp_path.glob("run/*")
    for name, counts in seen.items():
        assert set(counts) & set(range(1, STEPS)), f"{name} had no step before the last: {counts}"
    assert steps_in_tensorboard(folder) == steps_in_wandb(folder) == list(range(1, STEPS + 1))
    progress = read_events(folder / "tensorboard" / "run")
    shares = [row.value for row in progress.Scalars("progress/probe/share")]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    tags = read_events(folder / "tensorboard" / "tuned").Tags()
    assert "frac_reward_zero_std" in tags["scalars"]
    assert any(name.startswith("rewards/accuracy/mean/stratum/") for name in tags["scalars"])
    assert any(name.startswith("alarms/") for name in tags["scalars"])
    assert "completions/1/image 1" in tags["images"]
    assert "scores/mean/score" in tags["scalars"]
