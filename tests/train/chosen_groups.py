"""Trains the tiny model on prompts of which some give groups without a gradient (zero variance).

What a prompt's completions are does not depend on the weights, so that trainings can be compared. A
sample whose id begins with "dead" gets equal rewards. As a program, it trains in several processes
and prints what the first process logged, and the weights' digest:

    accelerate launch --config_file CONFIG tests/train/chosen_groups.py FOLDER PATTERN NUM_STEPS
"""

import hashlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from trl.trainer.grpo_config import GRPOConfig

from difftrain.config.train import GrpoConfig, ZeroVariance
from difftrain.model import resolve
from difftrain.records import Sample
from difftrain.shapes import pool
from difftrain.train import image_cache
from difftrain.train.dataset import TrainData, to_dataset
from difftrain.train.dynamic_sampling import DynamicSamplingTrainer, Replay, RolloutGroup
from difftrain.train.grpo import prompt_history_of

SETTINGS: dict[str, Any] = {
    "per_device_train_batch_size": 8,
    "num_generations": 4,
    "max_completion_length": 10,
    "learning_rate": 3e-3,
    "max_grad_norm": 1e9,  # clipping would hide a wrong denominator of the loss
    "beta": 0.1,
    "loss_type": "grpo",
    "optim": "sgd",
    "lr_scheduler_type": "constant",
    "logging_steps": 1,
    "report_to": "none",
    "save_strategy": "no",
    "bf16": False,
    "use_cpu": True,
    "gradient_checkpointing": False,
    "model_init_kwargs": {"dtype": "float32"},
    "disable_tqdm": True,
    "shuffle_dataset": False,
}
GROUP = SETTINGS["num_generations"]


def digest_of(values: Any) -> int:
    return int.from_bytes(hashlib.sha256(repr(values).encode()).digest()[:4])


def accuracy(completion_ids: list[list[int]], sample_id: list[str], **_: Any) -> list[float]:
    """1 or 0, both in each group of four, but 0 for a dead sample."""
    group = [digest_of(ids) for ids in completion_ids]
    by_group = [sorted(group[i : i + GROUP]) for i in range(0, len(group), GROUP)]
    return [
        0.0 if id_.startswith("dead") else float(value >= by_group[row // GROUP][GROUP // 2])
        for row, (id_, value) in enumerate(zip(sample_id, group, strict=True))
    ]


class RealRollouts(DynamicSamplingTrainer):
    """Remembers its batches."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.batches: list[list[RolloutGroup]] = []
        self.outputs: list[dict[str, Any]] = []
        self.replays: list[Replay] = []
        self.num_rollouts, self.num_tokens = 0, 0  # of all rollouts for training
        self.logps_of_sampling = False  # whether the rollouts have log-probabilities, as vLLM's
        super().__init__(*args, **kwargs)

    def _replay(self, groups: Any) -> Any:
        output, replay = super()._replay(groups)
        self.replays.append(replay)
        return output, replay

    def _choose_groups(self, history: Any, num_groups: int) -> list[RolloutGroup]:
        self.batches.append(super()._choose_groups(history, num_groups))
        return self.batches[-1]

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        self.outputs.append(super()._generate_and_score_completions(inputs))
        return self.outputs[-1]


class Trainer(RealRollouts):
    """Rollouts that depend on the prompt and the step only."""

    def _generate_single_turn(self, prompt_ids: Any, *_: Any, **__: Any) -> Any:
        rows = []
        for row, ids in enumerate(prompt_ids):
            seed = self.state.global_step, row % GROUP, digest_of(list(ids))
            generator = np.random.default_rng(seed)
            tokens = generator.integers(20, 300, generator.integers(2, 9)).tolist()
            rows.append([*tokens, self.eos_token_ids[0]])
        if self.model.training:
            self.num_rollouts += len(rows)
            self.num_tokens += sum(map(len, rows))
        logps = [[-(token % 7) / 5 for token in ids] for ids in rows]
        return rows, logps if self.logps_of_sampling else None


def shapes_pool(pattern: str) -> list[Sample]:
    """Samples that are dead where the pattern has a `d`; each has another question."""
    samples = list(pool.samples(pool.Split.pool, len(pattern)))
    names = ["dead" if letter == "d" else "live" for letter in pattern]
    return [
        replace(sample, sample_id=f"{name} {n}", question=f"({n}) {sample.question}")
        for n, (sample, name) in enumerate(zip(samples, names, strict=True))
    ]


def build(
    samples: list[Sample],
    folder: Path,
    grpo: GrpoConfig,
    trainer_class: Any = Trainer,
    **arguments: Any,
) -> Any:
    """A trainer with these settings; `answers`, `failure_ratios` and `evaluate` are ours."""
    data = TrainData(
        samples,
        answers=arguments.pop("answers", {}),
        failure_ratios=arguments.pop("failure_ratios", {}),
    )
    has_eval = arguments.pop("evaluate", False)
    if has_eval:
        arguments |= {"eval_strategy": "steps", "eval_steps": 1, "num_generations_eval": 1}
    peft_config = arguments.pop("peft_config", None)
    config = GRPOConfig(**(SETTINGS | {"output_dir": str(folder / "checkpoints")} | arguments))
    trainer = trainer_class(
        model=str(resolve.source("tiny")),
        reward_funcs=accuracy,
        args=config,
        train_dataset=to_dataset(samples),
        eval_dataset=to_dataset(samples[:8]) if has_eval else None,
        peft_config=peft_config,
    )
    trainer.grpo = grpo
    trainer.shares_prompts = grpo.shares_prompts
    trainer.image_cache = image_cache.attach(trainer, folder / "features")
    if grpo.chooses_prompts:
        trainer.start_history(prompt_history_of(trainer, data), folder)
    return trainer


def weights(trainer: Any) -> dict[str, torch.Tensor]:
    """A copy of the trainer's weights."""
    return {name: w.detach().clone() for name, w in trainer.model.named_parameters()}


def logged(trainer: Any, key: str) -> list[float]:
    """The logged values of the steps."""
    return [row[key] for row in trainer.state.log_history if key in row and "loss" in row]


def main() -> None:
    """Train with refill in these processes; print the groups of each batch and what was logged."""
    folder, pattern, num_steps = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    grpo = GrpoConfig(dynamic_sampling=True, max_rounds=2, zero_variance=ZeroVariance.drop)
    passes = 2 // int(os.environ.get("WORLD_SIZE", "1"))  # a step is two groups
    options = {"per_device_train_batch_size": GROUP, "gradient_accumulation_steps": passes}
    trainer = build(shapes_pool(pattern), folder, grpo, max_steps=num_steps, **options)
    trainer.train()
    keys = ("loss", "grad_norm", "groups_asked", "zero_variance_asked", "groups_trained",
            "groups_carried", "sampling_rounds")  # fmt: skip
    if trainer.accelerator.is_main_process:
        result = {key: [float(value) for value in logged(trainer, key)] for key in keys}
        result["batches"] = [[group.index for group in batch] for batch in trainer.batches]
        result["processes"] = trainer.accelerator.num_processes
        print("LOGGED", json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
