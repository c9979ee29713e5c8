"""Trains with TRL's trainer and with ours on the same rollouts, which no weight decides.

As a program, it does so in several processes and prints what the first process logged:

    accelerate launch --config_file CONFIG tests/train/forced_rollouts.py FOLDER NUM_STEPS
"""

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from difftrain.model import resolve
from difftrain.records import Sample
from difftrain.shapes import pool
from difftrain.train import image_cache, param_groups
from difftrain.train.dataset import to_dataset
from difftrain.train.grpo_trainer import SharedPromptTrainer

SOURCE = resolve.source("tiny")


def any_reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """A number that only depends on the completion."""
    digests = [hashlib.sha256(bytes(str(ids), "ascii")).digest() for ids in completion_ids]
    return [digest[0] / 255 for digest in digests]


def forced(trainer_class: type[GRPOTrainer]) -> type[GRPOTrainer]:
    """The trainer with rollouts that do not depend on its weights."""

    class Forced(trainer_class):
        def _generate_single_turn(self, prompt_ids: Any, *_: Any, **__: Any) -> Any:
            seed = self.state.global_step, self.accelerator.process_index
            generator = np.random.default_rng(seed)
            eos = self.eos_token_ids[0]
            lengths = generator.integers(2, 9, len(prompt_ids))
            return [[*generator.integers(20, 300, n).tolist(), eos] for n in lengths], None

        def _tokenize_prompts(self, prompts: Any) -> Any:
            ids, images, fields = super()._tokenize_prompts(prompts)
            return ids, images and [row or [] for row in images], fields

    return Forced


def train(
    trainer_class: type[GRPOTrainer], samples: list[Sample], folder: Path, **arguments: Any
) -> tuple[list[float], dict[str, torch.Tensor], Any]:
    """Loss and KL of the steps, the weights' changes, and the trainer."""
    freeze, peft_config = arguments.pop("freeze", False), arguments.pop("peft_config", None)
    config = GRPOConfig(**(SETTINGS | {"output_dir": str(folder)} | arguments))
    trainer: Any = forced(trainer_class)(
        model=str(SOURCE),
        reward_funcs=any_reward,
        args=config,
        train_dataset=to_dataset(samples),
        peft_config=peft_config,
    )
    if freeze:
        param_groups.freeze_vision(trainer.model)
    if isinstance(trainer, SharedPromptTrainer):
        trainer.image_cache = image_cache.attach(trainer, folder / "features")
    before = {name: w.detach().clone() for name, w in trainer.model.named_parameters()}
    trainer.train()
    history = trainer.state.log_history
    numbers = [row[key] for key in ("loss", "kl") for row in history if key in row]
    changes = {
        name: w.detach() - before[name]
        for name, w in trainer.model.named_parameters()
        if w.shape == before[name].shape  # ZeRO-3 leaves a process empty parameters
    }
    return numbers, changes, trainer


FLOAT32 = {"dtype": "float32"}
SETTINGS = {
    "per_device_train_batch_size": 8,
    "num_generations": 4,
    "max_completion_length": 10,
    "learning_rate": 1e-2,
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
    "model_init_kwargs": FLOAT32,
    "disable_tqdm": True,
    "shuffle_dataset": False,
}
LORA = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], lora_dropout=0.0)


COMBINATIONS: dict[str, dict[str, Any]] = {
    "full fine-tuning": {},
    "LoRA": {"peft_config": LORA},
    "frozen vision": {"freeze": True},
    "gradient checkpointing": {"gradient_checkpointing": True},
    "LoRA and gradient checkpointing": {"peft_config": LORA, "gradient_checkpointing": True},
    "eager attention": {"model_init_kwargs": FLOAT32 | {"attn_implementation": "eager"}},
    "passes that cut a group": {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 4,
    },
    "two iterations on shuffled rows": {
        "per_device_train_batch_size": 4,
        "num_iterations": 2,
        "steps_per_generation": 2,
    },
}
"""Arguments of `train` by what they try."""


def mixed_samples(samples: list[Sample]) -> list[Sample]:
    """Prompts of different lengths, two of the same text; one, two and no images."""
    first, second, third, *_ = samples
    return [
        replace(first, images=(*first.images, *second.images)),
        second,
        replace(second, sample_id="other", images=third.images),
        replace(third, question="Say a number. " + third.question),
        replace(first, sample_id="text", images=()),
        third,
    ]


def check_equal(name: str, samples: list[Sample], folder: Path, num_steps: int) -> Any:
    """Assert that both trainers log the same and change the weights equally; returns ours."""
    arguments = COMBINATIONS[name] | {"max_steps": num_steps}
    cuts_groups = name == "passes that cut a group"
    if "per_device_train_batch_size" in arguments:  # TRL's own passes each need an image
        samples = [sample for sample in samples if sample.images]
    plain, plain_changes, _ = train(GRPOTrainer, samples, folder, **arguments)
    shared, shared_changes, trainer = train(SharedPromptTrainer, samples, folder, **arguments)
    assert len(plain) == 2 * num_steps
    num_compared = num_steps if cuts_groups else 2 * num_steps  # TRL averages the KL over passes
    difference = np.abs(np.subtract(shared, plain))[:num_compared]
    assert (difference <= 1e-4 * np.abs(plain)[:num_compared] + 1e-5).all(), difference
    for key, change in plain_changes.items():
        assert (change - shared_changes[key]).norm() <= 1e-4 * change.norm() + 1e-6, key
    return trainer


def main() -> None:
    """Train with both trainers, print the losses and gradient norms as JSON."""
    folder, num_steps = Path(sys.argv[1]), int(sys.argv[2])
    samples = [s for s in mixed_samples(list(pool.samples(pool.Split.pool, 4))) if s.images]
    logged: dict[str, Any] = {}
    for trainer_class in (GRPOTrainer, SharedPromptTrainer):
        # A process's share of a step is one group, in two passes.
        passes = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
        _, _, trainer = train(trainer_class, samples, folder, max_steps=num_steps, **passes)
        rows = [row for row in trainer.state.log_history if "loss" in row]
        keys = ("loss", "grad_norm")  # TRL averages the KL over passes
        logged[trainer_class.__name__] = [[float(row[key]) for key in keys] for row in rows]
    if trainer.accelerator.is_main_process:
        logged["processes"] = trainer.accelerator.num_processes
        print("LOGGED", json.dumps(logged), flush=True)


if __name__ == "__main__":
    main()
