"""The page of online_difficulty.py: shares of dead groups, differences from uniform sampling."""

import json
from pathlib import Path

import pytest

pytest.importorskip("does_choosing_pay_page")  # comes with data.mix

from does_choosing_pay_rows import CurvePoint
from online_difficulty_page import OnlineRun, read_rows, summary, write

ITEMS = 20


def finished_run(
    arm: str, seed: int, gain: int, tokens: int, dead: float, probe_tokens: int = 0
) -> OnlineRun:
    """A run of 160 steps; `gain` items of twenty more are right at the end than at the start."""
    points = [
        CurvePoint(
            step,
            probe_tokens + tokens * step,
            {"shapes/MMStar": [float(i < 8 + seed % 2 + gain * step / 160) for i in range(ITEMS)]},
        )
        for step in (0, 80, 160)
    ]
    return OnlineRun(
        arm=arm, seed=seed, strata={"easy": 5}, selected=10, sft_steps=0, points=points,
        probe_tokens=probe_tokens, live_share=[round(1 - dead, 3)] * 160,
        grad_norm=[0.5] * 160, versions={}, revision=None, sampled=[8, 24] * 80,
        trained=[8] * 160, dead_sampled=[0.5, 0.75] * 80, dead_trained=[dead] * 160,
    )  # fmt: skip


def two_arms() -> list[OnlineRun]:
    return [
        run
        for seed in (1, 2, 3)
        for run in (
            finished_run("uniform", seed, gain=4, tokens=100, dead=0.7),
            finished_run("refill", seed, gain=8, tokens=200, dead=0.05),
        )
    ]


def test_a_share_of_dead_groups_is_over_all_groups_not_over_steps() -> None:
    run = finished_run("refill", 1, 8, 200, 0.05)
    assert run.dead_share("sampled") == pytest.approx((8 * 0.5 + 24 * 0.75) / 32)
    assert run.dead_share("trained") == pytest.approx(0.05)


def test_the_difference_at_equal_tokens_is_taken_where_the_cheaper_run_ends() -> None:
    content = summary(two_arms())
    # At the end refill has 4 items of twenty more; after half its steps, uniform's tokens, none.
    assert content["minus_uniform_at_equal_steps"]["refill"]["mean"] == pytest.approx(20)
    assert content["minus_uniform_at_equal_tokens"]["refill"]["mean"] == pytest.approx(0)
    assert list(content["arms"]) == ["uniform", "refill"]


def test_rows_are_read_as_they_were_written_and_the_page_has_all_arms(tmp_path: Path) -> None:
    rows = tmp_path / "rows"
    rows.mkdir()
    runs = two_arms()
    for run in runs:
        (rows / f"{run.arm}-{run.seed}.json").write_text(json.dumps(run.to_json()))
    assert sorted(map(repr, read_rows(rows))) == sorted(map(repr, runs))
    text = write(tmp_path, read_rows(rows)).read_text()
    assert "| refill | 3 | 2560 | 69% | 5% | 32k (0k) | " in text
    assert (tmp_path / "online_difficulty.svg").stat().st_size > 1000
    assert json.loads((tmp_path / "online_difficulty.json").read_text())["seeds"] == [1, 2, 3]
