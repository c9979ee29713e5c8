"""A program that test_resume.py runs: SFT or GRPO beyond the first epoch of a few samples.

    python tests/train/second_epoch.py FOLDER sft|grpo STEP|end|never [SETTING=VALUE ...]

It ends after STEP, or after the last one before the model is saved, as if killed. accelerate may
launch it.
"""

import sys
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from difftrain.cli.overrides import compose_config
from difftrain.config.run_config import resolve
from difftrain.pipeline.coordination import World
from difftrain.records import TrainStage
from difftrain.shapes import pool
from difftrain.train import grpo, sft
from difftrain.train.dataset import TrainData
from difftrain.train.trl_args import TrainJob

NUM_SAMPLES = 8  # an epoch has 2 steps of SFT and 4 of GRPO
SETTINGS = ("train_stages=sft_then_grpo", "select.sft_strata=[medium]",
            "sft.max_steps=5", "sft.save_steps=3", "sft.samples_per_step=4",
            "sft.per_device_train_batch_size=2",
            "grpo.max_steps=7", "grpo.save_steps=6", "grpo.prompts_per_step=2",
            "grpo.num_generations=4", "grpo.per_device_train_batch_size=4",
            "grpo.learning_rate=1e-4", "grpo.max_completion_length=72",
            "grpo.eval_samples=0", "grpo.temperature=1.5")  # fmt: skip


class EndAfterStep(TrainerCallback):
    """Ends the process after this step, or after the last one (`end`)."""

    def __init__(self, step: str) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        """The checkpoint of the last step is complete only now."""
        if str(state.global_step) == self.step:
            sys.exit()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """The model is not saved yet."""
        if self.step == "end":
            sys.exit()


def main() -> None:
    """Train to the end, from the last checkpoint if there is one."""
    stage, config = TrainStage(sys.argv[2]), resolve(compose_config([*SETTINGS, *sys.argv[4:]]))
    samples = list(pool.samples(pool.Split.pool, NUM_SAMPLES))
    ends = [EndAfterStep(sys.argv[3])]
    job = TrainJob(
        stage, config, Path(sys.argv[1]), World.from_environment(), title="test", callbacks=ends
    )
    if stage is TrainStage.sft:
        targets = {sample.sample_id: str(sft.from_rationale(sample)) for sample in samples}
        sft.fit(job, lambda: sft.SftData(samples, targets, dropped={}))
    else:
        grpo.fit(job, TrainData(samples))


if __name__ == "__main__":
    main()
