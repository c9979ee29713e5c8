"""Sweeps on a real SLURM: two emulated nodes on this machine (slurm_cluster.py)."""

import getpass
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from difftrain.pipeline import parquet
from difftrain.records import Rollout
from difftrain.train.callbacks import read_log
from tests.sweep.slurm_cluster import (
    SlurmCluster,
    missing_commands,
    slurm_cluster,
    wait_until,
)

ROOT = Path(__file__).resolve().parents[2]
missing = missing_commands()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing), reason=f"SLURM is not installed (no {', '.join(missing)})"),
    pytest.mark.timeout(1800),
]
CPU = ROOT / "launch" / "accelerate"
SMALL = ("debug=smoke", "data.num_samples=24", "evaluate.limit=2", "control=none")
LONG = ("recipe=grpo_full", "seed=1", *SMALL, "grpo.max_steps=24", "grpo.save_steps=1000")
"""A run whose only checkpoint before its end is the one that it saves on request."""
TIME_LIMIT = ("slurm.time=1", "slurm.signal=B:USR1@20")
WAIT_SECONDS = 1500  # for anything that takes a minute or two on an idle machine


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    # Preempted jobs have two minutes to save.
    with slurm_cluster(tmp_path_factory.mktemp("slurm"), grace=120) as running:
        yield running


@pytest.fixture(autouse=True)
def no_job_is_left(cluster: SlurmCluster) -> Iterator[None]:
    """Cancels what a failed test left in the queue."""
    yield
    cluster.run("scancel", "--user", getpass.getuser())
    wait_for_jobs(cluster, 60)


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


def wait_for_jobs(cluster: SlurmCluster, seconds: float = WAIT_SECONDS) -> None:
    wait_until(lambda: not cluster.states(), "no job waits or runs", seconds)


def outputs(folder: Path) -> str:
    """What all tasks of a sweep have printed."""
    return "\n".join(path.read_text() for path in sorted(folder.glob("sweep/*/slurm-*.out")))


def run_log(folder: Path, label: str) -> str:
    """The log of a run so far, empty before its start."""
    (log,) = [*folder.glob(f"sweep/*/{label}.log")] or [folder / "missing"]
    return log.read_text() if log.is_file() else ""


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of the only finished run below this output folder."""
    (path,) = folder.glob("run/*/checkpoint/model.safetensors")
    return load_file(path)


def train_steps(folder: Path) -> int:
    """How many steps the runs below this output folder have logged."""
    return sum(
        len(path.read_text().splitlines()) for path in folder.glob("train/*/train_log.jsonl")
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run of LONG that nothing disturbed, without SLURM."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run_without_slurm(folder)
    return folder


def run_without_slurm(folder: Path, *settings: str) -> None:
    """A run of LONG with these settings to its end."""
    program = str(ROOT / "launch" / "train.py")
    command = [sys.executable, program, *LONG, *settings, f"output_dir={folder}"]
    environment = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, env={**os.environ, **environment})


def copy_without_training(finished: Path, folder: Path) -> None:
    """Give a new output folder the finished stages before training."""
    for name in ("data", "preflight", "probe", "attention", "score", "select", "contamination"):
        if (finished / name).is_dir():
            shutil.copytree(finished / name, folder / name)


def test_a_sweep_of_two_recipes_and_two_seeds_probes_first_trains_and_is_compared(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    arguments = ("recipe=grpo_full,grpo_random", "seed=1,2", *SMALL, "slurm=plain",
                 "slurm.comment=two words", "slurm.time=30", "jobs=2")  # fmt: skip
    result = sweep(cluster, tmp_path, *arguments)
    assert result.returncode == 0, result.stderr
    again = sweep(cluster, tmp_path, *arguments)  # while they run
    assert again.returncode == 0, again.stderr
    assert "submitted" not in again.stdout.replace("not submitted", "")
    assert again.stdout.count("so it is not submitted again") == 6  # two probes and four runs
    status = sweep(cluster, tmp_path, *arguments, "--status")
    assert "grpo_full-1" in status.stdout
    assert "pending" in status.stdout, status.stdout + status.stderr
    wait_for_jobs(cluster)
    printed = outputs(tmp_path)
    for label in ("probe-grpo_full-1", "probe-grpo_full-2", "grpo_full-1", "grpo_random-2"):
        assert f"{label}: done" in printed, printed
    assert "GRPO-only(fullset)" in printed  # the comparison
    status = sweep(cluster, tmp_path, *arguments, "--status").stdout
    assert status.count("finished") == 4
    assert "grpo tuned 2" in status  # the last step of two
    assert len(list((tmp_path / "probe").glob("*/manifest.json"))) == 2


def test_a_time_limit_of_one_minute_is_survived_with_the_same_weights(
    cluster: SlurmCluster, tmp_path: Path, finished: Path
) -> None:
    (log,) = finished.glob("train/*/train_log.jsonl")
    rows = read_log(log.parent)
    rate = len(rows) / sum(row["step_time"] for row in rows)  # steps a second
    steps = f"grpo.max_steps={max(24, round(60 * rate))}"  # more than fit into the limit
    undisturbed, survived_folder = tmp_path / "undisturbed", tmp_path / "survived"
    for folder in (undisturbed, survived_folder):
        copy_without_training(finished, folder)
    run_without_slurm(undisturbed, steps)
    result = sweep(cluster, survived_folder, *LONG, steps, *TIME_LIMIT)
    assert result.returncode == 0, result.stderr
    wait_for_jobs(cluster)
    printed = outputs(survived_folder)
    assert "grpo_full-1: stops and starts again (restart 1 of at most 20)" in printed, printed
    assert "grpo_full-1: done" in printed
    assert "FAILED" not in printed
    assert "stopped on request after" in run_log(survived_folder, "grpo_full-1")
    assert "too few samples" not in run_log(survived_folder, "grpo_full-1")
    # The comparison waited for the restarted run.
    assert printed.count("# Rows against their random controls") == 1
    expected, survived = weights(undisturbed), weights(survived_folder)
    assert all(torch.equal(expected[name], survived[name]) for name in expected)


def test_a_preempted_run_of_two_processes_saves_and_continues(
    cluster: SlurmCluster, tmp_path: Path, finished: Path
) -> None:
    copy_without_training(finished, tmp_path)
    result = sweep(cluster, tmp_path, *LONG, f"accelerate={CPU / 'ddp_cpu.yaml'}",
                   "slurm.cpus-per-task=2", "slurm.partition=cpu")  # fmt: skip
    assert result.returncode == 0, result.stderr
    wait_until(lambda: train_steps(tmp_path) >= 2, "two steps are trained", WAIT_SECONDS)
    cluster.run("sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null",
                "--wrap=sleep 5")  # fmt: skip
    wait_for_jobs(cluster)
    log, printed = run_log(tmp_path, "grpo_full-1"), outputs(tmp_path)
    assert "grpo tuned stopped on request after" in log, log[-2000:]
    assert "grpo_full-1: stops and starts again" in printed, printed
    assert "grpo_full-1: done" in printed
    assert train_steps(tmp_path) == 24


STEPPING_PROGRAM = """#!/bin/bash
# In place of python: a run whose steps take a second, and which saves when the stop file appears.
[ "$2" = accelerate.commands.launch ] || exit 0
saved=$DIFFTRAIN_STOP_FILE.step
step=$(cat "$saved" 2> /dev/null || echo 0)
while [ "$step" -lt STEPS ]; do
    sleep 1
    step=$((step + 1))
    echo "step $step on $SLURMD_NODENAME"
    if [ -e "$DIFFTRAIN_STOP_FILE" ]; then
        echo "$step" > "$saved" && : > "${DIFFTRAIN_STOP_FILE%.stop}.saved"
        exit 1
    fi
done
echo "output: x"
"""


def stepping(folder: Path, steps: int) -> str:
    """The option that starts STEPPING_PROGRAM with this many steps instead of python."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "stepping"
    program.write_text(STEPPING_PROGRAM.replace("STEPS", str(steps)))
    program.chmod(0o755)
    return f"slurm.python={program}"


def steps_of(folder: Path) -> list[int]:
    """The steps in the log of a stepping run, in order."""
    lines = run_log(folder, "grpo_full-1").splitlines()
    return [int(line.split()[1]) for line in lines if line.startswith("step ")]


def test_the_script_saves_before_the_limit_starts_again_and_continues_as_often_as_allowed(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    arguments = ("recipe=grpo_full", "slurm.time=1", "slurm.signal=B:USR1@20", "slurm.restarts=1")
    result = sweep(cluster, tmp_path, *arguments, stepping(tmp_path, 1000))
    assert result.returncode == 0, result.stderr
    wait_for_jobs(cluster)
    steps, printed = steps_of(tmp_path), outputs(tmp_path)
    assert steps == [*range(1, len(steps) + 1)]  # no step is repeated or left out
    assert run_log(tmp_path, "grpo_full-1").count(", start ") == 2
    assert "not started again after 1 restarts" in printed, printed


def test_a_run_whose_saving_fails_at_the_limit_is_not_started_again(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    program = stepping(tmp_path, 1000)
    file = tmp_path / "stepping"
    file.write_text(file.read_text().replace('echo "$step" > "$saved"', "false"))  # a full disk
    arguments = ("recipe=grpo_full", "slurm.time=1", "slurm.signal=B:USR1@20", program)
    result = sweep(cluster, tmp_path, *arguments)
    assert result.returncode == 0, result.stderr
    wait_for_jobs(cluster)
    assert "not started again, because it has saved nothing" in outputs(tmp_path)
    assert run_log(tmp_path, "grpo_full-1").count(", start ") == 1


def test_a_preempted_task_saves_and_starts_again(cluster: SlurmCluster, tmp_path: Path) -> None:
    result = sweep(cluster, tmp_path, "recipe=grpo_full", "slurm.partition=cpu",
                   stepping(tmp_path, 20))  # fmt: skip
    assert result.returncode == 0, result.stderr
    wait_until(lambda: len(steps_of(tmp_path)) >= 3, "three steps", 60)
    cluster.run("sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null",
                "--wrap=sleep 2")  # fmt: skip
    wait_for_jobs(cluster, 400)
    assert steps_of(tmp_path) == [*range(1, 21)]
    assert "stops and starts again (restart 1 of at most 20)" in outputs(tmp_path)
    assert "grpo_full-1: done" in outputs(tmp_path)


def test_a_task_on_a_node_that_goes_down_is_not_called_done_and_starts_again(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    # The site exports no environment to jobs.
    result = sweep(cluster, tmp_path, "recipe=grpo_full", stepping(tmp_path, 10),
                   SBATCH_EXPORT="NONE")  # fmt: skip
    assert result.returncode == 0, result.stderr
    wait_until(lambda: len(steps_of(tmp_path)) >= 2, "two steps", 60)
    (node,) = cluster.run("squeue", "-h", "-t", "running", "-o", "%N").split()
    cluster.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    wait_until(lambda: "RUNNING" not in cluster.states().values(), "the task is requeued", 60)
    assert "done" not in outputs(tmp_path)
    cluster.run("scontrol", "update", f"nodename={node}", "state=resume", check=False)
    wait_for_jobs(cluster, 400)
    assert "start 2" in run_log(tmp_path, "grpo_full-1")
    assert "grpo_full-1: done" in outputs(tmp_path)


def test_cancel_ends_every_job_of_the_sweep_and_none_starts_again(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    arguments = ("recipe=grpo_full", "seed=1,2,3", stepping(tmp_path, 1000))
    assert sweep(cluster, tmp_path, *arguments).returncode == 0
    wait_until(lambda: len(steps_of(tmp_path)) >= 2, "two steps", 60)
    assert "grpo_full-1  running" in sweep(cluster, tmp_path, *arguments, "--status").stdout
    again = sweep(cluster, tmp_path, *arguments)
    assert "submitted" not in again.stdout.replace("not submitted", "")
    result = sweep(cluster, tmp_path, *arguments, "--cancel")
    assert result.returncode == 0, result.stderr
    assert "grpo_full-3" in result.stdout
    assert "comparison" in result.stdout
    wait_for_jobs(cluster, 60)
    assert "starts again" not in outputs(tmp_path)
    status = sweep(cluster, tmp_path, *arguments, "--status").stdout
    assert "grpo_full-1  cancelled" in status, status


def test_an_output_folder_that_the_node_cannot_see_is_reported_and_ends_the_other_tasks(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    folder = tmp_path / "shared"
    for node in ("n1", "n2"):
        cluster.run("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    try:
        arguments = ("recipe=grpo_full", "seed=1,2,3", *SMALL, "slurm=plain", "jobs=1")
        result = sweep(cluster, folder, *arguments)
        assert result.returncode == 0, result.stderr
        folder.rename(tmp_path / "elsewhere")
    finally:
        for node in ("n1", "n2"):
            cluster.run("scontrol", "update", f"nodename={node}", "state=resume")
    wait_for_jobs(cluster)
    listed = cluster.run("squeue", "--noheader", "--array", "--states=all", "--format=%F %T %k")
    job = result.stdout.split("submitted ")[1].partition(":")[0]
    states = [line for line in listed.splitlines() if line.split()[0] == job]
    assert sum("cannot be read and written" in line for line in states) == 1, listed
    # SLURM keeps the tasks that waited as one line.
    assert sorted({line.split()[1] for line in states}) == ["CANCELLED", "FAILED"], listed
    (tmp_path / "elsewhere").rename(folder)
    status = sweep(cluster, folder, *arguments, "--status").stdout
    assert "is it on a shared file system?" in status, status


PROBE_WITH_SHORT_TIMEOUT = """
import os, sys
os.environ.update(RANK=os.environ["SLURM_PROCID"], WORLD_SIZE=os.environ["SLURM_NTASKS"])
from difftrain.pipeline import coordination
coordination.TIMEOUT_SECONDS = float(sys.argv.pop(1))
from difftrain.cli import main
main("probe")
"""
"""The probe as one rank of a SLURM step, for which a rank is dead after argv[1] seconds."""


def test_a_probe_on_two_nodes_names_the_node_that_is_killed_and_the_next_start_finishes_its_share(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    settings = ("data.num_samples=96", "probe.mask_percents=[0,30,60,90]", "probe.draws=4",
                "model.batch_size=4", f"output_dir={tmp_path}")  # fmt: skip
    environment = cluster.environment | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    probe = [sys.executable, "-c", PROBE_WITH_SHORT_TIMEOUT]
    step = ["srun", "--nodes=2", "--ntasks=2", "--no-kill", "--kill-on-bad-exit=0"]
    log = tmp_path / "step.log"
    with log.open("w") as file:
        first = subprocess.Popen([*step, *probe, "60", *settings], env=environment, stdout=file,
                                 stderr=subprocess.STDOUT)  # fmt: skip

    def parts(rank: int) -> list[Path]:
        return [*tmp_path.glob(f"probe/*/part-r00{rank}-*.parquet")]

    wait_until(lambda: bool(parts(1)), "the second node has written a part", WAIT_SECONDS)
    written = {path: path.stat().st_mtime for path in parts(0) + parts(1)}
    cluster.kill_node("n2")
    try:
        wait_until(lambda: "no heartbeat" in log.read_text(), "the node is named", WAIT_SECONDS)
        assert "rank 1 on n2 of 2: no heartbeat" in log.read_text()
        first.kill()
        first.wait()
    finally:
        cluster.start_node("n2")
        cluster.run("scontrol", "update", "nodename=n2", "state=resume", check=False)
    one_rank = ["srun", "--nodes=1", "--ntasks=1", *probe, "60", *settings]
    ended = subprocess.run(one_rank, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]
    (folder,) = tmp_path.glob("probe/*")
    assert (folder / "manifest.json").is_file()
    assert {path: path.stat().st_mtime for path in written} == written  # nothing was repeated
    rows = parquet.read_rows(folder, Rollout)
    assert len({(row.sample_id, row.view, row.mask_percent, row.draw) for row in rows}) == len(rows)


def knows_nodes() -> bool:
    """Whether the names of the emulated nodes lead to this machine."""
    try:
        return {socket.gethostbyname(name) for name in ("n1", "n2")} == {"127.0.0.1"}
    except OSError:
        return False


@pytest.mark.skipif(not knows_nodes(), reason="the hosts file has no line `127.0.0.1 n1 n2`")
@pytest.mark.parametrize("stage", [3, 2])
def test_zero_on_two_nodes_is_one_training_of_two_processes(
    cluster: SlurmCluster, tmp_path: Path, finished: Path, stage: int
) -> None:
    copy_without_training(finished, tmp_path)
    config = OmegaConf.load(CPU / f"zero{stage}_cpu.yaml")
    config["num_processes"] = 1  # on each node
    file = tmp_path / "one_process.yaml"
    OmegaConf.save(config, file)
    token = "token-that-no-file-may-hold"
    arguments = [*LONG, "grpo.max_steps=1", f"accelerate={file}", "slurm.nodes=2"]
    result = sweep(cluster, tmp_path, *arguments, HF_TOKEN=token, OMP_NUM_THREADS="1")
    assert result.returncode == 0, result.stderr
    wait_for_jobs(cluster)
    log = run_log(tmp_path, "grpo_full-1")
    assert "grpo_full-1: done" in outputs(tmp_path), log[-3000:]
    assert "= 2 processes x batch size" in log
    assert log.count("\noutput: ") == 1
    (checkpoint,) = tmp_path.glob("run/*/checkpoint")
    AutoModelForImageTextToText.from_pretrained(checkpoint)
    assert not (ROOT / ".deepspeed_env").exists()
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if token.encode() in path.read_bytes()]
