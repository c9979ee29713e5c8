"""Zero-variance groups are replaced, carried or dropped; everything else stays TRL's.

The pools are patterns: l is a sample whose groups are live (unequal rewards), d a dead one.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig

from difftrain.config.model import ModelConfig
from difftrain.config.train import (
    GrpoConfig,
    PromptSampler,
    Rollouts,
    SharedPrompt,
    ZeroVariance,
)
from difftrain.train import checkpointing
from difftrain.train.callbacks import PROMPT_LOG, JsonlLogger, read_log, truncate_log
from difftrain.train.dynamic_sampling import DeadPoolError
from difftrain.train.grpo import batch_problem, rollout_counts, size_problem
from tests.train.chosen_groups import GROUP, RealRollouts, build, logged, shapes_pool, weights

ROOT, BIN = Path(__file__).resolve().parents[2], Path(sys.executable).parent
REFILL = {"dynamic_sampling": True, "max_rounds": 4}
LORA = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], lora_dropout=0.0)


def train(pattern: str, folder: Path, *, grpo: dict[str, Any], **arguments: Any) -> Any:
    trainer = build(shapes_pool(pattern), folder, GrpoConfig(**grpo), **arguments)
    trainer.train()
    return trainer


def test_without_the_settings_the_training_is_trls_and_every_line_has_the_shares(
    tmp_path: Path,
) -> None:
    trainer = train("ldldllld", tmp_path, grpo={}, max_steps=4)
    assert logged(trainer, "groups_asked") == [2, 2, 2, 2]
    assert logged(trainer, "zero_variance_asked") == [0.5, 0.5, 0.0, 0.5]
    assert logged(trainer, "zero_variance_trained") == [0.5, 0.5, 0.0, 0.5]
    assert logged(trainer, "frac_reward_zero_std") == [0.5, 0.5, 0.0, 0.5]
    assert not logged(trainer, "groups_trained")
    assert not (tmp_path / PROMPT_LOG).exists()


def test_every_line_of_the_log_has_the_three_numbers(tmp_path: Path) -> None:
    for name, grpo in (("off", {}), ("on", REFILL)):
        folder = tmp_path / name
        trainer = build(shapes_pool("ldllll"), folder, GrpoConfig(**grpo), max_steps=3)
        folder.mkdir(exist_ok=True)
        trainer.add_callback(JsonlLogger(folder, 0.0, "test"))
        trainer.train()
        rows = read_log(folder)
        assert len(rows) == 3
        keys = {"groups_asked", "zero_variance_asked", "zero_variance_trained"}
        assert all(keys <= row.keys() for row in rows)
        assert rows[0]["zero_variance_asked"] > 0
        assert (rows[0]["zero_variance_trained"] > 0) == (name == "off")


def test_refill_changes_nothing_if_no_group_is_dead(tmp_path: Path) -> None:
    plain = train("llllll", tmp_path / "plain", grpo={}, max_steps=3)
    refilled = train("llllll", tmp_path / "refilled", grpo=REFILL, max_steps=3)
    expected, result = weights(plain), weights(refilled)
    assert all(torch.equal(expected[name], result[name]) for name in expected)
    assert logged(refilled, "sampling_rounds") == [1, 1, 1]


def test_dead_groups_are_replaced_by_the_next_prompts_of_the_same_order(tmp_path: Path) -> None:
    trainer = train("dldddlll", tmp_path, grpo=REFILL | {"max_carry_steps": 0}, max_steps=2)
    # d l, then one prompt at a time at first, then two (a third of the groups were live)
    assert [group.index for group in trainer.batches[0]] == [1, 5]
    assert not any(group.is_dead for batch in trainer.batches for group in batch)
    assert logged(trainer, "zero_variance_trained") == [0.0, 0.0]
    assert logged(trainer, "zero_variance_asked")[0] > 0.5
    sampled = [row["sample_id"] for row in read_log(tmp_path, PROMPT_LOG) if row["step"]]
    numbers = [int(name.split()[1]) for name in sampled]
    assert numbers == [n % 8 for n in range(len(numbers))]  # one pass after the other
    assert sum(logged(trainer, "groups_asked")) == len(sampled)


def test_a_batch_is_filled_with_dead_groups_when_the_rounds_are_used_up(tmp_path: Path) -> None:
    grpo = {"dynamic_sampling": True, "max_rounds": 1}
    trainer = train("dl" + "d" * 10, tmp_path, grpo=grpo, max_steps=2)
    assert [group.is_dead for group in trainer.batches[0]] == [False, True]
    assert logged(trainer, "sampling_rounds") == [2, 2]
    assert logged(trainer, "zero_variance_trained") == [0.5, 0.0]  # a wholly dead batch is left out
    assert logged(trainer, "groups_trained") == [2, 0]
    assert logged(trainer, "loss")[1] == 0


@pytest.mark.parametrize(
    ("shared_prompt", "peft_config"),
    [(SharedPrompt.auto, None), (SharedPrompt.never, LORA)],
    ids=["shared prompts", "plain rows, LoRA"],
)
def test_a_surplus_group_is_trained_on_later_with_its_own_log_probabilities(
    shared_prompt: SharedPrompt, peft_config: Any, tmp_path: Path
) -> None:
    grpo, options = REFILL | {"shared_prompt": shared_prompt}, {"max_steps": 2}
    options |= {} if peft_config is None else {"peft_config": peft_config}
    # One of the first two is live. So the next round asks two more for the one that is missing.
    trainer = train("dllllddd", tmp_path, grpo=grpo, learning_rate=0.1, **options)
    assert [[group.index for group in batch] for batch in trainer.batches] == [[1, 2], [3, 4]]
    assert logged(trainer, "groups_carried") == [0, 1]
    carried = trainer.batches[1][0]
    assert carried.step == 0
    old, policy = trainer.outputs[1]["old_per_token_logps"], trainer.replays[-1].policy_logps
    mask = trainer.outputs[1]["completion_mask"].bool()
    for row, logps in enumerate(carried.logps):
        assert old[row, : len(logps)].tolist() == logps
    assert torch.equal(old[GROUP:], policy[GROUP:])  # the fresh group's are the policy's
    difference = (old - policy)[:GROUP][mask[:GROUP]]
    assert difference.abs().max() > 1e-4  # the policy has moved since

    # With a learning rate of 0 the policy is still the one that generated the carried group.
    still = train("dllllddd", tmp_path / "still", grpo=grpo, learning_rate=0.0, **options)
    old, policy = still.outputs[1]["old_per_token_logps"], still.replays[-1].policy_logps
    assert torch.allclose(old[mask], policy[mask], atol=1e-5)
    assert old[mask].abs().max() > 0.1
    assert carried.logps == still.batches[1][0].logps


@pytest.mark.parametrize(
    ("loss_type", "passes"),
    [("grpo", 1), ("grpo", 2), ("bnpo", 2), ("dr_grpo", 2), ("dapo", 2)],
)
def test_a_dropped_group_changes_the_weights_as_if_it_had_not_been_there(
    loss_type: str, passes: int, tmp_path: Path
) -> None:
    """Neither its KL term nor its rows and tokens in the denominator are left."""
    drop = {"zero_variance": ZeroVariance.drop}
    options = {"loss_type": loss_type, "max_steps": 3, "beta": 1.0}
    with_dead = train("ld", tmp_path / "a", grpo=drop, **options,
                      per_device_train_batch_size=2 * GROUP // passes,
                      gradient_accumulation_steps=passes)  # fmt: skip
    without = train("l", tmp_path / "b", grpo={}, **options, per_device_train_batch_size=GROUP)
    assert logged(with_dead, "zero_variance_asked") == [0.5] * 3
    assert logged(with_dead, "zero_variance_trained") == [0] * 3
    losses = [[float(loss) for loss in logged(trainer, "loss")] for trainer in (with_dead, without)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5, abs=1e-5)  # float32
    norms = [
        [float(norm) for norm in logged(trainer, "grad_norm")] for trainer in (with_dead, without)
    ]
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)
    expected, result = weights(without), weights(with_dead)
    for name, value in expected.items():
        assert (result[name] - value).abs().max() <= 2e-5, name


def test_a_kept_group_is_trained_on_by_its_kl_term(tmp_path: Path) -> None:
    options = {"max_steps": 2, "beta": 1.0}
    kept = weights(train("ld", tmp_path / "kept", grpo={}, **options))
    drop = {"zero_variance": ZeroVariance.drop}
    dropped = weights(train("ld", tmp_path / "dropped", grpo=drop, **options))
    assert any((kept[name] - dropped[name]).abs().max() > 1e-4 for name in kept)


def test_evaluation_does_not_refill(tmp_path: Path) -> None:
    trainer = train("dllddlll", tmp_path, grpo=REFILL, max_steps=2, evaluate=True)
    assert len(trainer.batches) == 2
    evaluated = [row for row in trainer.state.log_history if "eval_reward" in row]
    assert len(evaluated) == 2
    sampled = [row for row in read_log(tmp_path, PROMPT_LOG) if row["step"]]
    assert sum(logged(trainer, "groups_asked")) == len(sampled)


def test_tokens_and_answers_of_refused_groups_are_counted(tmp_path: Path) -> None:
    trainer = train("dllldllll", tmp_path, grpo=REFILL, max_steps=2)
    sampled, lengths = logged(trainer, "groups_asked"), logged(trainer, "completions/mean_length")
    assert sampled == [2 + 2, 1 + 2]  # the second step has a carried group; its rounds differ
    counted = sum(n * GROUP * length for n, length in zip(sampled, lengths, strict=True))
    assert counted == pytest.approx(trainer.num_tokens)
    assert sum(logged(trainer, "generated_tokens")) == trainer.num_tokens


@pytest.mark.parametrize(
    "batches",
    [
        {"gradient_accumulation_steps": 2, "steps_per_generation": 1},  # two batches for a step
        {"gradient_accumulation_steps": 1, "steps_per_generation": 2},  # a batch for two steps
        {"gradient_accumulation_steps": 4, "steps_per_generation": 2},
    ],
)
@pytest.mark.parametrize("grpo", [{}, REFILL], ids=["plain", "refill"])
def test_tokens_are_exact_whatever_the_number_of_batches_of_a_step(
    grpo: dict[str, Any], batches: dict[str, int], tmp_path: Path
) -> None:
    folder, size = tmp_path / "run", GROUP if batches["steps_per_generation"] == 2 else 2 * GROUP
    trainer = build(shapes_pool("dllldllldlll"), folder, GrpoConfig(**grpo), max_steps=4,
                    per_device_train_batch_size=size, **batches)  # fmt: skip
    folder.mkdir(exist_ok=True)
    trainer.add_callback(JsonlLogger(folder, 0.0, "test"))
    trainer.train()
    counts = rollout_counts(trainer, folder)
    assert counts == {"generations": trainer.num_rollouts, "tokens": trainer.num_tokens}


def test_logged_rewards_are_those_of_all_generated_groups(tmp_path: Path) -> None:
    """Of the chosen groups alone the reward would rise because they are chosen."""
    trainer = train("ddld" + "l" * 8, tmp_path, grpo=REFILL, max_steps=1)
    assert logged(trainer, "groups_trained") == [2]
    sampled = read_log(tmp_path, PROMPT_LOG)
    accuracies = [row["accuracy"] for row in sampled if row["step"]]
    assert 0.0 in accuracies
    expected = pytest.approx(sum(accuracies) / len(accuracies))
    assert logged(trainer, "rewards/accuracy/mean") == [expected]
    assert logged(trainer, "reward") == [expected]


def test_a_pool_without_a_live_group_is_refused_and_the_weights_stay(tmp_path: Path) -> None:
    trainer = build(
        shapes_pool("d" * 14), tmp_path, GrpoConfig(**REFILL), max_steps=5, optim="adamw_torch"
    )
    before = weights(trainer)
    with pytest.raises(DeadPoolError, match="of 14 samples 14 were sampled, 14 were always wrong"):
        trainer.train()
    assert trainer.state.global_step == 1  # one step, on nothing, after ten prompts
    assert all(torch.equal(before[name], value) for name, value in weights(trainer).items())


def test_a_sampler_finds_a_pool_without_a_live_group_too(tmp_path: Path) -> None:
    """It asks prompts by their answers, of which there are none to learn from."""
    grpo = GrpoConfig(sampler=PromptSampler.skip_dead)
    trainer = build(shapes_pool("dddd"), tmp_path, grpo, max_steps=9, optim="adamw_torch")
    before = weights(trainer)
    with pytest.raises(DeadPoolError, match="of 4 samples 4 were sampled, 4 were always wrong"):
        trainer.train()
    assert trainer.state.global_step < 9
    assert all(torch.equal(before[name], value) for name, value in weights(trainer).items())


def test_what_rewards_log_of_refused_groups_is_not_logged_beside_others(tmp_path: Path) -> None:
    """TRL logs a reward function's extra columns beside the batch's completions, row by row."""
    trainer = build(shapes_pool("dldllll"), tmp_path, GrpoConfig(**REFILL), max_steps=2)
    (function,) = [f for f in trainer.reward_funcs if f.__name__ == "accuracy"]
    sizes: list[int] = []

    def with_extra(*args: Any, log_extra: Any = None, **columns: Any) -> Any:
        rewards = function(*args, **columns)
        log_extra("extra", list(rewards))
        sizes.append(len(rewards))
        return rewards

    with_extra.__name__ = "accuracy"
    trainer.reward_funcs = [with_extra if f is function else f for f in trainer.reward_funcs]
    trainer.train()
    assert len(sizes) > 2  # rounds
    assert not trainer._logs["extra"].get("extra")  # of all rounds, it would be of other rows


def test_a_training_that_dropped_all_groups_is_refused_at_its_end(tmp_path: Path) -> None:
    drop = {"zero_variance": ZeroVariance.drop}
    trainer = train("dddd", tmp_path / "dead", grpo=drop, max_steps=2)
    with pytest.raises(DeadPoolError, match=r"set grpo|raise grpo.num_generations"):
        trainer.require_live_group()
    train("dddl", tmp_path / "live", grpo=drop, max_steps=2).require_live_group()
    train("dddd", tmp_path / "kept", grpo={}, max_steps=2).require_live_group()


@pytest.mark.parametrize("sampler", [PromptSampler.uniform, PromptSampler.learnable])
def test_a_resumed_training_asks_and_trains_as_an_undisturbed_one(
    sampler: PromptSampler, tmp_path: Path
) -> None:
    """From the checkpoint of a step that carries a group to the next, and from a later one."""
    grpo, folder = REFILL | {"sampler": sampler}, tmp_path / "run"
    options = {"max_steps": 3, "optim": "adamw_torch", "learning_rate": 1e-3,
               "save_strategy": "steps", "save_steps": 1}  # fmt: skip
    undisturbed = train("dllllddllldl", folder, grpo=grpo, **options)
    expected, lines = weights(undisturbed), (folder / PROMPT_LOG).read_text()
    if sampler is PromptSampler.uniform:
        assert logged(undisturbed, "groups_carried") == [0, 1, 0]
    for step in (1, 2):
        checkpoint = folder / "checkpoints" / f"checkpoint-{step}"
        resumed = build(shapes_pool("dllllddllldl"), folder, GrpoConfig(**grpo), **options)
        truncate_log(folder, step)
        checkpointing.load_weights(resumed.model, checkpoint)
        resumed.train(resume_from_checkpoint=str(checkpoint))
        assert all(torch.equal(expected[name], value) for name, value in weights(resumed).items())
        assert (folder / PROMPT_LOG).read_text() == lines


def test_a_log_cut_in_its_first_rows_begins_again(tmp_path: Path) -> None:
    answers = {"live 0": (3, 1)}
    build(shapes_pool("llll"), tmp_path, GrpoConfig(**REFILL), answers=answers)
    path = tmp_path / PROMPT_LOG
    complete = path.read_text()
    assert read_log(tmp_path, PROMPT_LOG)[0]["correct"] == 3
    path.write_text(complete[:200])
    build(shapes_pool("llll"), tmp_path, GrpoConfig(**REFILL), answers=answers)
    assert path.read_text() == complete
    # Another run has added responses to the probe; a training that has begun does not see them.
    again = build(shapes_pool("llll"), tmp_path, GrpoConfig(**REFILL), answers={"live 0": (9, 9)})
    assert again.history.correct_N.tolist() == [3, 0, 0, 0]


@pytest.mark.parametrize("max_carry_steps", [1, 4])
def test_rollouts_for_several_steps_are_refilled_too(max_carry_steps: int, tmp_path: Path) -> None:
    """Four optimizer steps on each batch of two groups: a surplus group waits for four steps."""
    grpo = REFILL | {"max_carry_steps": max_carry_steps}
    trainer = train("dlllldlldlll", tmp_path, grpo=grpo, max_steps=8, steps_per_generation=2,
                    num_iterations=2, per_device_train_batch_size=GROUP)  # fmt: skip
    assert [len(batch) for batch in trainer.batches] == [2, 2]
    assert not any(group.is_dead for batch in trainer.batches for group in batch)
    carried = [group for group in trainer.batches[1] if group.logps is not None]
    assert [group.index for group in carried] == ([3] if max_carry_steps == 4 else [])
    assert all("old_per_token_logps" in output for output in trainer.outputs)


def test_vllms_log_probabilities_stay_with_a_carried_group(tmp_path: Path) -> None:
    """vLLM itself does not run here: the rollouts are ours, the correction of them is TRL's."""
    trainer = build(shapes_pool("dllllddd"), tmp_path, GrpoConfig(**REFILL), max_steps=2,
                    vllm_importance_sampling_mode="token_truncate",
                    vllm_importance_sampling_clip_max=1e9)  # fmt: skip
    trainer.use_vllm = trainer.logps_of_sampling = True
    trainer.train()
    output, (carried, _) = trainer.outputs[1], trainer.batches[1]
    assert carried.step == 0
    for row, (logps, ids) in enumerate(zip(carried.logps, carried.completion_ids, strict=True)):
        sampled = [-(token % 7) / 5 for token in ids]
        assert output["sampling_per_token_logps"][row, : len(ids)].tolist() == pytest.approx(
            sampled
        )
        ratio = torch.tensor(logps).sub(torch.tensor(sampled)).exp()
        assert torch.allclose(output["importance_sampling_ratio"][row, : len(ids)], ratio)


@pytest.mark.parametrize("rollouts", Rollouts)
def test_real_rollouts_are_refilled(rollouts: Rollouts, tmp_path: Path) -> None:
    """With the probe's engine, a group's seeds go on from round to round."""
    trainer: Any = build(shapes_pool("dllllddd"), tmp_path, GrpoConfig(**REFILL), max_steps=2,
                         trainer_class=RealRollouts)  # fmt: skip
    trainer.engine_config = ModelConfig() if rollouts is Rollouts.engine else None
    trainer.train()
    assert sum(logged(trainer, "groups_asked")) > 4  # dead ones were replaced
    answers = [ids for batch in trainer.batches for group in batch for ids in group.completion_ids]
    assert len(answers) == 4 * GROUP
    assert len({*map(tuple, answers)}) > 4  # not the same draws in each round


@pytest.mark.parametrize(
    ("grpo", "options", "pattern", "problem"),
    [
        (REFILL, {"steps_per_generation": 1, "per_device_train_batch_size": 6}, "llll",
         "the 6 completions of a process must be divisible by grpo.num_generations"),
        ({"sampler": PromptSampler.learnable}, {}, "l",
         "has 2 prompts, but there are only 1 samples"),
        ({"zero_variance": ZeroVariance.drop},
         {"steps_per_generation": 1, "gradient_accumulation_steps": 2}, "llll",
         "set grpo.trl.steps_per_generation to a multiple of 2"),
    ],
)  # fmt: skip
def test_a_batch_that_cannot_be_filled_is_refused(
    grpo: dict, options: dict, pattern: str, problem: str, tmp_path: Path
) -> None:
    trainer = build(shapes_pool("l" * 4), tmp_path, GrpoConfig())
    trainer.grpo = GrpoConfig(**grpo)
    for name, value in options.items():
        setattr(trainer.args, name, value)
    trainer.train_dataset = trainer.train_dataset.select(range(len(pattern)))
    assert problem in (batch_problem(trainer) or size_problem(trainer))


def launch(config: str | None, folder: Path, pattern: str, num_steps: int) -> dict[str, Any]:
    """What the program logs in one process, or in the two of a file in launch/accelerate."""
    program = str(ROOT / "tests" / "train" / "chosen_groups.py")
    launcher = [sys.executable]
    if config is not None:
        config_file = str(ROOT / "launch" / "accelerate" / config)
        launcher = [str(BIN / "accelerate"), "launch", "--config_file", config_file]
    environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1",
                                "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}  # fmt: skip
    command = [*launcher, program, str(folder), pattern, str(num_steps)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1200)
    assert done.returncode == 0, done.stderr[-6000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("LOGGED "))
    return json.loads(line.removeprefix("LOGGED "))


@pytest.mark.slow
def test_two_processes_choose_and_train_as_one(tmp_path: Path) -> None:
    """All rounds have an even number of prompts here, so both share them alike."""
    pattern = "dlldddllllll"
    one = launch(None, tmp_path / "one", pattern, 4)
    two = launch("ddp_cpu.yaml", tmp_path / "two", pattern, 4)
    assert (one.pop("processes"), two.pop("processes")) == (1, 2)
    assert two["batches"] == one["batches"] == [[1, 2], [6, 7], [8, 9], [10, 11]]
    for key, values in one.items():
        if key != "batches":
            assert two[key] == pytest.approx(values, rel=1e-3, abs=1e-5), key


@pytest.mark.slow
def test_zero3_carries_refills_and_drops_as_plain_data_parallel_training(tmp_path: Path) -> None:
    """Groups are carried, and in some batch the rounds are used up."""
    pattern = "dllllldddddddddlld"
    plain = launch("ddp_cpu.yaml", tmp_path / "plain", pattern, 5)
    zero3 = launch("zero3_cpu.yaml", tmp_path / "zero3", pattern, 5)
    assert zero3["batches"] == plain["batches"]
    assert max(plain["groups_carried"]) > 0
    assert max(plain["sampling_rounds"]) == 3
    assert min(plain["groups_trained"]) < 2
    for key in ("loss", "grad_norm", "groups_asked", "groups_trained"):
        assert zero3[key] == pytest.approx(plain[key], rel=1e-2, abs=1e-4), key
