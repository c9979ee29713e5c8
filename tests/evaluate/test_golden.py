"""The scorers give the same scores as the reference harness (VLMEvalKit) on recorded cases.

The harness changed its rules over time, so that a case has a score for each of three commits.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from difftrain import evaluate
from difftrain.evaluate.benchmarks import hallusionbench, mmvet
from difftrain.evaluate.harness import TableRow
from difftrain.evaluate.write_results import breakdown
from difftrain.records import GradedBy, ItemResult

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
# date of the rules -> commit of the harness
COMMITS = {"2025-07": "44d698f8", "2025-11": "19c0e386", "2026-08": "e8e78f05"}

Case = dict[str, Any]


def recorded_cases(name: str) -> list[Case]:
    """The cases in tests/golden/NAME.jsonl, or none if there is no such file."""
    path = GOLDEN / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


FILES = ("mathvista", "mmvet", "ocrbench", "hallusionbench", "mmmu", "mmstar")
# A case with a kind is a results table.
CASES = [case for name in FILES for case in recorded_cases(name) if "kind" not in case]
# A case's path is what graded it, a rule or the judge.
JUDGED_CASES = [case for case in CASES if case.get("judge_output") and case["path"] == "judge"]


def scripted_judge(case: Case, temperatures: list[float], prompts: list[str]) -> Callable | None:
    """A judge that gives the recorded replies in turn, and the last one from then on.

    It appends its arguments to the two lists. None if no replies are recorded.
    """
    replies = case.get("judge_output")
    if not replies:
        return None

    def judge(prompt: str, temperature: float) -> str:
        temperatures.append(temperature)
        prompts.append(prompt)
        return replies[min(len(temperatures), len(replies)) - 1]

    return judge


def expected_score(case: Case, rules: str) -> float | None:
    """The score that the harness gave at the commit of these rules."""
    commit = COMMITS[rules]
    return next(score for name, score in case["by_commit"].items() if name.startswith(commit))


@pytest.mark.parametrize("rules", COMMITS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_a_recorded_prediction_scores_as_the_reference_scored_it(case: Case, rules: str) -> None:
    judge = scripted_judge(case, [], [])
    score = evaluate.score_item(case["benchmark"], case["prediction"], case["item"], judge, rules)
    assert score == expected_score(case, rules)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_the_extracted_answer_and_the_grader_are_those_of_the_reference(case: Case) -> None:
    judge = scripted_judge(case, [], [])
    args = (case["benchmark"], case["prediction"], case["item"], judge, "2026-08")
    graded = evaluate.grade_prediction(*args)
    if graded.graded_by is None:
        # The harness writes Z or Unknown if it found no answer.
        assert case.get("extracted") in (None, "", "Z", "Unknown")
        return
    assert graded.graded_by == case["path"]
    if "extracted" in case:
        assert graded.extracted == str(case["extracted"])


@pytest.mark.parametrize("case", JUDGED_CASES, ids=lambda case: case["id"])
def test_the_judge_is_called_at_the_same_temperatures_as_in_the_reference(case: Case) -> None:
    temperatures: list[float] = []
    prompts: list[str] = []
    judge = scripted_judge(case, temperatures, prompts)
    evaluate.score_item(case["benchmark"], case["prediction"], case["item"], judge, "2026-08")
    if "judge_temperatures" in case:
        assert temperatures == case["judge_temperatures"]
    if "judge_calls" in case:
        assert len(temperatures) == case["judge_calls"]
    if "judge_prompt_last_line" in case:
        assert prompts[0].splitlines()[-1] == case["judge_prompt_last_line"]
        assert prompts[0] == mmvet.judge_prompt(case["prediction"], case["item"])


MATHVISTA_CASES = [
    case for case in CASES if "judge_called_by_commit" in case and case["judge_output"]
]


@pytest.mark.parametrize("case", MATHVISTA_CASES, ids=lambda case: case["id"])
def test_mathvista_calls_its_judge_exactly_when_the_reference_did(case: Case) -> None:
    for rules, commit in COMMITS.items():
        temperatures: list[float] = []
        judge = scripted_judge(case, temperatures, [])
        evaluate.score_item(case["benchmark"], case["prediction"], case["item"], judge, rules)
        recorded = case["judge_called_by_commit"].items()
        was_called = next(called for name, called in recorded if name.startswith(commit))
        assert bool(temperatures) == was_called


@pytest.mark.parametrize("case", recorded_cases("prompts"), ids=lambda case: case["id"])
def test_a_prompt_is_built_as_the_reference_builds_it(case: Case) -> None:
    assert evaluate.build_prompt(case["benchmark"], case["item"]) == case["messages"]


def test_hallusionbench_accuracies_agree_with_the_recorded_table() -> None:
    case = aggregate_case("hallusionbench")
    scores = {}
    for row in case["items"]:
        category, subcategory, *ids = row["key"]
        scores["/".join([f"{category}_{subcategory}", *ids])] = float(row["correct"])
    accuracies = hallusionbench.accuracies(scores)
    table = case["expected_metrics"]["Overall"]
    for name in ("aAcc", "fAcc", "qAcc"):  # of all items, of figures, of questions
        assert math.isclose(100 * (accuracies[name] or 0), table[name], abs_tol=1e-4)


def aggregate_case(name: str) -> Case:
    """The recorded results table of a benchmark, with the items that it was computed from."""
    return next(case for case in recorded_cases(name) if case.get("kind") == "aggregate")


def result(
    item_id: str, category: str, score: float, graded_by: GradedBy = GradedBy.rule
) -> ItemResult:
    return ItemResult(
        benchmark="x",
        item_id=item_id,
        response="",
        extracted=None,
        score=score,
        graded_by=graded_by,
        category=category,
    )


def score(row: TableRow) -> float:
    """The row's score, which must not be None."""
    value = row["score"]
    assert value is not None
    return value


def test_the_hallusionbench_table_agrees_with_the_recorded_one_row_by_row() -> None:
    case = aggregate_case("hallusionbench")
    results = []
    for row in case["items"]:
        category, subcategory, *ids = row["key"]
        category = f"{category}_{subcategory}"
        results.append(result("/".join([category, *ids]), category, float(row["correct"])))
    table = breakdown("HallusionBench", results)["subsets"]
    for name, expected in case["expected_metrics"].items():
        for column, value in expected.items():
            accuracy = table[name][column]
            assert accuracy is not None
            assert math.isclose(100 * accuracy, value, abs_tol=1e-4)


def test_the_mathvista_table_agrees_with_the_recorded_one_skill_by_skill() -> None:
    case = aggregate_case("mathvista")
    items = {str(other["item"]["pid"]): other["item"] for other in CASES if "pid" in other["item"]}
    results = []
    for row in case["items"]:
        pid, reply = str(row["pid"]), row["res"]
        is_graded_by_rule = row["log"] == "Prefetch succeed"  # the harness's words
        item = items.get(pid, {"question_type": "x"}) | {"pid": pid}
        item |= {key: row[key] for key in ("task", "skills")}
        category = evaluate.benchmark_named("MathVista").category(item)
        if pid in items:
            prediction = reply if is_graded_by_rule else "?"  # for "?" the judge is called
            grade = evaluate.grade_prediction(
                "MathVista", prediction, item, lambda prompt, temperature, reply=reply: reply
            )
            results.append(evaluate.item_result("MathVista", item, prediction, grade))
        else:  # The golden files lack this item. The recorded table shows that 8 and 506 are wrong.
            graded_by = GradedBy.rule if is_graded_by_rule else GradedBy.judge
            results.append(result(pid, category, float(pid not in ("8", "506")), graded_by))
    table = breakdown("MathVista", results)["tasks and skills"]
    expected = case["expected_metrics"]
    assert table.keys() == expected.keys()
    for name, row in expected.items():
        cells = table[name]
        # On the right are the harness's names of the columns.
        assert (cells["n"], cells["by_rule"], cells["right"]) == (
            row["tot"],
            row["prefetch"],
            row["hit"],
        )
        assert math.isclose(100 * score(cells), row["acc"], abs_tol=1e-5)


def test_the_ocrbench_table_agrees_with_the_recorded_one_group_by_group() -> None:
    case = aggregate_case("ocrbench")
    results = []
    for row in case["items"]:
        grade = evaluate.grade_prediction("OCRBench", row["prediction"], row["item"])
        results.append(evaluate.item_result("OCRBench", row["item"], row["prediction"], grade))
    table = breakdown("OCRBench", results)["groups"]
    expected = dict(case["expected_metrics"])
    assert table["Final Score"]["norm"] == expected.pop("Final Score Norm")
    assert {name: row["right"] for name, row in table.items()} == expected


def test_the_mmmu_table_agrees_with_the_recorded_one_split_by_split() -> None:
    case = aggregate_case("mmmu")
    mmmu = evaluate.benchmark_named("MMMU")
    results = [
        result(mmmu.item_id(row), mmmu.category(row), float(row["hit"])) for row in case["items"]
    ]
    tables = breakdown("MMMU", results)
    for split, expected in case["expected_metrics"].items():
        for name, value in expected.items():
            assert (name in tables[split]) == (value is not None)
            if value is not None:
                assert math.isclose(score(tables[split][name]), value)


def test_the_mmstar_table_agrees_with_the_recorded_one() -> None:
    case = aggregate_case("mmstar")
    results = [
        result(str(row["index"]), row["category"], float(row["hit"])) for row in case["items"]
    ]
    table = breakdown("MMStar", results)["capabilities"]
    for name, value in case["expected_metrics"].items():
        assert math.isclose(score(table[name]), value)


# MathVista has its own test below; MM-Vet has no recorded table.
AGGREGATED_BENCHMARKS = ("ocrbench", "hallusionbench", "mmmu", "mmstar")


@pytest.mark.parametrize("name", AGGREGATED_BENCHMARKS)
def test_aggregate_gives_the_recorded_figures_without_percents(name: str) -> None:
    case = aggregate_case(name)
    expected: dict[str, float] = {}
    for key, value in case["expected_metrics"].items():
        # A value is one figure, or a dictionary: column or category -> figure.
        for column, figure in value.items() if isinstance(value, dict) else [("", value)]:
            if name == "hallusionbench":  # in percent
                expected[column if key == "Overall" else f"{key} {column}"] = figure / 100
            elif figure is not None:
                label = column or key
                # MMMU has figures for the splits validation and dev. `aggregate` prefixes dev.
                expected[f"dev {label}" if key == "dev" else label] = figure
    figures = evaluate.aggregate(case["benchmark"], case["items"])
    assert figures.keys() >= expected.keys()
    for key, figure in expected.items():
        assert figures[key] == pytest.approx(figure, abs=1e-6)


def test_aggregate_uses_given_scores_and_leaves_out_items_without_one() -> None:
    case = aggregate_case("mathvista")
    table = case["expected_metrics"]
    rows = [
        # Only the items 8 and 506 are wrong in the recorded table.
        {"item": row | {"question_type": "x"}, "score": float(row["pid"] not in (8, 506))}
        for row in case["items"]
    ]
    rows.append({"item": rows[0]["item"], "score": None})
    figures = evaluate.aggregate("MathVista", rows)
    assert figures.keys() == table.keys()
    for name, row in table.items():
        assert figures[name] == pytest.approx(row["acc"] / 100)
    vet = [
        {"item": {"index": i, "category": category}, "score": score}
        for i, (category, score) in enumerate((("rec,ocr", 0.5), ("rec", 1.0)))
    ]
    # An item counts in each of its capabilities, so the score of rec is (0.5 + 1.0) / 2.
    assert evaluate.aggregate("MMVet", vet) == {"Overall": 0.75, "ocr": 0.5, "rec": 0.75}
