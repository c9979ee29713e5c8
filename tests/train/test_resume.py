"""A stage that is stopped and started again ends with the weights of one that was not. Slow lane.

tests/recipes/test_sft.py does it with SIGKILL; here every way of training is stopped in-process.
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
from difftrain.grade.workers import Workers
from difftrain.pipeline.coordination import World
from difftrain.shapes import pool
from difftrain.train import grpo, lessons, sft, stage
from difftrain.train.dataset import Material

pytestmark = pytest.mark.slow
SMALL = ("train_stages=sft_then_grpo", "select.sft_strata=[medium]", "sft.max_steps=4",
"sft.save_steps=2",
         "sft.samples_per_step=4", "sft.per_device_train_batch_size=2", "grpo.max_steps=4",
         "grpo.save_steps=2", "grpo.prompts_per_step=2", "grpo.num_generations=4",
         "grpo.eval_samples=0",
         "grpo.per_device_train_batch_size=4", "grpo.max_completion_length=72")  # fmt: skip
SAMPLES = list(pool.samples(pool.Split.pool, 16))
TARGETS = {each.sample_id: str(lessons.from_solution(each)) for each in SAMPLES}
LEARNED = sft.Lessons(SAMPLES, TARGETS, {})


class Stopped(Exception):
    """What stands in for a kill."""


class Stop(TrainerCallback):
    """Ends training in its third step, after the checkpoint of the second."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 3:
            raise Stopped


def by_sft(config: RunConfig, folder: Path, stop: bool) -> None:
    if not stop:
        sft.fit(config, LEARNED, folder, World(), "sft", {})
        return
    trainer = sft.trainer_of(config, LEARNED, folder, World())
    halted(trainer, config, folder, "loss")


def by_grpo(config: RunConfig, folder: Path, stop: bool) -> None:
    if not stop:
        grpo.fit(config, Material(SAMPLES), folder, World(), "grpo", {})
        return
    with Workers(1, 20.0) as workers:
        trainer = grpo.trainer_of(config, Material(SAMPLES), folder, World(), workers)
        halted(trainer, config, folder, "reward")


def halted(trainer: Any, config: RunConfig, folder: Path, shown: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    trainer.add_callback(Stop())
    lora = config.sft.lora
    job = stage.Job(folder=folder, world=World(), title="", model=config.model, settings={},
                    inputs={}, lora=lora, freeze_vision=False, shown=shown)  # fmt: skip
    with pytest.raises(Stopped):
        stage.train(trainer, job)
    assert stage.last_checkpoint(folder) == folder / "checkpoints" / "checkpoint-2"


@pytest.mark.parametrize("rank", [0, 4])
@pytest.mark.parametrize("fit", [by_sft, by_grpo])
def test_a_stopped_stage_ends_with_the_same_weights(
    fit: Callable[[RunConfig, Path, bool], None], rank: int, tmp_path: Path
) -> None:
    config = resolve(compose_config([*SMALL, f"sft.lora.rank={rank}", f"grpo.lora.rank={rank}"]))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    fit(config, whole, False)
    fit(config, broken, True)
    fit(config, broken, False)
    one, two = (load_file(each / "checkpoint" / "model.safetensors") for each in (whole, broken))
    assert all(torch.equal(one[key], two[key]) for key in one)
