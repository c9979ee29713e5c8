"""A program: GRPO with refill and a sampler on the tiny model, in one process, by `grpo.fit`.

python tests/train/killed_refill.py FOLDER [SETTING=VALUE ...]
"""

import sys
from pathlib import Path

from difftrain.cli.overrides import compose_config
from difftrain.config.run_config import resolve
from difftrain.pipeline.coordination import World
from difftrain.records import TrainStage
from difftrain.shapes import pool
from difftrain.train import grpo
from difftrain.train.dataset import TrainData
from difftrain.train.trl_args import TrainJob

SETTINGS = ("grpo.dynamic_sampling=true", "grpo.sampler=learnable", "grpo.max_rounds=3",
            "grpo.max_steps=5", "grpo.save_steps=1", "grpo.prompts_per_step=2",
            "grpo.num_generations=4", "grpo.per_device_train_batch_size=4",
            "grpo.learning_rate=1e-4", "grpo.max_completion_length=72",
            "grpo.eval_samples=0")  # fmt: skip


def main() -> None:
    """Train to the end, from the last checkpoint if there is one."""
    config = resolve(compose_config([*SETTINGS, *sys.argv[2:]]))
    samples = list(pool.samples(pool.Split.pool, 16))
    answers = {sample.sample_id: (number % 3, 1) for number, sample in enumerate(samples)}
    job = TrainJob(TrainStage.grpo, config, Path(sys.argv[1]), World(), title="test")
    grpo.fit(job, TrainData(samples, answers=answers))


if __name__ == "__main__":
    main()
