"""MathVerse, WeMath and LogicVista score as the reference harness (VLMEvalKit) on recorded cases.

A recorded case has the score, the judge's calls and the hashes of the judge's whole prompts for
each of three commits. Cases with a `kind` are prompts, tables, and predictions without a judge.
"""

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from difftrain import evaluate
from difftrain.evaluate.harness import ItemGrade
from difftrain.evaluate.summary import summarize
from difftrain.evaluate.write_results import breakdown
from difftrain.records import GradedBy

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
# date of the rules -> commit of the harness
COMMITS = {"2025-07": "44d698f8", "2025-11": "19c0e386", "2026-08": "e8e78f05"}
Case = dict[str, Any]
CASES = [
    json.loads(line)
    for name in ("mathverse", "wemath", "logicvista")
    for line in (GOLDEN / f"{name}.jsonl").read_text().splitlines()
]


def cases(kind: str | None, benchmark: str = "") -> list[Any]:
    """The recorded cases of a kind, as parameters."""
    rows = [case for case in CASES if case.get("kind") == kind and benchmark in case["benchmark"]]
    return [pytest.param(case, id=case["id"]) for case in rows]


def at_commit(by_commit: dict[str, Any], rules: str) -> Any:
    """The value that the harness gave at the commit of these rules."""
    return next(value for name, value in by_commit.items() if name.startswith(COMMITS[rules]))


def scripted_judge(replies: list[str], calls: list[tuple[str, float]]) -> Callable[..., str]:
    """A judge that gives these replies in turn, and the last one from then on."""

    def judge(prompt: str, temperature: float) -> str:
        calls.append((prompt, temperature))
        return replies[min(len(calls), len(replies)) - 1]

    return judge


def hashes(calls: list[tuple[str, float]]) -> list[str]:
    """The hashes of the prompts, each prompt once."""
    prompts = dict.fromkeys(prompt for prompt, _ in calls)
    return [hashlib.sha256(prompt.encode()).hexdigest() for prompt in prompts]


@pytest.mark.parametrize("rules", COMMITS)
@pytest.mark.parametrize("case", cases(None))
def test_score_extraction_and_judge_calls_are_those_of_the_reference(
    case: Case, rules: str
) -> None:
    calls: list[tuple[str, float]] = []
    judge = scripted_judge(case["judge_output"] or [], calls)  # without replies: must not be called
    args = (case["benchmark"], case["prediction"], case["item"], judge, rules)
    grade = evaluate.grade_prediction(*args)
    assert grade.score == at_commit(case["by_commit"], rules)
    by_commit = case.get("extracted_by_commit")
    extracted = at_commit(by_commit, rules) if by_commit else case["extracted"]
    assert (grade.extracted or "") == extracted
    num_calls = case.get("judge_calls_by_commit")
    assert len(calls) == (at_commit(num_calls, rules) if num_calls else case["judge_calls"])
    if calls:
        assert hashes(calls) == case["judge_prompts_sha256"]
        temperatures = case.get("judge_temperatures", [])
        assert [temperature for _, temperature in calls][: len(temperatures)] == temperatures


@pytest.mark.parametrize("rules", COMMITS)
@pytest.mark.parametrize("case", cases("tables"))
def test_texts_pass_through_the_harness_s_tables_as_at_each_date(case: Case, rules: str) -> None:
    """A text that begins with = was a formula until 2026-07-22; long texts are cut."""
    is_long = "prediction_is" in case  # "the letter B 33000 times"
    prediction = "B" * 33_000 if is_long else case["prediction"]
    calls: list[tuple[str, float]] = []
    judge = scripted_judge(case["extract_output"] + (case["score_output"] or []), calls)
    score = evaluate.score_item(case["benchmark"], prediction, case["item"], judge, rules)
    expected = at_commit(case["expected_by_commit"], rules)
    assert (score, len(calls)) == (expected["score"], expected["judge_calls"])
    if is_long:
        assert f"'{'B' * 32_767}'" in calls[0][0]
    for prompt, _ in calls[1:]:
        assert f"[Standard Answer]: {expected['gold_seen']}\n" in prompt
        assert f"[Model_answer] : {expected['extraction_after_table']}\n" in prompt


@pytest.mark.parametrize("case", cases("no-judge"))
def test_without_a_judge_wemath_is_scored_by_the_official_string_rule(case: Case) -> None:
    grade = evaluate.grade_prediction(case["benchmark"], case["prediction"], case["item"])
    assert (grade.score, grade.extracted) == (case["expected_score"], case["extracted"])
    assert (grade.error is None) == (case["error"] is None)


@pytest.mark.parametrize("case", cases("random"))
def test_three_useless_replies_are_undecided_instead_of_a_random_option(case: Case) -> None:
    calls: list[tuple[str, float]] = []
    judge = scripted_judge(case["judge_output"], calls)
    grade = evaluate.grade_prediction(case["benchmark"], case["prediction"], case["item"], judge)
    assert len(calls) == case["judge_calls"]
    is_outage = "Failed to obtain" in case["judge_output"][0]
    assert grade.graded_by is None
    assert grade.score == (None if is_outage else 0.0)


@pytest.mark.parametrize("case", cases("prompt"))
def test_a_prompt_is_built_as_the_reference_builds_it(case: Case) -> None:
    assert evaluate.build_prompt(case["benchmark"], case["item"]) == case["messages"]


@pytest.mark.parametrize("case", cases("judge-prompt"))
def test_under_the_name_wemath_cot_the_judge_gets_the_common_prompt(case: Case) -> None:
    calls: list[tuple[str, float]] = []
    judge = scripted_judge(case["judge_output"], calls)
    evaluate.score_item(case["benchmark"], case["prediction"], case["item"], judge)
    assert hashes(calls) == case["judge_prompts_sha256"]


@pytest.mark.parametrize("case", cases("aggregate", "MathVerse"))
def test_mathverse_figures_have_a_row_for_each_version(case: Case) -> None:
    figures = evaluate.aggregate(case["benchmark"], case["rows"])
    table = case["expected"]
    expected = {
        f"{version} {column}": value / 100
        for version, row in table.items()
        for column, value in row.items()
    }
    overall = sum(row["Overall"] for row in table.values()) / len(table) / 100
    assert figures == pytest.approx(expected | {"Overall": overall}, abs=1e-7)


@pytest.mark.parametrize("case", cases("aggregate", "WeMath"))
def test_wemath_figures_are_those_of_the_reference(case: Case) -> None:
    assert_wemath_figures(evaluate.aggregate("WeMath", case["rows"]), case["expected"])


def assert_wemath_figures(figures: dict[str, float], expected: dict[str, str]) -> None:
    """The harness prints "42.00%", "20.95% (110)" and, for nothing, "nan%"."""
    for name, printed in expected.items():
        if name == "four_dimensional_error":  # a division by zero: nothing whole is right
            assert "RoteMemorization (Strict)" not in figures
        elif printed == "nan%":
            assert name not in figures
        else:
            percent, _, count = printed.partition(" ")
            assert f"{figures[name]:.2%}" == percent
            if count and not name.startswith("Rote"):  # a share of the 525 problems
                assert round(figures[name] * 525) == int(count.strip("()"))


@pytest.mark.parametrize("name", ["MathVerse", "WeMath", "LogicVista"])
def test_there_are_no_figures_without_items(name: str) -> None:
    assert evaluate.aggregate(name, []) == {}


@pytest.mark.parametrize("case", cases("aggregate", "LogicVista"))
def test_logicvista_figures_are_those_of_the_reference(case: Case) -> None:
    assert_logicvista_figures(evaluate.aggregate("LogicVista", case["rows"]), case["expected"])


def assert_logicvista_figures(figures: dict[str, float], expected: dict[str, Any]) -> None:
    """A skill without items has no figure (NaN in the harness)."""
    accuracies = {name: row["acc"] for name, row in expected.items() if row["acc"] is not None}
    assert figures.keys() == accuracies.keys()
    for name, accuracy in accuracies.items():
        assert math.isclose(100 * figures[name], accuracy, abs_tol=1e-6)


def pattern_of(benchmark: str) -> tuple[Case, dict[str, Any]]:
    """The recorded case of official size, and the pattern of its items."""
    (parameter,) = cases("aggregate-full", benchmark)
    (case,) = parameter.values
    return case, case["pattern"]


def test_the_full_mathverse_table_is_that_of_the_reference() -> None:
    case, pattern = pattern_of("MathVerse")
    rows = []
    for i, version in enumerate(pattern["versions"]):
        for p in range(pattern["problems"]):
            subject, subfield = pattern["subject_subfield"][p % 10]
            score = int((37 * p + 11 * i) % 100 < 48 + 5 * (i == 0))
            row = {"problem_version": version, "subject": subject, "subfield": subfield}
            rows.append(row | {"score": score})
    assert len(rows) == case["n_items"]
    figures = evaluate.aggregate(case["benchmark"], rows)
    overall = case["mean_over_versions_not_printed"]
    assert math.isclose(100 * figures["Overall"], overall, abs_tol=1e-6)
    for version, row in case["expected"].items():
        for column, value in row.items():
            assert math.isclose(100 * figures[f"{version} {column}"], value, abs_tol=1e-6)


def full_wemath_rows(case: Case) -> list[dict[str, Any]]:
    """The items of the recorded pattern: 360 problems of two steps and 165 of three."""
    a, b, c, t, tm = (case["pattern"][name] for name in ("a", "b", "c", "t", "tm"))
    concepts = case["concepts"]
    rows = []
    for q in range(525):
        steps, number = (2, q + 1) if q < 360 else (3, q - 359)
        keys = [*map(str, range(1, steps + 1)), "multi"]
        hits = [int((a * q + b * p + c) % 97 < t) for p in range(1, steps + 1)]
        hits.append(int((a * q * q + 13 * q) % 101 < tm))
        for p, (key, hit) in enumerate(zip(keys, hits, strict=True), 1):
            row = {"ID": f"{steps}steps_{number}", "key": f"{steps}steps_{key}", "hit": hit}
            rows.append(row | {"knowledge concept": concepts[(q + p) % 8]})
    return rows


def test_the_full_wemath_figures_are_those_of_the_reference() -> None:
    case, _ = pattern_of("WeMath")
    rows = full_wemath_rows(case)
    assert len(rows) == case["n_items"]
    assert_wemath_figures(evaluate.aggregate("WeMath", rows), case["expected"])


def test_the_full_logicvista_table_is_that_of_the_reference() -> None:
    case, pattern = pattern_of("LogicVista")
    skills = [skill for skill, size in pattern["sizes"].items() for _ in range(size)]
    rows = [
        {"skill": [skill], "hit": int(208 * n // 447 != 208 * (n + 1) // 447)}
        for n, skill in enumerate(skills)
    ]
    assert len(rows) == case["n_items"]
    assert_logicvista_figures(evaluate.aggregate("LogicVista", rows), case["expected"])


def test_the_report_s_wemath_score_is_the_strict_score_of_the_reference() -> None:
    """The mean over problems, with its interval, is what the harness prints over 525 problems."""
    case, _ = pattern_of("WeMath")
    results = [
        evaluate.item_result("WeMath", row, "x", ItemGrade(float(row["hit"]), "A", GradedBy.rule))
        for row in full_wemath_rows(case)
    ]
    summary = summarize("WeMath", results, resamples=100)
    assert summary.score is not None
    assert (f"{summary.score:.2%}", summary.n) == (case["expected"]["Score (Strict)"], 525)
    table = breakdown("WeMath", results)["problems"]
    for row, columns in table.items():
        for column, value in columns.items():
            if (printed := case["expected"].get(f"{column} ({row})")) is not None:
                assert value is not None
                assert f"{value:.2%}" == printed.partition(" ")[0]
                if "(" in printed:
                    assert columns[f"{column} n"] == int(printed.split("(")[1].rstrip(")"))


@pytest.mark.parametrize("name", ["MMVet", "MathVerse", "LogicVista"])
def test_predictions_that_only_a_judge_can_score_give_no_figures(name: str) -> None:
    rows = [{"prediction": "A", "answer": "A", "question": "Which?"}]
    with pytest.raises(ValueError, match=f"{name}: row 0 has a prediction but no score"):
        evaluate.aggregate(name, rows)
