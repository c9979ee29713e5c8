"""The scorers agree with the reference harness's on every recorded case, at each date."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from difftrain import evaluate
from difftrain.evaluate.benchmarks import hallusionbench, mmvet
from difftrain.evaluate.types import TableRow
from difftrain.evaluate.write_results import breakdown
from difftrain.records import GradedBy, ItemResult

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
COMMITS = {"2025-07": "44d698f8", "2025-11": "19c0e386", "2026-08": "e8e78f05"}

Case = dict[str, Any]


def lines(name: str) -> list[Case]:
    path = GOLDEN / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


FILES = ("mathvista", "mmvet", "ocrbench", "hallusionbench", "mmmu", "mmstar")
CASES = [case for name in FILES for case in lines(name) if "kind" not in case]
JUDGED = [case for case in CASES if case.get("judge_output") and case["path"] == "judge"]


def scripted(case: Case, temperatures: list[float], asked: list[str]) -> Callable | None:
    replies = case.get("judge_output")
    if not replies:
        return None

    def judge(prompt: str, temperature: float) -> str:
        temperatures.append(temperature)
        asked.append(prompt)
        return replies[min(len(temperatures), len(replies)) - 1]

    return judge


def wanted(case: Case, rules: str) -> float | None:
    commit = COMMITS[rules]
    return next(score for name, score in case["by_commit"].items() if name.startswith(commit))


@pytest.mark.parametrize("rules", COMMITS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_a_recorded_prediction_scores_as_the_reference_scored_it(case: Case, rules: str) -> None:
    judge = scripted(case, [], [])
    score = evaluate.score_item(case["benchmark"], case["prediction"], case["item"], judge, rules)
    assert score == wanted(case, rules)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_the_extraction_and_the_path_are_the_references(case: Case) -> None:
    judge = scripted(case, [], [])
    args = (case["benchmark"], case["prediction"], case["item"], judge, "2026-08")
    graded = evaluate.grade_prediction(*args)
    if graded.graded_by is None:
        assert case.get("extracted") in (None, "", "Z", "Unknown")
        return
    assert graded.graded_by == case["path"]
    if "extracted" in case:
        assert graded.extracted == str(case["extracted"])


@pytest.mark.parametrize("case", JUDGED, ids=lambda case: case["id"])
def test_the_judge_is_tried_again_at_the_references_temperatures(case: Case) -> None:
    temperatures: list[float] = []
    asked: list[str] = []
    judge = scripted(case, temperatures, asked)
    evaluate.score_item(case["benchmark"], case["prediction"], case["item"], judge, "2026-08")
    if "judge_temperatures" in case:
        assert temperatures == case["judge_temperatures"]
    if "judge_calls" in case:
        assert len(temperatures) == case["judge_calls"]
    if "judge_prompt_last_line" in case:
        assert asked[0].splitlines()[-1] == case["judge_prompt_last_line"]
        assert asked[0] == mmvet.judge_prompt(case["prediction"], case["item"])


MATHVISTA = [case for case in CASES if "judge_called_by_commit" in case and case["judge_output"]]


@pytest.mark.parametrize("case", MATHVISTA, ids=lambda case: case["id"])
def test_mathvista_calls_its_judge_exactly_when_the_reference_did(case: Case) -> None:
    for rules, commit in COMMITS.items():
        temperatures: list[float] = []
        judge = scripted(case, temperatures, [])
        evaluate.score_item(case["benchmark"], case["prediction"], case["item"], judge, rules)
        called = case["judge_called_by_commit"].items()
        assert bool(temperatures) == next(v for name, v in called if name.startswith(commit))


@pytest.mark.parametrize("case", lines("prompts"), ids=lambda case: case["id"])
def test_a_prompt_is_built_as_the_reference_builds_it(case: Case) -> None:
    assert evaluate.build_prompt(case["benchmark"], case["item"]) == case["messages"]


def test_hallusionbench_accuracies_agree_with_the_recorded_table() -> None:
    case = next(case for case in lines("hallusionbench") if case.get("kind") == "aggregate")
    scores = {}
    for row in case["items"]:
        category, subcategory, *places = row["key"]
        scores["/".join([f"{category}_{subcategory}", *places])] = float(row["correct"])
    found = hallusionbench.accuracies(scores)
    table = case["expected_metrics"]["Overall"]
    for name in ("aAcc", "fAcc", "qAcc"):
        assert math.isclose(100 * (found[name] or 0), table[name], abs_tol=1e-4)


def aggregate_case(name: str) -> Case:
    return next(case for case in lines(name) if case.get("kind") == "aggregate")


def mark(item_id: str, subset: str, score: float, path: GradedBy = GradedBy.rule) -> ItemResult:
    return ItemResult(
        benchmark="x",
        item_id=item_id,
        response="",
        extracted=None,
        score=score,
        graded_by=path,
        category=subset,
    )


def score(row: TableRow) -> float:
    found = row["score"]
    assert found is not None
    return found


def test_the_hallusionbench_table_agrees_with_the_recorded_one_row_by_row() -> None:
    case = aggregate_case("hallusionbench")
    marks = []
    for row in case["items"]:
        category, subcategory, *places = row["key"]
        subset = f"{category}_{subcategory}"
        marks.append(mark("/".join([subset, *places]), subset, float(row["correct"])))
    table = breakdown("HallusionBench", marks)["subsets"]
    for name, wanted in case["expected_metrics"].items():
        for column, value in wanted.items():
            found = table[name][column]
            assert found is not None
            assert math.isclose(100 * found, value, abs_tol=1e-4)


def test_the_mathvista_table_agrees_with_the_recorded_one_skill_by_skill() -> None:
    case = aggregate_case("mathvista")
    items = {str(each["item"]["pid"]): each["item"] for each in CASES if "pid" in each["item"]}
    marks = []
    for row in case["items"]:
        pid, reply = str(row["pid"]), row["res"]
        prefetched = row["log"] == "Prefetch succeed"
        item = items.get(pid, {"question_type": "x"}) | {"pid": pid}
        item |= {key: row[key] for key in ("task", "skills")}
        subset = evaluate.benchmark_named("MathVista").category(item)
        if pid in items:
            said = reply if prefetched else "?"
            found = evaluate.grade_prediction(
                "MathVista", said, item, lambda prompt, heat, reply=reply: reply
            )
            marks.append(evaluate.item_result("MathVista", item, said, found))
        else:  # a part of the golden files: which items hit follows from the table itself
            path = GradedBy.rule if prefetched else GradedBy.judge
            marks.append(mark(pid, subset, float(pid not in ("8", "506")), path))
    table = breakdown("MathVista", marks)["tasks and skills"]
    wanted = case["expected_metrics"]
    assert table.keys() == wanted.keys()
    for name, row in wanted.items():
        own = table[name]
        assert (own["n"], own["by_rule"], own["right"]) == (
            row["tot"],
            row["prefetch"],
            row["hit"],
        )
        assert math.isclose(100 * score(own), row["acc"], abs_tol=1e-5)


def test_the_ocrbench_table_agrees_with_the_recorded_one_group_by_group() -> None:
    case = aggregate_case("ocrbench")
    marks = []
    for row in case["items"]:
        found = evaluate.grade_prediction("OCRBench", row["prediction"], row["item"])
        marks.append(evaluate.item_result("OCRBench", row["item"], row["prediction"], found))
    table = breakdown("OCRBench", marks)["groups"]
    wanted = dict(case["expected_metrics"])
    assert table["Final Score"]["norm"] == wanted.pop("Final Score Norm")
    assert {name: row["right"] for name, row in table.items()} == wanted


def test_the_mmmu_table_agrees_with_the_recorded_one_split_by_split() -> None:
    case = aggregate_case("mmmu")
    kind = evaluate.benchmark_named("MMMU")
    marks = [
        mark(kind.item_id(row), kind.category(row), float(row["hit"])) for row in case["items"]
    ]
    found = breakdown("MMMU", marks)
    for split, wanted in case["expected_metrics"].items():
        for name, value in wanted.items():
            assert (name in found[split]) == (value is not None)
            if value is not None:
                assert math.isclose(score(found[split][name]), value)


def test_the_mmstar_table_agrees_with_the_recorded_one() -> None:
    case = aggregate_case("mmstar")
    marks = [mark(str(row["index"]), row["category"], float(row["hit"])) for row in case["items"]]
    table = breakdown("MMStar", marks)["capabilities"]
    for name, value in case["expected_metrics"].items():
        assert math.isclose(score(table[name]), value)


AGGREGATED = ("ocrbench", "hallusionbench", "mmmu", "mmstar")


@pytest.mark.parametrize("name", AGGREGATED)
def test_aggregate_gives_the_recorded_figures_as_fractions(name: str) -> None:
    case = aggregate_case(name)
    expected: dict[str, float] = {}
    for key, value in case["expected_metrics"].items():
        for inner, figure in value.items() if isinstance(value, dict) else [("", value)]:
            if name == "hallusionbench":
                expected[inner if key == "Overall" else f"{key} {inner}"] = figure / 100
            elif figure is not None:
                label = inner or key
                expected[f"dev {label}" if key == "dev" else label] = figure
    found = evaluate.aggregate(case["benchmark"], case["items"])
    assert found.keys() >= expected.keys()
    for key, figure in expected.items():
        assert found[key] == pytest.approx(figure, abs=1e-6)


def test_aggregate_takes_items_with_scores_and_leaves_out_what_has_none() -> None:
    case = aggregate_case("mathvista")
    table = case["expected_metrics"]
    rows = [
        {"item": row | {"question_type": "x"}, "score": float(row["pid"] not in (8, 506))}
        for row in case["items"]
    ]
    rows.append({"item": rows[0]["item"], "score": None})
    found = evaluate.aggregate("MathVista", rows)
    assert found.keys() == table.keys()
    for name, row in table.items():
        assert found[name] == pytest.approx(row["acc"] / 100)
    vet = [
        {"item": {"index": i, "category": category}, "score": score}
        for i, (category, score) in enumerate((("rec,ocr", 0.5), ("rec", 1.0)))
    ]
    assert evaluate.aggregate("MMVet", vet) == {"Overall": 0.75, "ocr": 0.5, "rec": 0.75}
