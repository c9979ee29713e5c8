"""Whole runs with two rounds: probe, select and train again with the checkpoint of round 1.

The tuned arm trains on strata of scored samples, the control arm on as many random ones.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from difftrain.pipeline import parquet
from difftrain.records import Rollout

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


def command(folder: Path, *arguments: str) -> list[str]:
    """The command line of a small run of the recipe with rounds."""
    sizes = ("data.num_samples=32", "probe.draws=4", "grpo.max_steps=8", "grpo.save_steps=2")
    strata = "select.strata=[easy,hard,medium,unsolved]"
    settings = ("debug=smoke", "recipe=grpo_mid_hard_rounds", *sizes, strata)
    script = str(ROOT / "launch" / "train.py")
    return [sys.executable, script, *settings, f"output_dir={folder}", *arguments]


def environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **variables}


def run(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run the command to its end; returns report.json."""
    done = subprocess.run(
        command(folder, *arguments), capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stderr[-4000:]
    output = Path(done.stdout.strip().splitlines()[-1].removeprefix("output: "))
    assert (output / "checkpoint" / "model.safetensors").is_file()
    return json.loads((output / "report.json").read_text())


def weights(folder: Path) -> dict[str, Any]:
    """The tuned checkpoint in the run's folder."""
    return load_file(next(folder.glob("run/*/checkpoint/model.safetensors")))


def results(report: dict[str, Any]) -> dict[str, Any]:
    """What does not depend on the speed of the machine."""
    rounds = report["rounds"]
    by_round = [{k: v for k, v in row.items() if k != "seconds"} for row in rounds["by_round"]]
    kept = {name: report[name] for name in ("counts", "base", "tuned", "means", "differences")}
    return kept | {"moves": rounds["moves"], "by_round": by_round}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A finished run's output folder, and its report."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, run(folder)


def test_the_second_round_scores_selects_and_trains_again(
    undisturbed: tuple[Path, dict[str, Any]],
) -> None:
    folder, report = undisturbed
    rounds = report["rounds"]
    assert (rounds["number"], rounds["trained"], rounds["stop_reason"]) == (2, 2, None)
    assert [row["steps"]["tuned"] for row in rounds["by_round"]] == [4, 4]
    assert report["trained"]["tuned"]["steps"] == 8
    total = sum(row["generations"] for row in rounds["by_round"])
    assert report["cost"]["generations"] == total
    (pair,) = rounds["moves"]
    assert pair["samples"] == sum(report["counts"]["strata"].values())
    probes = [parquet.read_rows(path, Rollout) for path in folder.glob("probe/*")]
    assert sorted(map(len, probes)) == sorted(row["generations"] for row in rounds["by_round"])
    assert not {row.seed for row in probes[0]} & {row.seed for row in probes[1]}
    page = next(folder.glob("run/*/report.html")).read_text()
    assert "How samples moved from round to round" in page


def kill_once(folder: Path, is_time: Callable[[], bool]) -> None:
    """Start the run, and kill it as soon as `is_time`."""
    child = subprocess.Popen(
        command(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()
    )
    while child.poll() is None and not is_time():
        time.sleep(0.02)
    assert child.poll() is None, "the run ended before it could be killed"
    child.send_signal(signal.SIGKILL)
    child.wait()


def test_a_run_that_is_killed_twice_in_its_second_round_ends_with_the_same_weights(
    undisturbed: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    def in_second_probe() -> bool:
        return len({path.parent for path in tmp_path.glob("probe/*/part-*")}) == 2

    def in_second_training() -> bool:
        finished = list(tmp_path.glob("train/*/manifest.json"))
        saved = list(tmp_path.glob("train/*/checkpoints/checkpoint-2/trainer_state.json"))
        return len(finished) == 1 and any(path.parents[2] != finished[0].parent for path in saved)

    kill_once(tmp_path, in_second_probe)
    kill_once(tmp_path, in_second_training)
    report = run(tmp_path)
    folder, expected = undisturbed
    assert results(report) == results(expected)
    expected_weights, resumed = weights(folder), weights(tmp_path)
    assert all((expected_weights[key] == resumed[key]).all() for key in expected_weights)


def test_a_second_start_of_a_finished_run_does_nothing(
    undisturbed: tuple[Path, dict[str, Any]],
) -> None:
    folder, _ = undisturbed
    done = subprocess.run(command(folder), capture_output=True, text=True, env=environment())
    assert done.returncode == 0
    assert "this run is finished, there is nothing to do" in done.stderr


def test_two_processes_make_the_same_rounds_and_train_both_arms(tmp_path: Path) -> None:
    # As torchrun starts them: training divides each step among the processes.
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    arguments = command(tmp_path, "control=random")[1:]
    done = subprocess.run(
        [*launcher, *arguments], capture_output=True, text=True, env=environment(), timeout=900
    )
    assert done.returncode == 0, done.stderr[-6000:]
    report = json.loads(next(tmp_path.glob("run/*/report.json")).read_text())
    assert report["rounds"]["trained"] == 2
    for row in report["rounds"]["by_round"]:
        assert row["picks"]["tuned"] == row["picks"]["control"]
        assert row["steps"] == {"tuned": 4, "control": 4}
    assert len(list(tmp_path.glob("train/*/checkpoint/model.safetensors"))) == 4


def test_a_round_without_enough_samples_ends_the_run_with_a_report_on_the_round_before(
    tmp_path: Path,
) -> None:
    # This rate changes no weight, so both runs have the same strata in round 2: those that other
    # draws of the base model give.
    no_change = ("grpo.learning_rate=1e-12", "grpo.max_steps=2")
    rounds = run(tmp_path, *no_change)["rounds"]
    first, second = (row["strata"] for row in rounds["by_round"])
    shrinking = [name for name in first if second.get(name, 0) < first[name]]
    assert shrinking, "no stratum became smaller: choose other samples"
    name = shrinking[0]
    step = f"grpo.prompts_per_step={first[name]}"  # round 1 has just enough samples for a step
    done = subprocess.run(
        command(tmp_path, *no_change, f"select.strata=[{name}]", step, "name=stops"),
        capture_output=True, text=True, env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert (
        f"round 2 trains nothing, so the run ends: select.strata leaves {second.get(name, 0)}"
        in (done.stderr)
    )
    (folder,) = tmp_path.glob("run/stops-*")
    report = json.loads((folder / "report.json").read_text())
    assert report["rounds"]["trained"] == 1
    assert report["rounds"]["stop_reason"].startswith("select.strata leaves")
    assert [bool(row["picks"]) for row in report["rounds"]["by_round"]] == [True, False]
    assert report["trained"]["tuned"]["steps"] == 1  # of two, which the rounds share
    assert "One of two rounds trained" in (folder / "report.md").read_text()
    assert (folder / "checkpoint" / "model.safetensors").is_file()


@pytest.mark.parametrize("processes", [1, 2])
def test_a_dead_second_round_ends_the_run_with_a_report_on_the_first(
    processes: int, tmp_path: Path
) -> None:
    # So large a step destroys the model: in round 2 all its answers are wrong.
    destroyed = ("grpo.learning_rate=0.05", "grpo.max_steps=8", "grpo.dynamic_sampling=true")
    launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    arguments = [*launcher, *command(tmp_path, *destroyed, "control=random")[1:]]
    options = {"capture_output": True, "text": True, "env": environment(), "timeout": 1500}
    done, again = (subprocess.run(arguments, **options) for _ in range(2))
    assert done.returncode == 0, done.stderr[-6000:]
    assert "round 2 trains nothing, so the run ends: grpo tuned: no group" in done.stderr
    (folder,) = tmp_path.glob("run/*")
    report = json.loads((folder / "report.json").read_text())
    assert report["rounds"]["trained"] == 1
    assert "no group had unequal rewards" in report["rounds"]["stop_reason"]
    assert [bool(row["picks"]) for row in report["rounds"]["by_round"]] == [True, False]
    assert report["trained"]["tuned"]["steps"] == 4
    # The rollouts of the dead round are paid for, too.
    assert report["cost"]["by_stage"]["train tuned, unused"]["generations"] > 0
    assert "Round 2 could not train: grpo tuned: no group" in (folder / "report.md").read_text()
    assert "this run is finished, there is nothing to do" in again.stderr
