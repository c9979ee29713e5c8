"""Runs that are killed, split over processes or out of disk space end like undisturbed runs.

The probe samples responses (rollouts) of the base model and writes them as parquet parts. Preflight
is the check of model and settings before training.
"""

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
MAX_STEPS = 6
# Six Adam steps with learning rate 1e-4. With Adam's default betas a step changes a weight by at
# most 3.2 times the rate; the factor 5 leaves a margin.
MAX_WEIGHT_CHANGE = MAX_STEPS * 1e-4 * 5


def command(launcher: str, *arguments: str) -> list[str]:
    """The command line of a file in launch/, with small settings."""
    return [sys.executable, str(ROOT / "launch" / f"{launcher}.py"), *SMALL, *arguments]


def run(launcher: str, *arguments: str) -> Path:
    """Run the command to its end; returns its output folder."""
    done = subprocess.run(command(launcher, *arguments), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return Path(done.stdout.strip().splitlines()[-1].removeprefix("output: "))


def rollouts(folder: Path) -> list[Rollout]:
    """All rollouts in a folder, sorted, so that those of two probes can be compared."""
    rows = parquet.read_rows(folder, Rollout)
    return sorted(rows, key=lambda row: (row.sample_id, row.mask_percent, row.draw))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The probe folder of a run that nothing disturbed."""
    return run("probe", f"output_dir={tmp_path_factory.mktemp('undisturbed')}")


def test_a_killed_probe_resumes_without_repeating_a_rollout(
    undisturbed: Path, tmp_path: Path
) -> None:
    kills = 0
    for _ in range(6):  # starts, each killed once it has written two parts
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
        if child.returncode == 0:  # the probe finished before it could be killed
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
    # Names are part-r<rank>-<number>-<random>.parquet.
    assert {path.name.split("-")[1] for path in parquet.parts(folder)} == {"r000", "r001"}
    assert rollouts(folder) == rollouts(undisturbed)
    undisturbed_output = undisturbed.parents[1]  # the probe's folder is OUTPUT_DIR/probe/NAME
    (expected_folder,) = (undisturbed_output / "attention").iterdir()
    (attention_folder,) = (tmp_path / "attention").iterdir()
    # A row has the attention of one response. The axes of its image_LT: L layers, T tokens.
    expected, actual = (
        {row.sample_id: row for row in parquet.read_rows(path, Attention)}
        for path in (expected_folder, attention_folder)
    )
    assert actual.keys() == expected.keys()
    for sample_id, row in actual.items():
        for actual_T, expected_T in zip(row.image_LT, expected[sample_id].image_LT, strict=True):
            # Batches of other sizes round differently.
            assert actual_T == pytest.approx(expected_T, abs=2e-3)


def train_command(folder: Path, *arguments: str) -> list[str]:
    """The command line of a training of MAX_STEPS steps."""
    steps = (f"grpo.max_steps={MAX_STEPS}", "grpo.save_steps=2", "grpo.prompts_per_step=2")
    sizes = ("grpo.per_device_train_batch_size=16", "evaluate.limit=4", "evaluate.resamples=200")
    strata = "select.strata=[hard,medium,unsolved]"
    return command("train", *steps, *sizes, strata, f"output_dir={folder}", *arguments)


def test_if_preflight_fails_on_the_first_rank_the_second_rank_reports_the_reason(
    tmp_path: Path,
) -> None:
    broken = tmp_path / "broken"  # a model whose chat template drops the image
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
    _, first_output = first.communicate(timeout=200)
    _, second_output = second.communicate(timeout=30)  # seconds after the first has ended
    assert (first.returncode, second.returncode) == (1, 1)
    assert "chat template has the image" in first_output
    assert "rank 1: rank 0 stopped: PreflightFailed: " in second_output
    assert "chat template has the image" in second_output
    assert "Traceback" not in first_output + second_output


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_training_continues_to_the_same_weights(processes: int, tmp_path: Path) -> None:
    def train(name: str) -> list[str]:
        if processes == 1:
            return train_command(tmp_path / name)
        launcher = [str(Path(sys.executable).parent / "accelerate"), "launch", "--config_file"]
        launcher += [str(ROOT / "launch" / "accelerate" / "ddp_cpu.yaml")]
        batch = "grpo.per_device_train_batch_size=8"
        return [*launcher, *train_command(tmp_path / name, batch)[1:]]

    done = subprocess.run(train("undisturbed"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    child = subprocess.Popen(
        train("killed"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    saved = "train/*/checkpoints/checkpoint-2/trainer_state.json"
    while child.poll() is None and not list((tmp_path / "killed").glob(saved)):
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    assert list((tmp_path / "killed").glob(saved))
    done = subprocess.run(train("killed"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    expected, resumed = (
        load_file(next((tmp_path / name).glob("train/*/checkpoint/model.safetensors")))
        for name in ("undisturbed", "killed")
    )
    assert all((expected[key] == resumed[key]).all() for key in expected)
    (log,) = (tmp_path / "killed").glob("train/*/train_log.jsonl")
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == list(range(1, MAX_STEPS + 1))


def assert_trained_by_a_few_steps(weights: dict, base: dict) -> None:
    """Assert that no weight is missing, that some changed, and that none changed too much."""
    assert weights.keys() == base.keys()
    changes = {key: (weights[key].float() - base[key].float()).abs().max() for key in base}
    assert all(weights[key].shape == base[key].shape for key in base)
    assert 0 < max(changes.values()) < MAX_WEIGHT_CHANGE


def test_two_processes_with_zero_3_write_a_report_like_that_of_one_process(tmp_path: Path) -> None:
    control = "control=random"  # also trains a second model, the control, on random samples
    done = subprocess.run(train_command(tmp_path / "one", control), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    accelerate_command = [
        str(BIN / "accelerate"),
        "launch",
        "--config_file",
        str(ROOT / "launch" / "accelerate" / "zero3_cpu.yaml"),
        *train_command(tmp_path / "two", control)[1:],
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(accelerate_command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-6000:]
    assert done.stdout.strip().splitlines()[-1].startswith("output: ")
    base = load_file(ROOT / "difftrain" / "shapes" / "tiny" / "model.safetensors")
    for name in ("one", "two"):
        weight_files = list((tmp_path / name).glob("train/*/checkpoint/model.safetensors"))
        assert len(weight_files) == 2  # the tuned model and its control
        for path in weight_files:
            assert_trained_by_a_few_steps(load_file(path), base)
    reports = [
        json.loads(next((tmp_path / name).glob("run/*/report.json")).read_text())
        for name in ("one", "two")
    ]
    assert reports[0]["counts"] == reports[1]["counts"]
    assert reports[0]["base"] == reports[1]["base"]
    assert reports[0]["tuned"].keys() == reports[1]["tuned"].keys()


def kilobytes(folder: Path) -> int:
    """Kilobytes that a folder's files take on a disk with blocks of 4 kB."""
    # -(-n // 4096) is n / 4096, rounded up.
    return sum(-(-path.stat().st_size // 4096) * 4 for path in folder.rglob("*") if path.is_file())


def test_a_full_disk_is_reported_and_the_same_command_goes_on_once_there_is_space(
    undisturbed: Path, tmp_path: Path
) -> None:
    small = tmp_path / "small"  # a file system with space for the data and half of the probe
    small.mkdir()
    half_probe = kilobytes(undisturbed) // 2
    undisturbed_output = undisturbed.parents[1]  # the probe's folder is OUTPUT_DIR/probe/NAME
    size = f"size={kilobytes(undisturbed_output / 'data') + half_probe}k"
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
