"""A step on packed rows gives the losses and gradients of TRL's own step."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from difftrain.config.model import ModelConfig
from difftrain.records import Sample
from difftrain.train import image_cache, param_groups, shared_prompt
from difftrain.train.dataset import to_dataset
from difftrain.train.grpo_trainer import SharedPromptTrainer
from tests.train.forced_rollouts import (
    COMBINATIONS,
    LORA,
    SETTINGS,
    SOURCE,
    any_reward,
    check_equal,
    mixed_samples,
    train,
)

STEPS = 3
ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def samples(shapes_samples: list[Sample]) -> list[Sample]:
    """Prompts of different lengths, two of the same text; one, two and no images."""
    return mixed_samples(shapes_samples)


@pytest.mark.parametrize("name", COMBINATIONS)
def test_losses_and_weights_equal_those_of_trl(
    name: str, samples: list[Sample], tmp_path: Path
) -> None:
    trainer = check_equal(name, samples, tmp_path, STEPS)
    tokens = [row for row in trainer.state.log_history if "tokens/computed" in row]
    assert all(row["tokens/computed"] < 0.9 * row["tokens/plain"] for row in tokens)
    assert trainer.image_cache.num_processed <= len({png for s in samples for png in s.images})


@pytest.mark.slow
@pytest.mark.parametrize("name", COMBINATIONS)
def test_losses_and_weights_of_twenty_steps_equal_those_of_trl(
    name: str, samples: list[Sample], tmp_path: Path
) -> None:
    check_equal(name, samples, tmp_path, 20)


def test_passes_without_images_beside_passes_with_images_add_up_to_trl_s_step(
    samples: list[Sample], tmp_path: Path
) -> None:
    """TRL itself cannot split this batch, so it computes it in one pass here."""
    plain, plain_changes, _ = train(GRPOTrainer, samples, tmp_path, max_steps=3)
    passes = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    shared, changes, _ = train(SharedPromptTrainer, samples, tmp_path, max_steps=3, **passes)
    assert np.allclose(shared[:3], plain[:3], rtol=1e-4, atol=1e-5)
    for key, change in plain_changes.items():
        assert (change - changes[key]).norm() <= 1e-4 * change.norm() + 1e-6, key


def test_in_bf16_the_losses_are_as_near_to_float32_as_trl_s(
    samples: list[Sample], tmp_path: Path
) -> None:
    exact, _, _ = train(GRPOTrainer, samples, tmp_path, max_steps=STEPS)
    plain, _, _ = train(GRPOTrainer, samples, tmp_path, max_steps=STEPS, bf16=True)
    shared, _, trainer = train(SharedPromptTrainer, samples, tmp_path, max_steps=STEPS, bf16=True)
    plain_error, shared_error = (np.abs(np.subtract(x, exact)).max() for x in (plain, shared))
    assert 0 < shared_error < 2 * plain_error
    (row, *_) = [row for row in trainer.state.log_history if "tokens/computed" in row]
    assert row["tokens/computed"] < 0.9 * row["tokens/plain"]


@pytest.mark.slow
@pytest.mark.parametrize("launch", ["zero2_cpu.yaml", "zero3_cpu.yaml", "ddp_cpu.yaml"])
def test_two_processes_log_what_trl_logs(launch: str, tmp_path: Path) -> None:
    config_file = str(ROOT / "launch" / "accelerate" / launch)
    program = str(ROOT / "tests" / "train" / "forced_rollouts.py")
    launcher = [str(BIN / "accelerate"), "launch", "--config_file", config_file]
    command = [*launcher, program, str(tmp_path), "20"]
    environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1",
                                "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-6000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("LOGGED "))
    logged = json.loads(line.removeprefix("LOGGED "))
    plain, shared = np.array(logged["GRPOTrainer"]), np.array(logged["SharedPromptTrainer"])
    assert logged["processes"] == 2
    assert plain.shape == (20, 2)
    assert np.abs(plain[:, 1]).min() > 0
    assert np.allclose(shared, plain, rtol=1e-4, atol=1e-5)


def test_rows_that_cannot_be_packed_have_a_reason() -> None:
    config = SimpleNamespace(_attn_implementation="flash_attention_2", layer_types=None)
    reason = shared_prompt.fallback_reason(config, {})
    assert reason is not None
    assert "flash_attention_2 takes no tree mask" in reason
    windows = SimpleNamespace(_attn_implementation="sdpa", layer_types=["sliding_attention"])
    assert shared_prompt.fallback_reason(windows, {}) == "the model has layers of sliding_attention"
    plain = SimpleNamespace(_attn_implementation="sdpa", layer_types=["full_attention"])
    assert shared_prompt.fallback_reason(plain, {"num_images": [1], "image_sizes": None}) is None
    assert shared_prompt.fallback_reason(plain, {"image_sizes": [1]}) == (
        "the processor gives image_sizes"
    )


def test_never_computes_every_token_of_every_row(
    samples: list[Sample], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    never: Any = type("Never", (SharedPromptTrainer,), {"shares_prompts": False})
    image_rows = [sample for sample in samples if sample.images]
    _, _, trainer = train(never, image_rows, tmp_path, max_steps=1)
    (row,) = [row for row in trainer.state.log_history if "tokens/plain" in row]
    assert row["tokens/computed"] == row["tokens/plain"]
    assert "grpo.shared_prompt" not in caplog.text


def test_every_step_logs_its_seconds_by_phase(samples: list[Sample], tmp_path: Path) -> None:
    class Recording(SharedPromptTrainer):
        def _phase(self, name: str) -> Any:
            in_training.append(self.model.training)
            return super()._phase(name)

    in_training: list[bool] = []
    _, _, trainer = train(Recording, samples, tmp_path, max_steps=2)
    assert all(in_training)  # also in the first step, else its seconds would count as evaluation
    steps = [row for row in trainer.state.log_history if "seconds/policy" in row]
    assert len(steps) == 2
    for row in steps:
        phases = {key for key in row if key.startswith("seconds/")}
        assert phases == {
            f"seconds/{name}"
            for name in (
                "rollouts",
                "image_processing",
                "grading",
                "reference_logps",
                "policy",
                "optimizer",
            )
        }
        assert all(row[phase] >= 0 for phase in phases)


def with_engine(
    samples: list[Sample],
    folder: Path,
    freeze: bool = False,
    peft_config: Any = None,
    **arguments: Any,
) -> tuple[Any, list[list[list[int]]]]:
    """A trainer whose rollouts came from the probe's engine, and their token ids by step."""

    class Recording(SharedPromptTrainer):
        engine_config = ModelConfig()

        def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
            completions, logps = super()._generate_single_turn(*args, **kwargs)
            rollouts.append(completions)
            return completions, logps

    rollouts: list[list[list[int]]] = []
    config = GRPOConfig(**(SETTINGS | {"output_dir": str(folder)} | arguments))
    trainer: Any = Recording(
        model=str(SOURCE),
        reward_funcs=any_reward,
        args=config,
        train_dataset=to_dataset(samples),
        eval_dataset=to_dataset(samples[:4]),
        peft_config=peft_config,
    )
    if freeze:
        param_groups.freeze_vision(trainer.model)
    trainer.image_cache = image_cache.attach(trainer, folder / "features")
    trainer.train()
    return trainer, rollouts


def test_rollouts_of_the_engine_repeat_differ_in_a_group_and_end_as_trl_s_do(
    samples: list[Sample], tmp_path: Path
) -> None:
    trainer, rollouts = with_engine(samples, tmp_path, max_steps=2, max_completion_length=72)
    _, repeated = with_engine(samples, tmp_path, max_steps=2, max_completion_length=72)
    assert rollouts == repeated
    assert len(rollouts) == 2
    for completions in rollouts:
        assert len(completions) == 8
        assert len({tuple(ids) for ids in completions}) > 2
        for ids in completions:
            assert len(ids) == 72 or ids[-1] in trainer.eos_token_ids
            assert not {*ids[:-1]} & {*trainer.eos_token_ids}
    assert rollouts[0] != rollouts[1]


def test_rollouts_of_the_engine_work_in_mixed_precision_and_with_lora(
    samples: list[Sample], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The weights stay float32, and autocast computes in bf16."""
    for arguments in ({"bf16": True}, {"peft_config": LORA, "bf16": True}):
        _, rollouts = with_engine(samples, tmp_path, max_steps=2, **arguments)
        assert len(rollouts) == 2
    assert "grpo.rollouts=engine" not in caplog.text  # it has not fallen back to generate


def test_long_completions_of_a_short_prompt_are_computed_in_rows_of_their_own(
    samples: list[Sample], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """TRL leaves image tensors of no rows in a pass that holds only text."""
    _, _, trainer = train(SharedPromptTrainer, samples, tmp_path, max_steps=1)
    ids_BS = torch.randint(20, 300, (2, 204))
    ids_BS[:, :4] = ids_BS[0, :4]  # one prompt of four tokens
    inputs = trainer.model, ids_BS, torch.ones_like(ids_BS), 200
    no_images = {
        "pixel_values": torch.zeros(0, 1176),
        "image_grid_thw": torch.zeros(0, 3, dtype=torch.long),
        "mm_token_type_ids": torch.zeros_like(ids_BS),
        "num_images": [0, 0],
    }
    with torch.no_grad():
        logps_BC, *_ = trainer._get_per_token_logps_and_entropies(*inputs, **no_images)
        assert "packed rows cost more" in caplog.text
        trainer.shares_prompts = False
        expected_BC, *_ = trainer._get_per_token_logps_and_entropies(*inputs)
    assert torch.equal(logps_BC, expected_BC)


def test_short_groups_share_a_packed_row_and_none_sees_another() -> None:
    prompt, completions = [5, 6, 7], [[1, 2, 3, 4], [8, 0, 0, 0], [9, 9, 0, 0], [3, 0, 0, 0]]
    ids_BS = torch.tensor([[*prompt[:2], 10 + (row > 1), *completions[row]] for row in range(4)])
    mask_BS = (ids_BS != 0).long()
    packed = shared_prompt.pack_rows(ids_BS, mask_BS, 4, [[0, 1], [2], [3]])
    # The first group has 2 + 4 + 1 tokens; the others have 4 and 3, which fit into one row of 7.
    assert packed.input_ids.tolist() == [[5, 6, 10, 1, 2, 3, 10], [5, 6, 11, 9, 5, 6, 11]]
    assert packed.groups.tolist() == [[0] * 7, [1] * 4 + [2] * 3]
    assert packed.first_rows == [0, 2, 3]
    sees_SS = packed.tree_mask()[1].long().tolist()
    assert sees_SS[3] == [1, 1, 1, 1, 0, 0, 0]
    assert sees_SS[6] == [0, 0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("sizes", "rows"),
    [([5], [[0]]), ([3, 9, 6, 5], [[1], [2, 0], [3]]), ([4, 4], [[0], [1]]), ([0, 0], [[0, 1]])],
)
def test_no_packed_row_is_longer_than_the_largest_group(
    sizes: list[int], rows: list[list[int]]
) -> None:
    assert shared_prompt.first_fit(sizes) == rows
    assert all(sum(sizes[group] for group in row) <= max(sizes) for row in rows)


def test_a_frozen_tower_encodes_each_image_once_for_rollouts_and_passes(
    samples: list[Sample], tmp_path: Path
) -> None:
    trained, rollouts = with_engine(samples, tmp_path, max_steps=3)
    frozen, same_rollouts = with_engine(samples, tmp_path, max_steps=3, freeze=True)
    assert rollouts[0] == same_rollouts[0]  # before the first step changes weights
    num_images = len({png for sample in samples for png in sample.images})
    assert frozen.image_cache.num_encoded <= num_images < trained.image_cache.num_encoded


def test_an_evaluation_repeats_its_rollouts_and_adds_nothing_to_a_step_s_costs(
    samples: list[Sample], tmp_path: Path
) -> None:
    trainer, rollouts = with_engine(samples, tmp_path, max_steps=1)
    trainer.model.eval()
    seconds, tokens = dict(trainer._seconds), dict(trainer._tokens)
    for _ in range(2):
        trainer._rollout_batch = None  # as when a resumed run evaluates
        trainer.evaluate()
    assert rollouts[1:3] == rollouts[3:5]  # an evaluation has two batches
    assert rollouts[1] != rollouts[2]
    assert (dict(trainer._seconds), dict(trainer._tokens)) == (seconds, tokens)


def test_the_engine_samples_the_distribution_that_generate_samples(
    samples: list[Sample], tmp_path: Path
) -> None:
    sample = next(sample for sample in samples if sample.images)
    arguments = {
        "per_device_train_batch_size": 256,
        "num_generations": 256,
        "max_completion_length": 1,
        "max_steps": 1,
        "learning_rate": 0.0,
        "temperature": 3.0,
    }
    _, (engine,) = with_engine([sample], tmp_path, **arguments)

    class Recording(GRPOTrainer):
        def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
            completions, logps = super()._generate_single_turn(*args, **kwargs)
            generated.extend(completions)
            return completions, logps

    generated: list[list[int]] = []
    config = GRPOConfig(**(SETTINGS | {"output_dir": str(tmp_path)} | arguments))
    Recording(
        model=str(SOURCE), reward_funcs=any_reward, args=config, train_dataset=to_dataset([sample])
    ).train()
    # At this temperature about half of the first tokens are the most likely one.
    ((likely, _),) = Counter(ids[0] for ids in generated).most_common(1)
    table = [
        Counter(-1 if ids[0] == likely else ids[0] % 4 for ids in completions)
        for completions in (engine, generated)
    ]
    buckets = sorted(table[0] | table[1])
    assert len(buckets) == 5
    assert chi2_contingency([[row[b] for b in buckets] for row in table]).pvalue > 0.001
