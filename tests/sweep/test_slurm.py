"""Sweeps on a real SLURM: two emulated nodes on this machine (slurm_cluster.py)."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sweep.slurm_cluster import SlurmCluster, missing_commands, slurm_cluster, wait_until

ROOT = Path(__file__).resolve().parents[2]
missing = missing_commands()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing), reason=f"SLURM is not installed (no {', '.join(missing)})"),
]
SMALL = ("debug=smoke", "data.num_samples=24", "evaluate.limit=2", "control=none")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    with slurm_cluster(tmp_path_factory.mktemp("slurm")) as running:
        yield running


def sweep(
    cluster: SlurmCluster, folder: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run launch/sweep.py as a user of the cluster, without GPUs."""
    variables = {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [sys.executable, str(ROOT / "launch" / "sweep.py"), *arguments, f"output_dir={folder}"],
        env=cluster.environment | variables,
        capture_output=True,
        text=True,
    )


def wait_for_jobs(cluster: SlurmCluster, seconds: float = 400) -> None:
    wait_until(lambda: not cluster.states(), "no job waits or runs", seconds)


def outputs(folder: Path) -> str:
    """What all tasks of a sweep have printed."""
    return "\n".join(path.read_text() for path in sorted(folder.glob("sweep/*/slurm-*.out")))


def test_a_sweep_of_two_recipes_and_two_seeds_probes_first_trains_and_is_compared(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    arguments = ("recipe=grpo_full,grpo_random", "seed=1,2", *SMALL, "slurm=plain",
                 "slurm.comment=two words", "slurm.time=30", "jobs=2")  # fmt: skip
    result = sweep(cluster, tmp_path, *arguments)
    assert result.returncode == 0, result.stderr
    again = sweep(cluster, tmp_path, *arguments)  # while they run
    assert again.returncode == 0, again.stderr
    assert "submitted" not in again.stdout
    assert again.stdout.count("so it is not submitted again") == 6  # two probes and four runs
    status = sweep(cluster, tmp_path, *arguments, "--status")
    assert "grpo_full-1" in status.stdout
    assert "pending" in status.stdout, status.stdout + status.stderr
    wait_for_jobs(cluster, 550)
    printed = outputs(tmp_path)
    for label in ("probe-grpo_full-1", "probe-grpo_full-2", "grpo_full-1", "grpo_random-2"):
        assert f"{label}: done" in printed, printed
    assert "GRPO-only(fullset)" in printed  # the comparison
    status = sweep(cluster, tmp_path, *arguments, "--status").stdout
    assert status.count("finished") == 4
    assert "grpo tuned 2" in status  # the last step of two
    assert len(list((tmp_path / "probe").glob("*/manifest.json"))) == 2
