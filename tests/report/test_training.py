"""What training paid and which alarms rang, from step logs written by hand."""

import json
from collections.abc import Callable

import pandas as pd
import pytest

from difftrain.grade.reward_hacking import ALARM_LIMITS, Alarm
from difftrain.report import training
from difftrain.report.inputs import RunInputs, steps
from difftrain.report.tracking import logs
from difftrain.report.write import write

Make = Callable[..., RunInputs]


def log(tags: float, held_out: list[float]) -> pd.DataFrame:
    """Thirty steps with rising reward; answers to one task in every step, to another in one."""
    rows = []
    for step in range(1, 31):
        row = {"step": step, "reward": step / 30, "alarms/repeated_tags": tags, "seconds": 1.0}
        row |= {"completions/count/task/count": 4.0, "rewards/accuracy/mean/task/count": step / 30}
        if step == 1:
            row |= {"completions/count/task/read": 2.0, "rewards/accuracy/mean/task/read": 0.5}
        if step % 10 == 0 and held_out:
            row["eval_rewards/accuracy/mean"] = held_out[step // 10 - 1]
        rows.append(row)
    return pd.DataFrame(rows)


def told(tags: float, held_out: list[float]) -> tuple[dict, list[str]]:
    found = training.training({"tuned": log(tags, held_out)}, {"tuned": {"eval_samples": 64}})
    return found["tuned"], training.told({"training": found})


def test_pay_is_weighted_by_answers_and_unknown_where_there_were_none() -> None:
    found, _ = told(0.0, [])
    assert found["paid"]["task/count"]["answers"] == 120
    assert found["paid"]["task/count"]["last"] == pytest.approx(sum(range(21, 31)) / 300)
    assert found["paid"]["task/read"] == {"answers": 2.0, "first": 0.5, "last": None}


def test_a_quiet_training_tells_no_alarm() -> None:
    found, lines = told(0.05, [0.5, 0.5, 0.6])
    assert lines == []
    assert found["alarms"]["repeated_tags"]["loudest"] == pytest.approx(0.05)
    assert found["alarms"]["repeated_tags"]["step"] is None


def test_an_alarm_is_told_with_its_step_and_share() -> None:
    _, lines = told(0.5, [])
    assert lines == [
        "Alarm while training tuned, from step 10: 50.0 % of the answers, "
        "a thought or answer tag more than once."
    ]


def test_reward_that_rises_while_held_out_samples_get_worse_is_told() -> None:
    found, lines = told(0.0, [0.9, 0.5, 0.2])
    assert found["alarms"][training.PARTS_WAYS]["rang"] is True
    assert lines == [
        "Alarm while training tuned: the reward rose while held-out samples got worse "
        "(90.0 % to 20.0 %)."
    ]


def test_what_was_not_watched_is_not_called_quiet() -> None:
    found, _ = told(0.0, [])
    assert found["alarms"][training.PARTS_WAYS]["rang"] is None
    table = training.alarm_table({"training": {"tuned": found}})
    assert table.rows[-1][1] == "not watched"
    assert [row[1] for row in table.rows].count("not counted") == len(ALARM_LIMITS) - 1


def test_alarms_and_pay_are_in_the_report_and_in_the_tracker(make_run: Make) -> None:
    inputs = make_run(size=9, control=False)
    folder = inputs.arms["tuned"].train
    rows = log(0.5, [0.9, 0.5, 0.2]).to_dict("records")
    lines = [
        {k: v for k, v in row.items() if v == v and k != "eval_rewards/accuracy/mean"}
        for row in rows
    ]
    (folder / "train_log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    (folder / "eval_log.jsonl").write_text('{"step": 10, "eval_rewards/accuracy/mean": 0.9}\n')
    report = write(inputs)
    assert report["training"]["tuned"]["alarms"]["repeated_tags"]["step"] == 10
    for name in ("report.md", "report.html"):
        text = (inputs.folder / name).read_text()
        assert "Alarm while training tuned, from step 10" in text
        assert "task: count" in text
    sent = logs(inputs)["tuned"]
    assert sent == steps(folder)
    assert sent[9]["eval_rewards/accuracy/mean"] == 0.9
    assert sent[9]["alarms/repeated_tags"] == 0.5
    assert Alarm.empty in ALARM_LIMITS
