"""SFT and GRPO, interrupted and resumed, end with the weights of an uninterrupted training.

Here an exception interrupts training, or a kill at any moment of GRPO's refill (dynamic sampling);
tests/recipes/test_sft.py kills the whole command instead.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from difftrain.cli.overrides import compose_config
from difftrain.config.run_config import RunConfig, resolve
from difftrain.grade.pool import GraderPool
from difftrain.pipeline.coordination import World
from difftrain.records import TrainStage
from difftrain.shapes import pool
from difftrain.train import checkpointing, grpo, sft
from difftrain.train.callbacks import PROMPT_LOG, read_log
from difftrain.train.dataset import TrainData
from difftrain.train.trl_args import TrainJob

pytestmark = pytest.mark.slow
# select.sft_strata is required with SFT; here the samples are given, so nothing is selected.
SMALL = ("train_stages=sft_then_grpo", "select.sft_strata=[medium]",
         "sft.max_steps=4", "sft.save_steps=2", "sft.samples_per_step=4",
         "sft.per_device_train_batch_size=2",
         "grpo.max_steps=4", "grpo.save_steps=2", "grpo.prompts_per_step=2",
         "grpo.num_generations=4", "grpo.per_device_train_batch_size=4",
         "grpo.max_completion_length=72", "grpo.eval_samples=0")  # fmt: skip
SAMPLES = list(pool.samples(pool.Split.pool, 16))
TARGETS = {sample.sample_id: str(sft.from_rationale(sample)) for sample in SAMPLES}
SFT_DATA = sft.SftData(SAMPLES, TARGETS, dropped={})
GRPO_DATA = TrainData(SAMPLES)


class Interrupted(Exception):
    """Raised in the middle of a training."""


class InterruptThirdStep(TrainerCallback):
    """Interrupts training in its third step, after the checkpoint of the second."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 3:
            raise Interrupted


def fit_sft(config: RunConfig, folder: Path, interrupted: bool) -> None:
    job = TrainJob(TrainStage.sft, config, folder, World(), title="")
    if interrupted:
        train_and_interrupt(sft.build_trainer(job, SFT_DATA), job)
    else:
        sft.fit(job, lambda: SFT_DATA)


def fit_grpo(config: RunConfig, folder: Path, interrupted: bool) -> None:
    job = TrainJob(TrainStage.grpo, config, folder, World(), title="")
    if interrupted:
        with GraderPool(1, 20.0) as graders:  # one worker, 20 seconds per answer
            train_and_interrupt(grpo.build_trainer(job, GRPO_DATA, graders), job)
    else:
        grpo.fit(job, GRPO_DATA)


def train_and_interrupt(trainer: Any, job: TrainJob) -> None:
    job.folder.mkdir(parents=True, exist_ok=True)
    trainer.add_callback(InterruptThirdStep())
    with pytest.raises(Interrupted):
        checkpointing.train(trainer, job, SAMPLES)
    last = checkpointing.last_checkpoint(job.folder)
    assert last == job.folder / "checkpoints" / "checkpoint-2"


@pytest.mark.parametrize("lora_rank", [0, 4])  # 0: without LoRA
@pytest.mark.parametrize("fit", [fit_sft, fit_grpo])
def test_an_interrupted_stage_ends_with_the_weights_of_an_uninterrupted_one(
    fit: Callable[..., None], lora_rank: int, tmp_path: Path
) -> None:
    lora = (f"sft.lora.rank={lora_rank}", f"grpo.lora.rank={lora_rank}")
    config = resolve(compose_config([*SMALL, *lora]))
    expected_folder, resumed_folder = tmp_path / "uninterrupted", tmp_path / "resumed"
    fit(config, expected_folder, interrupted=False)
    fit(config, resumed_folder, interrupted=True)
    fit(config, resumed_folder, interrupted=False)
    expected, resumed = (
        load_file(folder / "checkpoint" / "model.safetensors")
        for folder in (expected_folder, resumed_folder)
    )
    assert all(torch.equal(expected[key], resumed[key]) for key in expected)


def start_refill(folder: Path, *settings: str) -> subprocess.Popen[str]:
    """A process that trains with refill, or continues to."""
    root = Path(__file__).resolve().parents[2]
    program = [sys.executable, str(root / "tests" / "train" / "killed_refill.py"), str(folder)]
    environment = os.environ | {"PYTHONPATH": str(root), "CUDA_VISIBLE_DEVICES": ""}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*program, *settings], env=environment, **pipes)


@pytest.mark.parametrize("settings", [(), ("grpo.rollouts=generate", "grpo.sampler=skip_dead")])
def test_a_training_killed_at_moments_of_its_refill_ends_with_the_same_weights(
    settings: tuple[str, ...], tmp_path: Path
) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    child = start_refill(undisturbed, *settings)
    _, error = child.communicate()
    assert child.returncode == 0, error[-4000:]
    moments: list[Callable[[], bool]] = [  # before the first checkpoint, in one, after one, later
        lambda: len(read_log(killed, PROMPT_LOG)) > len(SAMPLES),
        lambda: bool(list(killed.glob("checkpoints/checkpoint-1/prompt_state.json"))),
        lambda: bool(list(killed.glob("checkpoints/checkpoint-2/trainer_state.json"))),
        lambda: len(read_log(killed)) >= 4,
    ]
    for wait, moment in zip((0.0, 0.0, 0.3, 0.05), moments, strict=True):
        child = start_refill(killed, *settings)
        while child.poll() is None and not moment():
            time.sleep(0.005)
        time.sleep(wait)
        assert child.poll() is None, child.communicate()[1][-4000:]
        child.send_signal(signal.SIGKILL)
        child.communicate()
    child = start_refill(killed, *settings)
    _, error = child.communicate()
    assert child.returncode == 0, error[-4000:]
    expected, resumed = (
        load_file(folder / "checkpoint" / "model.safetensors") for folder in (undisturbed, killed)
    )
    assert all(torch.equal(expected[key], resumed[key]) for key in expected)
    assert read_log(undisturbed, PROMPT_LOG) == read_log(killed, PROMPT_LOG)
    rows = read_log(undisturbed)
    assert max(row["sampling_rounds"] for row in rows) > 1  # otherwise nothing was refilled
    assert max(row["groups_carried"] for row in rows) > 0  # over a checkpoint, as each step has one
    assert [row["groups_asked"] for row in rows] == [
        row["groups_asked"] for row in read_log(killed)
    ]


@pytest.mark.parametrize("launcher", ["python", "ddp_cpu.yaml", "zero2_cpu.yaml"])
@pytest.mark.parametrize(
    ("stage", "killed_after", "resumed_from", "settings"),
    [
        ("sft", "3", 3, ()),
        ("grpo", "6", 6, ()),
        ("grpo", "6", 6, ("grpo.dynamic_sampling=true", "grpo.sampler=learnable")),
        ("grpo", "6", 6, ("grpo.lora.rank=4",)),
        # At the end of an epoch, and after the last step, whose checkpoint is not saved.
        ("grpo", "4", 4, ("grpo.save_steps=4",)),
        ("grpo", "end", 6, ()),
        # Rollouts serve three steps: the checkpoint that is due after step 14 is saved after 15.
        ("grpo", "15", 15,
         ("+grpo.trl.num_iterations=3", "grpo.save_steps=14", "grpo.max_steps=20")),
        # Rollouts serve two steps of one process or four of two.
        ("grpo", "8", None,
         ("+grpo.trl.steps_per_generation=4", "grpo.save_steps=5", "grpo.max_steps=12")),
    ],
)  # fmt: skip
def test_a_training_resumed_after_its_first_epoch_ends_with_the_same_weights(
    launcher: str,
    stage: str,
    killed_after: str,
    resumed_from: int | None,
    settings: tuple[str, ...],
    tmp_path: Path,
) -> None:
    undisturbed, resumed = tmp_path / "undisturbed", tmp_path / "resumed"
    run_second_epoch(launcher, undisturbed, stage, "never", *settings)
    run_second_epoch(launcher, resumed, stage, killed_after, *settings)
    assert not (resumed / "checkpoint").exists()
    checkpoint = checkpointing.last_checkpoint(resumed, 1 if launcher == "python" else 2)
    step = resumed_from or (6 if launcher == "python" else 8)
    assert checkpoint is not None
    assert checkpoint.name == f"checkpoint-{step}"
    run_second_epoch(launcher, resumed, stage, "never", *settings)
    logs = [read_log(folder) for folder in (undisturbed, resumed)]
    assert len(logs[0]) == len(logs[1])
    assert any(row["grad_norm"] > 0 for row in logs[1] if row["step"] > step)
    expected, weights = (
        load_file(folder / "checkpoint" / "model.safetensors") for folder in (undisturbed, resumed)
    )
    assert all(torch.equal(expected[key], weights[key]) for key in expected)


def run_second_epoch(launcher: str, folder: Path, *arguments: str) -> None:
    """Train by the program second_epoch.py, on two processes unless the launcher is python."""
    bin_folder, root = Path(sys.executable).parent, Path(__file__).resolve().parents[2]
    command = [sys.executable]
    if launcher != "python":
        config_file = str(root / "launch" / "accelerate" / launcher)
        command = [str(bin_folder / "accelerate"), "launch", "--config_file", config_file]
    environment = os.environ | {"PYTHONPATH": str(root), "CUDA_VISIBLE_DEVICES": "",
             "OMP_NUM_THREADS": "1", "PATH": f"{bin_folder}:{os.environ['PATH']}"}  # fmt: skip
    program = [*command, str(root / "tests" / "train" / "second_epoch.py"), str(folder), *arguments]
    done = subprocess.run(program, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
