"""The figures of the page of studies/does_choosing_pay.py, on small result rows."""

import json
from pathlib import Path
from typing import Any

import does_choosing_pay
import does_choosing_pay_page as page
import does_choosing_pay_reasons as reasons
import does_choosing_pay_strata as strata
import pytest
from does_choosing_pay_rows import EQUAL_STEPS, MAIN, ArmRun, CurvePoint, read_runs

HALF = EQUAL_STEPS // 2


def run(
    arm: str, seed: int, scores: dict[int, float], tokens_per_step: int = 10, probe: int = 0
) -> ArmRun:
    """A run whose mean score (in points of 100) is given by step, on 20 items of one benchmark."""
    points = [
        CurvePoint(step, probe + step * tokens_per_step, {"A": items(score)})
        for step, score in scores.items()
    ]
    strata = {"easy": 60, "medium": 20, "hard": 20, "unsolved": 140}
    last = max(scores)
    return ArmRun(
        arm=arm, seed=seed, strata=strata, selected=40, sft_steps=0, points=points,
        probe_tokens=probe, live_share=[0.5] * last, grad_norm=[1.0] * last, versions={},
        revision=None,
    )  # fmt: skip


def fields_of(row: ArmRun) -> dict[str, Any]:
    """The values of all fields of a row."""
    return {field: getattr(row, field) for field in ArmRun.__slots__}


def items(score: float) -> list[float]:
    """Scores of 20 items with this mean in points: as many ones as it takes, then zeros."""
    ones = round(score / 5)
    return [1.0] * ones + [0.0] * (20 - ones)


def test_a_longer_run_is_compared_after_the_same_number_of_steps() -> None:
    full = run("full", 1, {0: 40, HALF: 50, EQUAL_STEPS: 60, 2 * EQUAL_STEPS: 80})
    assert full.at_equal_steps.mean == pytest.approx(60)


def test_the_steps_of_sft_count_as_steps() -> None:
    two_stages = run("SFT(mid)+GRPO(hard)", 1, {0: 40, HALF: 50, EQUAL_STEPS: 60})
    shorter = ArmRun(**{**fields_of(two_stages), "sft_steps": 40})
    assert shorter.at_equal_steps.step == HALF


def test_the_tokens_to_the_full_score_include_the_probe() -> None:
    full = run("full", 1, {0: 40, EQUAL_STEPS: 50, 2 * EQUAL_STEPS: 60})  # 3,200 tokens
    chosen = run("mid+hard", 1, {0: 40, EQUAL_STEPS: 80}, probe=400)  # has 60 after 80 steps
    assert page.tokens_to_full_score([full, chosen]) == pytest.approx((400 + 800) / 3200)


def test_an_arm_that_never_has_the_full_score_has_no_share_of_its_tokens() -> None:
    full = run("full", 1, {0: 40, EQUAL_STEPS: 90})
    assert page.tokens_to_full_score([full, run("mid+hard", 1, {0: 40, EQUAL_STEPS: 85})]) is None


def test_at_equal_tokens_an_arm_with_a_probe_has_trained_for_fewer_steps() -> None:
    runs = [
        row
        for seed in (1, 2)
        for row in (
            run("full", seed, {0: 40, EQUAL_STEPS: 60}),
            run("mid+hard", seed, {0: 40, EQUAL_STEPS: 80}, probe=EQUAL_STEPS * 5),
        )
    ]
    difference = page.equal_tokens(runs, "mid+hard", "full")
    assert difference is not None
    assert difference["mean"] == pytest.approx(0)  # half the steps give half of +40


def test_more_seeds_are_needed_where_the_pilots_differences_vary_more() -> None:
    def pilot(*differences: float) -> list[ArmRun]:
        return [
            row
            for seed, difference in enumerate(differences)
            for row in (
                run("random", seed, {EQUAL_STEPS: 50}),
                run("mid+hard", seed, {EQUAL_STEPS: 50 + difference}),
            )
        ]

    same, varied = page.power(pilot(10, 10)), page.power(pilot(10, 15))
    assert same.seeds == 8
    assert varied.seeds is not None
    assert varied.seeds > 20
    assert page.power(pilot(10)).seeds is None


def test_the_page_has_the_corrected_difference_and_every_seeds_score(tmp_path: Path) -> None:
    runs = [
        row
        for seed in range(1, 9)
        for row in (
            run("random", seed, {0: 40, EQUAL_STEPS: 50 + 5 * (seed % 2)}),
            run("mid+hard", seed, {0: 40, EQUAL_STEPS: 70}),
            run("hard", seed, {0: 40, EQUAL_STEPS: 65}),
            run("full", seed, {0: 40, EQUAL_STEPS: 60, 2 * EQUAL_STEPS: 65}),
        )
    ]
    text = page.write(tmp_path, runs, page.power([])).read_text()
    content = json.loads((tmp_path / "does_choosing_pay.json").read_text())
    assert content["seeds"] == list(range(1, 9))
    assert content["mid_hard_minus_random"]["mean"] == pytest.approx(17.5)
    result = content["mid_hard_minus_random"]
    alone = page.differences(runs, [("mid+hard", "random")])["mid+hard", "random"]
    assert result["p"] == pytest.approx(5 * alone["p"])  # the smallest of five counts five times
    assert result["low"] < result["low_95"] < 17.5 < result["high_95"] < result["high"]
    assert "reaches the score of all samples after 320 steps with 0.42 of its tokens" in text
    assert "GRPO on medium and hard samples scores +17.5 [" in text
    assert "points (8 of 27 planned seeds; no difference shown) against as many random" in text
    assert "(not compared yet) against SFT on the medium and GRPO on the hard samples" in text
    assert "random at equal steps, after correction: not shown. The full pool's last" in text
    assert "with at most 0.5 of its tokens: met (mid+hard has it with 0.42 of them)" in text
    assert "| 8 | 70.0 |" in text
    assert "pilot has not been run" in text


def test_a_result_row_survives_writing_and_reading(tmp_path: Path) -> None:
    written = run("mid+hard", 3, {0: 40, EQUAL_STEPS: 70}, probe=100)
    (tmp_path / "row.json").write_text(json.dumps(written.to_json()))
    assert read_runs(tmp_path) == [written]


def test_every_arm_of_the_study_is_a_recipe_that_resolves() -> None:
    for arm in does_choosing_pay.ARMS:
        config = does_choosing_pay.arm_config(arm, 901, [])
        assert config.data.mix == "paper"
        assert config.seed == config.data.world_seed == 901


def test_seeds_with_all_main_arms_come_first_and_further_arms_have_few() -> None:
    order = does_choosing_pay.planned(list(does_choosing_pay.ARMS), list(range(1, 28)))
    assert len(order) == len(set(order)) == 2 * 27 + 4 * 8 + 3 * 3
    assert set(order[:4]) == {(arm, 1) for arm in MAIN}
    assert all(seed > 8 for _, seed in order[-38:])


def test_a_curve_has_each_step_once_and_no_half_written_line(tmp_path: Path) -> None:
    file = tmp_path / "curve.jsonl"
    lines = [{"step": 20, "scores": {"a": [0]}}, {"step": 20, "scores": {"a": [1]}}]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 40, "sc')
    assert does_choosing_pay.read_curve(file) == {20: {"a": [1]}}
    assert does_choosing_pay.read_curve(tmp_path / "missing.jsonl") == {}


def test_the_tokens_of_a_point_are_the_probes_and_those_of_all_steps_until_then() -> None:
    config = does_choosing_pay.arm_config("mid+hard", 901, [])
    log = [{"completions/mean_length": 10.0}, {"completions/mean_length": 20.0}]
    points = does_choosing_pay.curve_points({0: {}, 1: {}, 2: {}}, log, config, 500)
    assert [point.tokens for point in points] == [500, 500 + 64 * 10, 500 + 64 * 30]


def test_the_readme_and_the_study_say_the_same() -> None:
    root = does_choosing_pay.ROOT
    readme = " ".join((root / "README.md").read_text().split())
    sentences = (root / "difftrain" / "report" / "study" / "study.txt").read_text().splitlines()
    assert len(sentences) == 3
    assert all(sentence in readme for sentence in sentences)
    page = (root / "studies" / "results" / "does_choosing_pay.md").read_text()
    assert all(sentence in page for sentence in sentences)


def test_a_worse_and_an_open_difference_are_called_so() -> None:
    row = {"mean": -4.2, "low": -8.0, "high": -0.4, "p": 0.03, "seeds": 27}
    assert page.difference_text(row, 27) == "-4.2 [-8.0, -0.4] points (27 seeds; worse)"
    assert page.difference_text(row | {"p": 0.2}, 27).endswith("no difference shown)")
    wide = row | {"high": 0.1}  # Holm's p may be below 0.05 beside Bonferroni's wider interval
    assert page.difference_text(wide, 27).endswith("no difference shown)")


def test_all_samples_that_reach_the_score_with_fewer_tokens_are_named() -> None:
    full = run("full", 1, {0: 40, HALF: 60, EQUAL_STEPS: 70})
    chosen = run("mid+hard", 1, {0: 40, EQUAL_STEPS: 60}, probe=EQUAL_STEPS * 10)
    content = page.summary([full, chosen], page.power([]))
    text = page.full_score_text([full, chosen], content)
    assert "does not reach the score" in text
    assert "for the score at which it ends, all samples need 0.25 of its tokens" in text
    assert "not met (mid+hard never has it)" in page.wanted_text(content)


def test_points_gained_and_lost_add_up_to_the_difference_from_the_base() -> None:
    points = [
        CurvePoint(0, 0, {"A": [1, 1, 0, 0]}),
        CurvePoint(EQUAL_STEPS, 9, {"A": [0, 1, 1, 1]}),
    ]
    row = ArmRun(**{**fields_of(run("hard", 1, {EQUAL_STEPS: 50})), "points": points})
    assert reasons.gained_and_lost(row) == (50, 25)


def test_live_samples_are_those_of_the_first_pass() -> None:
    row = run("hard", 1, {EQUAL_STEPS: 50})
    shares = [1.0] + [0.0] * (EQUAL_STEPS - 1)  # a pass over 12 samples has one whole step of 8
    fields = {**fields_of(row), "live_share": shares, "selected": 12}
    assert reasons.first_pass_live(ArmRun(**fields)) == 12
    assert reasons.first_pass_live(ArmRun(**fields | {"sft_steps": 40})) is None  # other samples


def test_a_study_of_fewer_steps_has_a_page_with_empty_cells() -> None:
    runs = [run(arm, 1, {0: 40, 20: 50, 30: 55}) for arm in ("mid+hard", "random", "full")]
    text = "\n".join(reasons.lines(runs))
    assert "| random (1 seeds) | +0.0 |  |  |  |  |" in text
    assert "| mid+hard | 40 | 20 | 50%, 50% |" in text


def test_strata_of_live_groups_are_counted_by_pass() -> None:
    log = [
        {"step": 0, "sample_id": "a"},  # the probe's answers
        *(
            {"step": step, "sample_id": sample, "zero_variance": dead}
            for step, sample, dead in [
                (1, "a", True), (1, "b", False), (2, "a", False), (2, "b", False),
            ]
        ),
    ]  # fmt: skip
    groups = list(strata.live_by_pass(log, {"a": "easy", "b": "hard"}))
    shares = strata.shares(groups, 2)
    assert shares["easy"] == {
        "share": 0.5, "live_first": 0, "live_last": 1, "share_of_live": 0,
    }  # fmt: skip
    assert shares["hard"]["share_of_live"] == 1
    assert "medium" not in shares


def test_a_selection_too_small_for_a_step_is_named_on_the_page() -> None:
    text = page.finished_text([run("RAP", 1, {EQUAL_STEPS: 50})], ["RAP-2"])
    assert "RAP 1 of 3" in text
    assert text.endswith("without RAP-2, whose selection is too small for one step")
