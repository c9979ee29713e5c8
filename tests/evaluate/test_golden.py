"""The scorers agree with the reference harness's on every recorded case, at each date."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from difftrain import evaluate
from difftrain.evaluate import hallusionbench, mmvet, scoring
from difftrain.records import MarkPath

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden"
COMMITS = {"2025-07": "44d698f8", "2025-11": "19c0e386", "2026-08": "e8e78f05"}
pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason="golden files are not here")

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
    graded = scoring.mark(*args)
    if graded.path is MarkPath.failed:
        assert case.get("extracted") in (None, "", "Z", "Unknown")
        return
    assert graded.path == case["path"]
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
        assert math.isclose(100 * getattr(found, name), table[name], abs_tol=1e-4)
