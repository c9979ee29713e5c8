"""What is counted beside the rewards, and how TRL's sums become one line a step."""

import json
from collections import defaultdict
from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from difftrain.data import prompts
from difftrain.grade.reward_hacking import Alarm
from difftrain.records import Sample
from difftrain.train import callbacks, rewards, watch
from difftrain.train.watch import Groups


def logged(several: list[list[tuple[str, float]]]) -> dict[str, float]:
    """What TRL makes of the metrics of several processes: the mean of each."""
    found = defaultdict(list)
    for process in several:
        for name, value in process:
            found[name].append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}


def half_laid_out(samples: list[Sample], groups: Groups) -> list[tuple[str, float]]:
    """The metrics of one process whose first half of answers has the right layout."""
    told: list[tuple[str, float]] = []
    good = "<think>a</think><answer>b</answer>"
    texts = [good if place < len(samples) // 2 else "b" for place in range(len(samples))]
    ids = [sample.sample_id for sample in samples]
    watch.count_signs(texts, ids, groups, lambda *pair: told.append(pair))

    def correct(completions: list[str], **_: object) -> list[float]:
        return [float(text == good) for text in completions]

    for reward in (correct, rewards.layout):
        counted = watch.by_group(reward, groups)
        assert counted.__name__ == reward.__name__
        counted(completions=texts, sample_id=ids, log_metric=lambda *pair: told.append(pair))
    return told


def test_rewards_are_logged_by_task_and_stratum_over_all_processes(
    shapes_samples: list[Sample],
) -> None:
    strata = {s.sample_id: "hard" if n % 2 else "easy" for n, s in enumerate(shapes_samples[:20])}
    groups = Groups(shapes_samples, strata)
    one = half_laid_out(shapes_samples[:8], groups)
    two = half_laid_out(shapes_samples[8:24], groups)
    row = callbacks.summed_up(logged([one, two]), processes=2)
    paid = {s.sample_id for s in (*shapes_samples[:4], *shapes_samples[8:16])}
    for task in {sample.task for sample in shapes_samples}:
        own = [s.sample_id in paid for s in shapes_samples if s.task == task]
        assert row[f"answers/task/{task}"] == pytest.approx(len(own))
        assert row[f"reward_correct/task/{task}"] == pytest.approx(sum(own) / len(own))
        assert row[f"reward_layout/task/{task}"] == pytest.approx(sum(own) / len(own))
    hard = [identity in paid for identity, stratum in strata.items() if stratum == "hard"]
    assert row["reward_correct/stratum/hard"] == pytest.approx(sum(hard) / len(hard))
    assert row["answers/stratum/easy"] == pytest.approx(10)


def test_a_group_without_an_answer_in_a_step_is_left_out_and_not_zero(
    shapes_samples: list[Sample],
) -> None:
    groups = Groups(shapes_samples)
    only = [s for s in shapes_samples if s.task == shapes_samples[0].task]
    row = callbacks.summed_up(logged([half_laid_out(only, groups)]), processes=1)
    tasks = {name.split("/")[2] for name in row if "/task/" in name}
    assert tasks == {shapes_samples[0].task}


def test_signs_are_shares_of_all_answers(shapes_samples: list[Sample]) -> None:
    told: list[tuple[str, float]] = []
    groups = Groups(shapes_samples)
    texts = ["<answer></answer>", prompts.SYSTEM, "<answer>1</answer><answer>1</answer>", "1"]
    ids = [sample.sample_id for sample in shapes_samples[:4]]
    watch.count_signs(texts, ids, groups, lambda *pair: told.append(pair))
    row = callbacks.summed_up(logged([told]) | {"completions/clipped_ratio": 0.25}, 1)
    assert row == {
        "alarms/empty": 0.5,
        "alarms/several_options": 0.0,
        "alarms/repeated_tags": 0.25,
        "alarms/prompt_echo": 0.25,
        "alarms/truncated": 0.25,
    }


def test_an_alarm_is_told_once_while_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = callbacks.StepLog(tmp_path, 0.0, "test")
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    state, control = TrainerState(), TrainerControl()
    for step in range(1, 31):
        state.global_step = step
        sums = {"difftrain/answers": 8.0, f"difftrain/alarms/{Alarm.repeated_tags}": 2.0}
        log.on_log(arguments, state, control, logs={"reward": 0.5, **sums})
    rows = [json.loads(line) for line in (tmp_path / "train_log.jsonl").read_text().splitlines()]
    assert [row["alarms/repeated_tags"] for row in rows] == [0.25] * 30
    said = capsys.readouterr().out
    assert said.count("alarm at step") == 1
    assert "alarm at step 10, repeated_tags: 25% of the answers" in said


def test_a_look_at_held_out_samples_is_no_step(tmp_path: Path) -> None:
    log = callbacks.StepLog(tmp_path, 0.0, "test")
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    state = TrainerState(global_step=5)
    log.on_log(arguments, state, TrainerControl(), logs={"eval_rewards/correct/mean": 0.5})
    assert callbacks.read_log(tmp_path) == []
    assert callbacks.read_log(tmp_path, callbacks.HELD_OUT) == [{"step": 5, "held_out": 0.5}]
    callbacks.truncate_log(tmp_path, 4)
    assert callbacks.read_log(tmp_path, callbacks.HELD_OUT) == []
