"""The report's summary of training: rewards, and alarms (signs of reward hacking)."""

import json
from collections.abc import Callable

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from difftrain.config.report import Tracker
from difftrain.grade.reward_hacking import ALARM_LIMITS
from difftrain.report.build import summarize_training, write_report
from difftrain.report.inputs import RunInputs, training_steps
from difftrain.report.text import DIVERGENCE, sentences, table
from difftrain.report.trackers import send_report

MakeRun = Callable[..., RunInputs]  # writes a finished toy run, see conftest.py


def training_log(repeated_tags: float, held_out: list[float]) -> pd.DataFrame:
    """A log of thirty steps with rising reward.

    `repeated_tags` is the share of responses with that alarm in every step. `held_out` has the
    accuracies on held-out samples in steps 10, 20 and 30. Every step has 4 responses of the task
    `count`; the first step also has 2 of the task `read`.
    """
    rows = []
    for step in range(1, 31):
        row = {
            "step": step,
            "reward": step / 30,
            "alarms/repeated_tags": repeated_tags,
            "seconds": 1.0,
        }
        row |= {"completions/count/task/count": 4.0, "rewards/accuracy/mean/task/count": step / 30}
        if step == 1:
            row |= {"completions/count/task/read": 2.0, "rewards/accuracy/mean/task/read": 0.5}
        if step % 10 == 0 and held_out:
            row["eval_rewards/accuracy/mean"] = held_out[step // 10 - 1]
        rows.append(row)
    return pd.DataFrame(rows)


def summarize(repeated_tags: float, held_out: list[float]) -> tuple[dict, list[str]]:
    """The summary of this training log, and the report's sentences about its alarms."""
    summary = summarize_training(training_log(repeated_tags, held_out), [64])
    return summary, sentences("alarms", {"training": {"tuned": summary}})


def test_a_reward_is_the_mean_over_responses_and_none_without_responses() -> None:
    summary, _ = summarize(0.0, [])
    assert summary["rewards"]["task/count"]["responses"] == 30 * 4
    # The last third is steps 21 to 30; the reward is step / 30.
    assert summary["rewards"]["task/count"]["last"] == pytest.approx(sum(range(21, 31)) / 10 / 30)
    assert summary["rewards"]["task/read"] == {"responses": 2.0, "first": 0.5, "last": None}


def test_a_harmless_log_raises_no_alarm() -> None:
    summary, lines = summarize(0.05, [0.5, 0.5, 0.6])
    assert lines == []
    assert summary["alarms"]["repeated_tags"]["max_share"] == pytest.approx(0.05)
    assert summary["alarms"]["repeated_tags"]["step"] is None


def test_an_alarm_is_reported_with_its_first_step_and_share_of_responses() -> None:
    _, lines = summarize(0.5, [])  # step 10 is the end of the first window of steps
    assert lines == [
        "Alarm while training tuned, from step 10: 50.0 % of the responses, "
        "a think or answer tag more than once."
    ]


def test_a_rising_reward_with_falling_held_out_accuracy_is_reported() -> None:
    summary, lines = summarize(0.0, [0.9, 0.5, 0.2])
    assert summary["alarms"][DIVERGENCE]["raised"] is True
    assert lines == [
        "Alarm while training tuned: the reward rose while the accuracy on held-out "
        "samples fell (90.0 % to 20.0 %)."
    ]


def test_each_round_is_judged_by_itself_because_it_holds_out_other_samples() -> None:
    logs = [training_log(0.0, held_out) for held_out in ([0.9, 0.9, 0.9], [0.3, 0.3, 0.3])]
    log = pd.concat([log.assign(training_round=n) for n, log in enumerate(logs, 1)])
    alarm = summarize_training(log, [64, 64])["alarms"][DIVERGENCE]
    assert alarm == {"raised": False, "first": 0.3, "last": 0.3, "round": 2}
    logs[1] = training_log(0.0, [0.9, 0.5, 0.2])
    log = pd.concat([log.assign(training_round=n) for n, log in enumerate(logs, 1)])
    summary = summarize_training(log, [64, 64])
    assert summary["alarms"][DIVERGENCE]["raised"] is True
    (line,) = sentences("alarms", {"training": {"tuned": summary}})
    assert line.startswith("Alarm while training tuned, round 2: the reward rose")


def test_alarms_that_the_log_does_not_have_are_reported_as_not_measured_or_not_counted() -> None:
    summary, _ = summarize(0.0, [])
    assert summary["alarms"][DIVERGENCE]["raised"] is None
    rows = table("alarms", {"training": {"tuned": summary}})
    assert rows[-1][1] == "not measured"  # DIVERGENCE: reward against held-out accuracy
    # The log has only one of the other alarms, repeated_tags.
    assert [row[1] for row in rows].count("not counted") == len(ALARM_LIMITS) - 1


def test_alarms_and_rewards_are_in_the_report_and_in_the_tracker(make_run: MakeRun) -> None:
    inputs = make_run(size=9, control=False)
    folder = inputs.arms["tuned"].train
    rows = training_log(0.5, []).to_dict("records")
    lines = [{key: value for key, value in row.items() if pd.notna(value)} for row in rows]
    (folder / "train_log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "eval_log.jsonl").write_text('{"step": 10, "eval_rewards/accuracy/mean": 0.9}\n')
    report = write_report(inputs)
    assert report["training"]["tuned"]["alarms"]["repeated_tags"]["step"] == 10
    for name in ("report.md", "report.html"):
        text = (inputs.folder / name).read_text()
        assert "Alarm while training tuned, from step 10" in text
        assert "task: count" in text
    assert training_steps(folder)[9]["eval_rewards/accuracy/mean"] == 0.9
    send_report([Tracker.tensorboard], inputs, report)
    sent = EventAccumulator(str(inputs.folder / "tensorboard" / "tuned")).Reload()
    (scalar,) = sent.Scalars("eval_rewards/accuracy/mean")
    assert (scalar.step, scalar.value) == (10, pytest.approx(0.9))
    assert [scalar.value for scalar in sent.Scalars("alarms/repeated_tags")] == [0.5] * 30
