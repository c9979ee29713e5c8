"""An interrupted and resumed stage ends with the weights of an uninterrupted one. Slow lane.

tests/recipes/test_sft.py interrupts by SIGKILL; here an exception interrupts each way of training.
"""

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
from difftrain.train.dataset import TrainData
from difftrain.train.trl_args import TrainJob

pytestmark = pytest.mark.slow
SMALL = ("train_stages=sft_then_grpo", "select.sft_strata=[medium]", "sft.max_steps=4",
"sft.save_steps=2",
         "sft.samples_per_step=4", "sft.per_device_train_batch_size=2", "grpo.max_steps=4",
         "grpo.save_steps=2", "grpo.prompts_per_step=2", "grpo.num_generations=4",
         "grpo.eval_samples=0",
         "grpo.per_device_train_batch_size=4", "grpo.max_completion_length=72")  # fmt: skip
SAMPLES = list(pool.samples(pool.Split.pool, 16))
TARGETS = {sample.sample_id: str(sft.from_rationale(sample)) for sample in SAMPLES}
SFT_DATA = sft.SftData(SAMPLES, TARGETS, {})
GRPO_DATA = TrainData(SAMPLES)


class Stopped(Exception):
    """Raised instead of a kill."""


class Stop(TrainerCallback):
    """Ends training in its third step, after the checkpoint of the second."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 3:
            raise Stopped


def fit_sft(config: RunConfig, folder: Path, stop: bool) -> None:
    job = TrainJob(TrainStage.sft, config, folder, World(), "")
    if not stop:
        sft.fit(job, lambda: SFT_DATA)
        return
    interrupt(sft.build_trainer(job, SFT_DATA), job)


def fit_grpo(config: RunConfig, folder: Path, stop: bool) -> None:
    job = TrainJob(TrainStage.grpo, config, folder, World(), "")
    if not stop:
        grpo.fit(job, GRPO_DATA)
        return
    with GraderPool(1, 20.0) as graders:
        interrupt(grpo.build_trainer(job, GRPO_DATA, graders), job)


def interrupt(trainer: Any, job: TrainJob) -> None:
    job.folder.mkdir(parents=True, exist_ok=True)
    trainer.add_callback(Stop())
    with pytest.raises(Stopped):
        checkpointing.train(trainer, job, SAMPLES)
    last = checkpointing.last_checkpoint(job.folder)
    assert last == job.folder / "checkpoints" / "checkpoint-2"


@pytest.mark.parametrize("rank", [0, 4])
@pytest.mark.parametrize("fit", [fit_sft, fit_grpo])
def test_a_stopped_stage_ends_with_the_same_weights(
    fit: Callable[[RunConfig, Path, bool], None], rank: int, tmp_path: Path
) -> None:
    config = resolve(compose_config([*SMALL, f"sft.lora.rank={rank}", f"grpo.lora.rank={rank}"]))
    uninterrupted, resumed = tmp_path / "uninterrupted", tmp_path / "resumed"
    fit(config, uninterrupted, False)
    fit(config, resumed, True)
    fit(config, resumed, False)
    paths = (folder / "checkpoint" / "model.safetensors" for folder in (uninterrupted, resumed))
    a, b = map(load_file, paths)
    assert all(torch.equal(a[key], b[key]) for key in a)
