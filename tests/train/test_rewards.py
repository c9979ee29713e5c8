"""Metrics by task and by stratum (difficulty class), and their line in the log for each step.

`Subsets` holds the samples and, by sample id, their strata: metrics are logged for each subset.
"""

import json
from collections import defaultdict
from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments
from trl.trainer.grpo_config import GRPOConfig

from difftrain.data import prompts
from difftrain.grade.reward_hacking import Alarm
from difftrain.records import Sample
from difftrain.train import callbacks, rewards
from difftrain.train.rewards import Subsets, step_metrics, with_metrics

NUM_GENERATIONS = 4  # completions per prompt
Metrics = list[tuple[str, float]]  # name and value, as a reward function logs them


def trl_mean(processes: list[Metrics]) -> dict[str, float]:
    """The mean of each metric over the processes, as TRL computes it."""
    values = defaultdict(list)
    for process in processes:
        for name, value in process:
            values[name].append(value)
    return {name: sum(numbers) / len(numbers) for name, numbers in values.items()}


def metrics_of_half_formatted(samples: list[Sample], subsets: Subsets) -> Metrics:
    """The metrics of one process with one completion for each sample.

    The completions of the first half are correct and formatted, those of the second half neither.
    """
    logged: Metrics = []
    right = "<think>a</think><answer>b</answer>"
    texts = [right if index < len(samples) // 2 else "b" for index in range(len(samples))]
    ids = [sample.sample_id for sample in samples]
    rewards.log_alarms(texts, samples, lambda *pair: logged.append(pair))

    def accuracy(completions: list[str], **_: object) -> list[float]:
        return [float(text == right) for text in completions]

    functions = {"accuracy": accuracy, "format": rewards.format_reward}
    measured = with_metrics(functions, {"accuracy": 1, "format": 0.1}, subsets, NUM_GENERATIONS)
    assert [reward.__name__ for reward in measured] == ["accuracy", "format"]
    for reward in measured:
        reward(completions=texts, sample_id=ids, log_metric=lambda *pair: logged.append(pair))
    return logged


def test_rewards_are_logged_by_task_and_stratum_over_all_processes(
    shapes_samples: list[Sample],
) -> None:
    strata = {s.sample_id: "hard" if n % 2 else "easy" for n, s in enumerate(shapes_samples[:20])}
    subsets = Subsets(shapes_samples, strata)
    first = metrics_of_half_formatted(shapes_samples[:8], subsets)
    second = metrics_of_half_formatted(shapes_samples[8:24], subsets)
    # TRL logs means over the processes; times num_processes, they are sums again.
    row = step_metrics(trl_mean([first, second]), num_processes=2)
    # The first half of both processes' samples.
    rewarded = {s.sample_id for s in (*shapes_samples[:4], *shapes_samples[8:16])}
    for task in {sample.task for sample in shapes_samples}:
        of_task = [s.sample_id in rewarded for s in shapes_samples if s.task == task]
        share = pytest.approx(sum(of_task) / len(of_task))
        assert row[f"completions/count/task/{task}"] == pytest.approx(len(of_task))
        assert row[f"rewards/accuracy/mean/task/{task}"] == share
        assert row[f"rewards/format/mean/task/{task}"] == share
    hard = [id_ in rewarded for id_, stratum in strata.items() if stratum == "hard"]
    assert row["rewards/accuracy/mean/stratum/hard"] == pytest.approx(sum(hard) / len(hard))
    # Of the 20 samples with a stratum, every second is easy.
    assert row["completions/count/stratum/easy"] == pytest.approx(20 / 2)


def test_a_task_without_a_completion_in_a_step_is_left_out_and_not_zero(
    shapes_samples: list[Sample],
) -> None:
    subsets = Subsets(shapes_samples)
    one_task = [s for s in shapes_samples if s.task == shapes_samples[0].task]
    row = step_metrics(trl_mean([metrics_of_half_formatted(one_task, subsets)]), num_processes=1)
    tasks = {name.rpartition("/task/")[2] for name in row if "/task/" in name}
    assert tasks == {shapes_samples[0].task}


def test_alarms_are_shares_of_all_completions(shapes_samples: list[Sample]) -> None:
    """An alarm is a sign of reward hacking."""
    logged: Metrics = []
    texts = ["<answer></answer>", prompts.SYSTEM, "<answer>1</answer><answer>1</answer>", "1"]
    rewards.log_alarms(texts, shapes_samples[:4], lambda *pair: logged.append(pair))
    row = step_metrics(trl_mean([logged]) | {"completions/clipped_ratio": 0.25}, num_processes=1)
    assert row == {
        "alarms/empty": 0.5,  # the first two: the system prompt has empty answer tags too
        "alarms/several_options": 0.0,
        "alarms/repeated_tags": 0.25,
        "alarms/prompt_echo": 0.25,
        "alarms/truncated": 0.25,
    }


def test_an_alarm_warns_once_while_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = callbacks.JsonlLogger(tmp_path, elapsed=0.0, title="test")
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    state, control = TrainerState(), TrainerControl()
    for step in range(1, 31):  # three times the number of steps over which an alarm is averaged
        state.global_step = step
        # 2 of 8 completions in every step; the limit is a tenth.
        sums = {"difftrain/completions": 8.0, f"difftrain/alarms/{Alarm.repeated_tags}": 2.0}
        log.on_log(arguments, state, control, logs={"reward": 0.5, **sums})
    rows = [json.loads(line) for line in (tmp_path / "train_log.jsonl").read_text().splitlines()]
    assert [row["alarms/repeated_tags"] for row in rows] == [0.25] * 30
    (message,) = [text for text in caplog.messages if "alarm at step" in text]
    assert message.startswith("alarm at step 10, repeated_tags: 25% of the completions")


def test_an_evaluation_on_held_out_samples_is_not_logged_as_a_step(tmp_path: Path) -> None:
    log = callbacks.JsonlLogger(tmp_path, elapsed=0.0, title="test")
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    state = TrainerState(global_step=5)
    log.on_log(arguments, state, TrainerControl(), logs={callbacks.EVAL_REWARD: 0.5})
    assert callbacks.read_log(tmp_path) == []
    row = {"step": 5, "eval_rewards/accuracy/mean": 0.5}
    assert callbacks.read_log(tmp_path, callbacks.EVAL_LOG) == [row]
    callbacks.truncate_log(tmp_path, last_step=4)
    assert callbacks.read_log(tmp_path, callbacks.EVAL_LOG) == []


def is_right(completions: list[str], **_: object) -> list[float]:
    return [float(text == "right") for text in completions]


def starts_with_r(completions: list[str], **_: object) -> list[float]:
    return [float(text.startswith("r")) for text in completions]


def metrics_of(
    completions_by_sample: list[tuple[Sample, list[str]]],
    subsets: Subsets,
    format_weight: float = 0.1,
) -> Metrics:
    """The metrics of one process that has these completions, with one token per letter."""
    texts = [text for _, completions in completions_by_sample for text in completions]
    ids = [sample.sample_id for sample, completions in completions_by_sample for _ in completions]
    logged: Metrics = []
    functions = {"accuracy": is_right, "format": starts_with_r}
    weights = {"accuracy": 1, "format": format_weight}
    for reward in with_metrics(functions, weights, subsets, NUM_GENERATIONS):
        reward(
            completions=texts,
            sample_id=ids,
            completion_ids=[[1] * len(text) for text in texts],
            log_metric=lambda *pair: logged.append(pair),
        )
    return logged


@pytest.fixture
def subsets(shapes_samples: list[Sample]) -> Subsets:
    """Even samples are easy, odd ones hard."""
    strata = {s.sample_id: "hard" if n % 2 else "easy" for n, s in enumerate(shapes_samples)}
    return Subsets(shapes_samples, strata)


def test_a_group_has_zero_variance_if_all_its_completions_are_rewarded_alike(
    shapes_samples: list[Sample], subsets: Subsets
) -> None:
    easy, hard, also_easy, _ = shapes_samples[:4]
    mixed = [(easy, ["right"] * 4), (hard, ["right", "no", "no", "no"])]
    first = metrics_of(mixed, subsets)
    second = metrics_of([(also_easy, ["no", "no", "no", "rather"])], subsets)
    row = step_metrics(trl_mean([first, second]), num_processes=2)
    assert row["frac_reward_zero_std/stratum/hard"] == 0.0
    assert row["frac_reward_zero_std/stratum/easy"] == 0.5  # a difference in format alone counts
    # Four times "right", three times "no", and "rather".
    assert row["completions/mean_length/stratum/easy"] == pytest.approx((4 * 5 + 3 * 2 + 6) / 8)
    assert row["completions/mean_length/stratum/hard"] == pytest.approx((5 + 3 * 2) / 4)


def test_a_reward_of_weight_zero_does_not_count_for_the_variance(
    shapes_samples: list[Sample], subsets: Subsets
) -> None:
    completions = ["no", "no", "no", "rather"]
    logged = metrics_of([(shapes_samples[0], completions)], subsets, format_weight=0)
    assert step_metrics(dict(logged), num_processes=1)["frac_reward_zero_std/stratum/easy"] == 1.0


@pytest.mark.parametrize("scale_rewards", ["batch", "group"])
def test_the_share_of_groups_without_variance_is_right_if_rewards_are_scaled_by_the_batch(
    scale_rewards: str, shapes_samples: list[Sample], subsets: Subsets, tmp_path: Path
) -> None:
    """TRL's number is then 0 unless all rewards of the batch are equal."""
    groups = [(shapes_samples[0], ["right"] * 4), (shapes_samples[1], ["right", "no", "no", "no"]),
              (shapes_samples[2], ["no"] * 4), (shapes_samples[3], ["rather"] * 4)]  # fmt: skip
    logs = dict(metrics_of(groups, subsets)) | {"reward": 0.5, "frac_reward_zero_std": 0.0}
    arguments = GRPOConfig(output_dir=str(tmp_path), scale_rewards=scale_rewards, use_cpu=True,
                           bf16=False, num_generations=2)  # fmt: skip
    log = callbacks.JsonlLogger(tmp_path, elapsed=0.0, title="test")
    log.on_log(arguments, TrainerState(global_step=1), TrainerControl(), logs=logs)
    (row,) = callbacks.read_log(tmp_path)
    assert row["frac_reward_zero_std"] == (0.75 if scale_rewards == "batch" else 0.0)


def test_an_incomplete_group_is_not_counted_as_a_group(
    shapes_samples: list[Sample], subsets: Subsets
) -> None:
    half_groups = [(shapes_samples[0], ["right"] * 2), (shapes_samples[2], ["right"] * 2)]
    row = step_metrics(dict(metrics_of(half_groups, subsets)), num_processes=1)
    assert "frac_reward_zero_std/stratum/easy" not in row
    assert row["completions/mean_length/stratum/easy"] == len("right")


def test_a_stratum_without_a_completion_is_left_out_and_not_zero(
    shapes_samples: list[Sample], subsets: Subsets
) -> None:
    row = step_metrics(
        dict(metrics_of([(shapes_samples[0], ["no"] * 4)], subsets)), num_processes=1
    )
    assert not [name for name in row if name.endswith("stratum/hard")]
