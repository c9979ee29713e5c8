"""Killed, sharded and broken runs end as an undisturbed one does. Slow lane."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from difftrain.model.resolve import SHIPPED
from difftrain.pipeline import parquet
from difftrain.records import Attention, Rollout

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
SMALL = (
    "data.num_samples=48",
    "probe.mask_percents=[0,30,60,90]",
    "probe.draws=4",
    "model.batch_size=16",
)
pytestmark = pytest.mark.slow


def command(launcher: str, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "launch" / f"{launcher}.py"), *SMALL, *arguments]


def run(launcher: str, *arguments: str, **environment: str) -> Path:
    done = subprocess.run(
        command(launcher, *arguments),
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return Path(done.stdout.strip().splitlines()[-1].removeprefix("output: "))


def rollouts(folder: Path) -> list[Rollout]:
    rows = parquet.read_rows(folder, Rollout)
    return sorted(rows, key=lambda row: (row.sample_id, row.mask_percent, row.draw))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The probe folder of a run that nothing disturbed."""
    return run("probe", f"output_dir={tmp_path_factory.mktemp('whole')}")


def test_a_killed_probe_resumes_without_repeating_a_rollout(
    undisturbed: Path, tmp_path: Path
) -> None:
    kills = 0
    for _ in range(6):
        child = subprocess.Popen(
            command("probe", f"output_dir={tmp_path}"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        before = len(list(tmp_path.glob("probe/*/part-*.parquet")))
        while child.poll() is None:
            if len(list(tmp_path.glob("probe/*/part-*.parquet"))) >= before + 2:
                child.send_signal(signal.SIGKILL)
                child.wait()
                kills += 1
            time.sleep(0.02)
        if child.returncode == 0:
            break
    folder = run("probe", f"output_dir={tmp_path}")
    assert kills >= 2
    assert folder.name == undisturbed.name
    assert rollouts(folder) == rollouts(undisturbed)
    assert not list(folder.glob("*.tmp"))


def test_two_ranks_write_what_one_rank_writes(undisturbed: Path, tmp_path: Path) -> None:
    ranks = [
        subprocess.Popen(
            command("probe", f"output_dir={tmp_path}"),
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for child in ranks:
        _, output = child.communicate(timeout=500)
        assert child.returncode == 0, output[-4000:]
    folder = tmp_path / "probe" / undisturbed.name
    assert {path.name[5:9] for path in parquet.parts(folder)} == {"r000", "r001"}
    assert rollouts(folder) == rollouts(undisturbed)
    (one,) = (undisturbed.parents[1] / "attention").iterdir()
    (two,) = (tmp_path / "attention").iterdir()
    masses = [{row.sample_id: row for row in parquet.read_rows(f, Attention)} for f in (one, two)]
    assert masses[0].keys() == masses[1].keys()
    for key, row in masses[0].items():
        for mine, theirs in zip(row.image_LT, masses[1][key].image_LT, strict=True):
            assert mine == pytest.approx(theirs, abs=2e-3)


def trained(folder: Path, *arguments: str) -> list[str]:
    steps = ("grpo.max_steps=6", "grpo.save_steps=2", "grpo.prompts_per_step=2")
    rest = ("grpo.per_device_train_batch_size=16", "evaluate.limit=4", "evaluate.resamples=200")
    keep = ("select.strata=[hard,medium,unsolved]",)
    return command("train", *steps, *rest, *keep, f"output_dir={folder}", *arguments)


def test_when_preflight_fails_on_the_first_rank_the_other_ends_with_the_reason(
    tmp_path: Path,
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(SHIPPED["tiny"], broken)
    template = broken / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|image_pad|>", ""))
    settings = (
        "model=tiny",
        f"model.name={broken}",
        "data.num_samples=12",
        f"output_dir={tmp_path}",
    )
    first, second = (
        subprocess.Popen(
            [sys.executable, str(ROOT / "launch" / "train.py"), *settings],
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    )
    _, output = first.communicate(timeout=200)
    _, other = second.communicate(timeout=30)
    assert (first.returncode, second.returncode) == (1, 1)
    assert "chat template has the image" in output
    assert "rank 1: rank 0 stopped: PreflightFailed: " in other
    assert "chat template has the image" in other
    assert "Traceback" not in output + other


def test_a_killed_training_continues_to_the_same_weights(tmp_path: Path) -> None:
    whole = subprocess.run(trained(tmp_path / "whole"), capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr[-4000:]
    child = subprocess.Popen(
        trained(tmp_path / "killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    saved = "train/*/checkpoints/checkpoint-2/trainer_state.json"
    while child.poll() is None and not list((tmp_path / "killed").glob(saved)):
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert list((tmp_path / "killed").glob(saved))
    again = subprocess.run(trained(tmp_path / "killed"), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr[-4000:]
    first, second = (
        load_file(next((tmp_path / name).glob("train/*/checkpoint/model.safetensors")))
        for name in ("whole", "killed")
    )
    assert all((first[key] == second[key]).all() for key in first)
    (log,) = (tmp_path / "killed").glob("train/*/train_log.jsonl")
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == list(range(1, 7))


def trained_by_a_few_steps(weights: dict, base: dict) -> None:
    """Whole, and moved from the base by no more than six steps of Adam can move a weight."""
    assert weights.keys() == base.keys()
    moved = {key: (weights[key].float() - base[key].float()).abs().max() for key in base}
    assert all(weights[key].shape == base[key].shape for key in base)
    assert 0 < max(moved.values()) < 6 * 1e-4 * 5


def test_two_processes_with_zero_3_end_as_one_process_does(tmp_path: Path) -> None:
    both = "control=random"
    one = subprocess.run(trained(tmp_path / "one", both), capture_output=True, text=True)
    assert one.returncode == 0, one.stderr[-4000:]
    sharded = [
        str(BIN / "accelerate"),
        "launch",
        "--config_file",
        str(ROOT / "launch" / "accelerate" / "zero3_cpu.yaml"),
        *trained(tmp_path / "two", both)[1:],
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{BIN}:{os.environ['PATH']}"}
    two = subprocess.run(sharded, capture_output=True, text=True, env=environment)
    assert two.returncode == 0, two.stderr[-6000:]
    assert two.stdout.strip().splitlines()[-1].startswith("output: ")
    base = load_file(ROOT / "difftrain" / "shapes" / "tiny" / "model.safetensors")
    for name in ("one", "two"):
        arms = list((tmp_path / name).glob("train/*/checkpoint/model.safetensors"))
        assert len(arms) == 2
        for path in arms:
            trained_by_a_few_steps(load_file(path), base)
    reports = [
        json.loads(next((tmp_path / name).glob("run/*/report.json")).read_text())
        for name in ("one", "two")
    ]
    assert reports[0]["counts"] == reports[1]["counts"]
    assert reports[0]["base"] == reports[1]["base"]
    assert reports[0]["tuned"].keys() == reports[1]["tuned"].keys()


def pages(folder: Path) -> int:
    """Kilobytes that a folder's files take on a disk of 4 kB pages."""
    return sum(-(-each.stat().st_size // 4096) * 4 for each in folder.rglob("*") if each.is_file())


def test_a_full_disk_is_told_and_with_room_the_same_command_goes_on(
    undisturbed: Path, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    size = f"size={pages(undisturbed.parent.parent / 'data') + pages(undisturbed) // 2}k"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(small)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        done = subprocess.run(
            command("probe", f"output_dir={small}"), capture_output=True, text=True
        )
        assert done.returncode == 1
        assert "No space left" in done.stderr or "no space left" in done.stderr
        assert "Traceback" not in done.stderr
        assert list(small.glob("data/*/part-*.parquet"))
        for part in small.rglob("part-*.parquet"):
            assert part.stat().st_size > 0
        subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
        assert rollouts(run("probe", f"output_dir={small}")) == rollouts(undisturbed)
    finally:
        subprocess.run(["umount", str(small)], check=False)
