"""The report of a run whose groups were chosen: by dynamic sampling, or by a sampler."""

import json
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from difftrain.report.build import write_report
from difftrain.report.inputs import RunInputs
from difftrain.report.plots import training_curves
from difftrain.report.sampling import sampling_figure, summarize_groups
from difftrain.report.text import table

MakeRun = Callable[..., RunInputs]  # writes a finished toy run, see conftest.py
STEPS = [  # sampled, share of dead ones, trained, share of dead ones, carried
    (16, 0.75, 8, 0.5, 0),
    (8, 0.25, 8, 0.0, 2),
]
KEYS = ("groups_asked", "zero_variance_asked", "groups_trained", "zero_variance_trained",
        "groups_carried")  # fmt: skip


def training_log() -> pd.DataFrame:
    rows = [dict(zip(KEYS, values, strict=True)) for values in STEPS]
    return pd.DataFrame(rows).assign(step=[1, 2], reward=[0.2, 0.3])


def prompt_log() -> list[dict[str, object]]:
    """Two samples: the probe's answers, then a group each."""
    prior = [{"step": 0, "sample_id": id_, "correct": 1, "incorrect": 1} for id_ in ("a", "b")]
    sampled = {"round": 0, "expected": 0.5, "correct": 4, "incorrect": 2}
    return [
        *prior,
        *({"step": step, "sample_id": id_, **sampled} for step, id_ in ((1, "a"), (2, "b"))),
    ]


def test_shares_are_of_all_groups_of_all_steps() -> None:
    groups = summarize_groups(training_log())
    assert groups == {
        "sampled": 24, "trained": 16, "carried": 2,
        "zero_variance_asked": pytest.approx((16 * 0.75 + 8 * 0.25) / 24),
        "zero_variance_trained": pytest.approx(8 * 0.5 / 16),
    }  # fmt: skip
    rows = table("groups", {"training": {"tuned": {"groups": groups}, "control": {}}})
    assert [row[1] for row in rows] == ["tuned", "24", "58.3 %", "16", "25.0 %", "2"]


def test_a_run_that_took_its_groups_as_they_came_has_no_such_table_or_figure(
    make_run: MakeRun,
) -> None:
    log = training_log()[["step", "reward", "groups_asked"]]
    assert summarize_groups(log) is None
    assert sampling_figure({"tuned": log}, {}) is None
    inputs = make_run(size=9, control=False)
    report = write_report(inputs)
    assert "groups" not in report["training"]["tuned"]
    assert "groups of responses" not in (inputs.folder / "report.md").read_text()


def test_the_report_draws_the_asked_prompts_and_their_pass_rates(make_run: MakeRun) -> None:
    inputs = make_run(size=9, control=False)
    folder: Path = inputs.arms["tuned"].train
    for name, rows in (
        ("train_log.jsonl", training_log().to_dict("records")),
        ("prompt_log.jsonl", prompt_log()),
    ):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = write_report(inputs)
    assert report["training"]["tuned"]["groups"]["sampled"] == 24
    assert "| sampled | 24 |" in (inputs.folder / "report.md").read_text()
    assert "Zero-variance groups, sampled prompts" in (inputs.folder / "report.html").read_text()
    with_prompts, without = (
        sampling_figure({"tuned": training_log()}, log) for log in ({"tuned": [prompt_log()]}, {})
    )
    assert with_prompts is not None
    assert without is not None
    assert len(with_prompts) > len(without)


def test_the_figure_shows_the_sampled_prompts_of_every_round() -> None:
    rounds = [training_log().assign(training_round=n, step=[2 * n - 1, 2 * n]) for n in (1, 2)]
    log = pd.concat(rounds, ignore_index=True)
    figures = [
        sampling_figure({"tuned": log}, {"tuned": prompt_logs})
        for prompt_logs in ([prompt_log(), prompt_log()], [prompt_log()])
    ]
    both, first = (b64decode(str(url).partition("base64,")[2]).decode() for url in figures)
    assert both.count("samples by pass rate, round") == 2
    assert both.count("tuned: before") == 2
    assert first.count("tuned: before") == 1
    assert both.count("<use") > first.count("<use")  # the dots of the second round's prompts


def test_the_training_curve_begins_anew_in_each_round() -> None:
    one = training_log()
    two = pd.concat([one.assign(training_round=1), one.assign(training_round=2, step=[3, 4])])
    assert str(training_curves({"tuned": two})) != str(
        training_curves({"tuned": two.drop(columns="training_round")})
    )
