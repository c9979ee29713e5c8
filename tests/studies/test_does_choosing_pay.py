"""The figures of the page of studies/does_choosing_pay.py, on small result rows."""

import json
from pathlib import Path

import does_choosing_pay
import does_choosing_pay_page as page
import pytest
from does_choosing_pay_page import EQUAL_STEPS, ArmRun, CurvePoint

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


def items(score: float) -> list[float]:
    """Scores of 20 items with this mean in points: as many ones as it takes, then zeros."""
    ones = round(score / 5)
    return [1.0] * ones + [0.0] * (20 - ones)


def test_a_longer_run_is_compared_after_the_same_number_of_steps() -> None:
    full = run("full", 1, {0: 40, HALF: 50, EQUAL_STEPS: 60, 2 * EQUAL_STEPS: 80})
    assert full.at_equal_steps.mean == pytest.approx(60)


def test_the_steps_of_sft_count_as_steps() -> None:
    two_stages = run("SFT(mid)+GRPO(hard)", 1, {0: 40, HALF: 50, EQUAL_STEPS: 60})
    shorter = ArmRun(**{**{f: getattr(two_stages, f) for f in ArmRun.__slots__}, "sft_steps": 40})
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
    assert "reach the score of the full pool after 320 steps (8 seeds); with their probe" in text
    assert "as many random ones, after equal optimizer steps: +17.5 [" in text
    assert "over 8 of 27 planned seeds, no difference shown; minus the full pool: +10.0 [" in text
    assert "on medium then hard samples not compared yet" in text
    assert "| 8 | 70.0 |" in text
    assert "pilot has not been run" in text


def test_a_result_row_survives_writing_and_reading(tmp_path: Path) -> None:
    written = run("mid+hard", 3, {0: 40, EQUAL_STEPS: 70}, probe=100)
    (tmp_path / "row.json").write_text(json.dumps(written.to_json()))
    assert page.read_runs(tmp_path) == [written]


def test_every_arm_of_the_study_is_a_recipe_that_resolves() -> None:
    for arm in does_choosing_pay.ARMS:
        config = does_choosing_pay.arm_config(arm, 901, [])
        assert config.data.mix == "paper"
        assert config.seed == config.data.world_seed == 901


def test_seeds_with_all_main_arms_come_first_and_further_arms_have_few() -> None:
    order = does_choosing_pay.planned(list(does_choosing_pay.ARMS), list(range(1, 28)))
    assert len(order) == len(set(order)) == 2 * 27 + 4 * 8 + 3 * 3
    assert set(order[:4]) == {(arm, 1) for arm in page.MAIN}
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
    assert page.difference_text(row, 27) == "-4.2 [-8.0, -0.4] points over 27 seeds, worse"
    row |= {"p": 0.2}
    assert page.difference_text(row, 27).endswith("over 27 seeds, no difference shown")
