"""The report's summary of training, rewards and alarms, from training logs written by hand."""

import json
from collections.abc import Callable

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from difftrain.config.report import Tracker
from difftrain.grade.reward_hacking import ALARM_LIMITS, Alarm
from difftrain.report.build import summarize_training, write_report
from difftrain.report.inputs import RunInputs, training_steps
from difftrain.report.text import DIVERGENCE, sentences, table
from difftrain.report.trackers import send_report

MakeRun = Callable[..., RunInputs]


def training_log(repeated_tags: float, held_out: list[float]) -> pd.DataFrame:
    """Thirty steps with rising reward: all with responses of task count, the first also of read."""
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
    summary = summarize_training(training_log(repeated_tags, held_out), eval_samples=64)
    return summary, sentences("alarms", {"training": {"tuned": summary}})


def test_rewards_are_weighted_by_responses_and_none_without_responses() -> None:
    summary, _ = summarize(0.0, [])
    assert summary["rewards"]["task/count"]["responses"] == 120
    assert summary["rewards"]["task/count"]["last"] == pytest.approx(sum(range(21, 31)) / 300)
    assert summary["rewards"]["task/read"] == {"responses": 2.0, "first": 0.5, "last": None}


def test_a_harmless_log_raises_no_alarm() -> None:
    summary, lines = summarize(0.05, [0.5, 0.5, 0.6])
    assert lines == []
    assert summary["alarms"]["repeated_tags"]["max_share"] == pytest.approx(0.05)
    assert summary["alarms"]["repeated_tags"]["step"] is None


def test_an_alarm_is_reported_with_its_step_and_share() -> None:
    _, lines = summarize(0.5, [])
    assert lines == [
        "Alarm while training tuned, from step 10: 50.0 % of the responses, "
        "a think or answer tag more than once."
    ]


def test_reward_that_rises_while_held_out_samples_get_worse_is_reported() -> None:
    summary, lines = summarize(0.0, [0.9, 0.5, 0.2])
    assert summary["alarms"][DIVERGENCE]["raised"] is True
    assert lines == [
        "Alarm while training tuned: the reward rose while the accuracy on held-out "
        "samples fell (90.0 % to 20.0 %)."
    ]


def test_an_alarm_that_was_not_measured_is_reported_as_not_measured() -> None:
    summary, _ = summarize(0.0, [])
    assert summary["alarms"][DIVERGENCE]["raised"] is None
    rows = table("alarms", {"training": {"tuned": summary}})
    assert rows[-1][1] == "not measured"
    assert [row[1] for row in rows].count("not counted") == len(ALARM_LIMITS) - 1


def test_alarms_and_rewards_are_in_the_report_and_in_the_tracker(make_run: MakeRun) -> None:
    inputs = make_run(size=9, control=False)
    folder = inputs.arms["tuned"].train
    rows = training_log(0.5, [0.9, 0.5, 0.2]).to_dict("records")
    lines = [
        {k: v for k, v in row.items() if v == v and k != "eval_rewards/accuracy/mean"}
        for row in rows
    ]
    (folder / "train_log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    (folder / "eval_log.jsonl").write_text('{"step": 10, "eval_rewards/accuracy/mean": 0.9}\n')
    report = write_report(inputs)
    assert report["training"]["tuned"]["alarms"]["repeated_tags"]["step"] == 10
    for name in ("report.md", "report.html"):
        text = (inputs.folder / name).read_text()
        assert "Alarm while training tuned, from step 10" in text
        assert "task: count" in text
    assert training_steps(folder)[9]["eval_rewards/accuracy/mean"] == 0.9
    send_report(Tracker.tensorboard, inputs, report)
    sent = EventAccumulator(str(inputs.folder / "tensorboard" / "tuned")).Reload()
    (held_out,) = sent.Scalars("eval_rewards/accuracy/mean")
    assert (held_out.step, held_out.value) == (10, pytest.approx(0.9))
    assert [event.value for event in sent.Scalars("alarms/repeated_tags")] == [0.5] * 30
    assert Alarm.empty in ALARM_LIMITS
