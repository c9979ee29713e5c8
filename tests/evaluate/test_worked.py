"""Worked cases of all six benchmarks under both rule versions, on items made up here."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from difftrain import evaluate
from difftrain.config.evaluate import EvaluateConfig, Fallback, HarnessOverrides
from difftrain.config.judge import JudgeKind
from difftrain.evaluate.generate import ResponseStatus, StoredResponse
from difftrain.evaluate.grade import grade_response
from difftrain.evaluate.harness import HarnessRules, configured_rules
from difftrain.evaluate.judge import JudgeClient
from difftrain.evaluate.loading import BenchmarkItem
from difftrain.evaluate.write_results import outcomes
from difftrain.records import GradedBy, ItemStatus

CHOICE = {"question_type": "multi_choice", "answer_type": "text", "choices": ["4 m", "6 m", "9 m"]}
MV_CHOICE = {"pid": "1", "query": "How far?", "answer": "6 m", "answer_option": "B", **CHOICE}
MV_INT = {
    "pid": "2",
    "query": "How many?",
    "question_type": "free_form",
    "answer_type": "integer",
    "choices": None,
    "answer": "12",
}
MV_ZERO = {**MV_INT, "pid": "3", "answer": "0"}
MV_FLOAT = {**MV_INT, "pid": "4", "answer_type": "float", "precision": 1.0, "answer": "1.5"}
MV_LIST = {**MV_INT, "pid": "5", "answer_type": "list", "answer": "[3, 4]"}
VET = {"index": 1, "question": "What is it?", "answer": "a cat<AND>a hat", "category": "rec,know"}
READ = {"index": 1, "question": "what?", "answer": ["Grand Hotel"], "category": "Doc-oriented VQA"}
FORMULA = {**READ, "answer": ["x _ { 1 } = 2"]}
FORMULA["category"] = "Handwritten Mathematical Expression Recognition"
ASK = {
    "index": "a_VS_map_1_0_2",
    "category": "VS",
    "l2-category": "VS_map",
    "question": "Is it so?",
    "answer": "No",
}
SUBJECT = {"id": "validation_Art_1", "question": "<image 1>?", "split": "validation"}
MC = {**SUBJECT, "A": "oil", "B": "ink", "C": "oil and ink", "answer": "B"}
OPEN = {**SUBJECT, "answer": "8.4"}
STAR = {
    "index": 1,
    "question": "What?",
    "A": "A red kite.",
    "B": "A blue kite.",
    "C": "A green kite.",
    "D": "A drum.",
    "answer": "C",
    "category": "math",
}
ANSWER_IS = "The correct answer is **C**. The kite is clearly of a green hue, unlike all the others"
LETTER_FIRST = "C. because the kite that one sees in it is green, without any doubt at all, I think"

BOTH = (0.0, 0.0), (1.0, 1.0)
NO, YES = BOTH
CASES = [
    # benchmark, item, prediction, the judge's replies, (2025-11, 2026-08), graded_by
    ("MathVista", MV_CHOICE, "B", [], YES, "rule"),
    ("MathVista", MV_CHOICE, "(B) 6 m", [], YES, "rule"),
    ("MathVista", MV_CHOICE, "16 m", [], YES, "rule"),  # contains "6 m"
    ("MathVista", MV_CHOICE, "9 m", [], NO, "rule"),
    ("MathVista", MV_CHOICE, "Cannot determine the answer", [], NO, "rule"),
    ("MathVista", MV_CHOICE, "The distance is 6 m, I am sure", ["B"], YES, "judge"),
    ("MathVista", MV_INT, "12", [], YES, "rule"),
    ("MathVista", MV_INT, "１２", [], YES, "rule"),  # full-width digits are int's too
    ("MathVista", MV_INT, "a dozen", ["12"], YES, "judge"),
    ("MathVista", MV_INT, "a dozen", ["12.0"], NO, "judge"),
    ("MathVista", MV_INT, "13", ["13"], NO, "judge"),
    ("MathVista", MV_INT, "12 or so", [], NO, None),
    ("MathVista", MV_ZERO, "0", ["0"], YES, "judge"),
    ("MathVista", MV_ZERO, "0", [], NO, None),
    ("MathVista", MV_FLOAT, "15e-1", [], YES, "rule"),
    ("MathVista", MV_FLOAT, "1.54", ["1.54"], NO, "judge"),  # nothing is rounded
    ("MathVista", MV_LIST, "[3, 4]", ["[3, 4]"], NO, "judge"),
    ("MathVista", MV_INT, "?", ["Failed to obtain answer via API."], NO, None),
    ("MMVet", VET, "a cat in a hat", ["1.0"], YES, "judge"),
    ("MMVet", VET, "a cat", [" 0.5\n"], (0.5, 0.5), "judge"),
    ("MMVet", VET, "a cat", ["half", "0.5 |", ".5"], (0.5, 0.5), "judge"),
    ("MMVet", VET, "a cat", ["1.5", "-1", "2", "x", ""], NO, None),
    ("MMVet", VET, "a cat", [], NO, None),
    ("OCRBench", READ, "It is the GRAND hotel", [], YES, "rule"),
    ("OCRBench", READ, "grand\nhotel", [], YES, "rule"),
    ("OCRBench", READ, "grand  hotel", [], NO, "rule"),
    ("OCRBench", READ, "nan", [], NO, "rule"),
    ("OCRBench", FORMULA, "$x_{1}=2$", [], YES, "rule"),
    ("OCRBench", FORMULA, "X_{1}=2", [], NO, "rule"),
    ("OCRBench", FORMULA, "x_{1}=25", [], YES, "rule"),
    ("HallusionBench", ASK, "No.", [], YES, "rule"),
    ("HallusionBench", ASK, "There is no such city.", [], YES, "rule"),
    ("HallusionBench", ASK, "Yes", [], NO, "rule"),
    ("HallusionBench", ASK, "<answer>No</answer>", [], YES, "rule"),
    ("HallusionBench", ASK, "**No**", [], NO, None),
    ("HallusionBench", ASK, "It is not.", ["Unknown", "No"], YES, "judge"),
    ("HallusionBench", ASK, "It is not.", ["Unknown"], NO, None),
    ("MMMU", MC, "(B)", [], YES, "rule"),
    ("MMMU", MC, "ink", [], YES, "rule"),
    ("MMMU", MC, "oil and ink", [], NO, None),  # three texts are in it
    ("MMMU", MC, "It is drawn, I believe", ["B"], YES, "judge"),
    ("MMMU", MC, "It is drawn, I believe", ["?"], NO, None),
    ("MMMU", OPEN, "18.42", [], YES, "rule"),
    ("MMMU", OPEN, "9.1 A", [], YES, "rule"),
    ("MMMU", OPEN, "8.39", ["B"], NO, "judge"),
    ("MMMU", {**OPEN, "answer": "C"}, "C", [], NO, "rule"),
    ("MMStar", STAR, "C", [], YES, "rule"),
    ("MMStar", STAR, "a green kite.", [], YES, "rule"),
    ("MMStar", STAR, "a green kite", [], NO, None),
    ("MMStar", STAR, "<think>maybe B</think> C", [], YES, "rule"),
    ("MMStar", STAR, "<answer>C</answer>", [], NO, None),
    ("MMStar", STAR, ANSWER_IS, [], (0.0, 1.0), "any"),
    ("MMStar", STAR, LETTER_FIRST, [], NO, None),
    ("MMStar", STAR, LETTER_FIRST, ["C"], YES, "judge"),
]


def replying(replies: list[str]) -> Callable[[str, float], str] | None:
    left = list(replies)
    return (lambda prompt, heat: left.pop(0) if len(left) > 1 else left[0]) if replies else None


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}: {case[2][:24]} {case[3]}")
def test_a_worked_case_scores_as_the_rules_say(case: tuple) -> None:
    benchmark, item, prediction, replies, expected, path = case
    for date, score in zip(("2025-11", "2026-08"), expected, strict=True):
        graded = evaluate.grade_prediction(benchmark, prediction, item, replying(replies), date)
        assert (date, graded.score) == (date, score)
        assert path in ("any", graded.graded_by)
        assert evaluate.score_item(benchmark, prediction, item, replying(replies), date) == score


def overriding(**changes: Any) -> HarnessRules:
    config = EvaluateConfig(rules="2026-08", harness_overrides=HarnessOverrides(**changes))
    return configured_rules(config)


OVERRIDES = [
    # override, benchmark, item, prediction, replies, score as the reference, score with it
    ({"zero": True}, "MathVista", MV_ZERO, "0", ["5"], 0.0, 1.0),
    ({"list_items": True}, "MathVista", MV_LIST, "so", ["[3, 4]"], 0.0, 1.0),
    ({"list_items": True}, "MathVista", MV_LIST, "so", ["[3, 5]"], 0.0, 0.0),
    ({"list_items": True}, "MathVista", MV_LIST, "so", ["[3, 4"], 0.0, 0.0),
    ({"list_items": True}, "MathVista", MV_LIST, "so", ["[" * 50_000], 0.0, 0.0),
    ({"letter_golds": True}, "MMMU", {**OPEN, "answer": "C"}, "C", [], 0.0, 1.0),
    ({"whole_letter": True}, "MMStar", STAR, "My answer is clearly all I say", [], 1.0, 0.0),
    ({"all_periods": True}, "HallusionBench", ASK, "a. " * 32 + "no.", [], 0.0, 1.0),
]


@pytest.mark.parametrize("case", OVERRIDES, ids=lambda case: f"{[*case[0]]} {case[4]}"[:40])
def test_an_override_changes_its_case_and_is_off_by_default(case: tuple) -> None:
    changes, benchmark, item, prediction, replies, reference, overridden = case
    usual = evaluate.grade_prediction(benchmark, prediction, item, replying(replies), overriding())
    assert (
        usual.score
        == evaluate.grade_prediction(
            benchmark, prediction, item, replying(replies), "2026-08"
        ).score
    )
    assert usual.score == reference
    graded = evaluate.grade_prediction(
        benchmark, prediction, item, replying(replies), overriding(**changes)
    )
    assert graded.score == overridden


@pytest.mark.parametrize("benchmark", ["MMMU", "MMStar"])
def test_the_references_guess_is_wrong_and_undecided_unless_it_is_needed(benchmark: str) -> None:
    items = [{**STAR, "index": place, "id": f"validation_Art_{place}"} for place in range(200)]
    useless = replying(["who knows"])
    usual = [
        evaluate.grade_prediction(benchmark, "hm", item, useless, overriding()) for item in items
    ]
    assert {(grade.score, grade.graded_by) for grade in usual} == {(0.0, None)}
    drawing = overriding(fallback=Fallback.random)
    drawn = [evaluate.grade_prediction(benchmark, "hm", item, useless, drawing) for item in items]
    assert drawn == [
        evaluate.grade_prediction(benchmark, "hm", item, useless, drawing) for item in items
    ]
    assert {grade.extracted for grade in drawn} == set("ABCDZ")
    assert {grade.graded_by for grade in drawn} == {None}
    rows = [
        evaluate.item_result(benchmark, item, "hm", grade)
        for item, grade in zip(items, drawn, strict=True)
    ]
    rows.append(evaluate.item_result(benchmark, items[0], "hm", usual[0]))
    counted = outcomes(rows)
    assert (counted["drawn"], counted["undecided"], counted["judge"]) == (200, 1, 0)
    assert 20 < sum(grade.score or 0 for grade in drawn) < 60  # one in five of 200
    without_judge = evaluate.grade_prediction(benchmark, "hm", items[0], None, drawing)
    assert without_judge.graded_by is None


HOSTILE = {
    "empty": "",
    "None": "None",
    "nan": "nan",
    "100 kB": "word " * 20_000,
    "100 kB of letters": "A B " * 25_000,
    "pipes": "a | b | 1.0 | \n| --- |\n" * 50,
    "newlines": "\n" * 500,
    "nothing printable": "\x00\x07\ufffe\u202e",
    "half a pair": "\ud800",
    "brackets": "{" * 5_000 + "[" * 5_000,
    "the harness's failure": "Failed to obtain answer via API.",
}
ALL_SIX = {
    "MathVista": MV_CHOICE,
    "MMVet": VET,
    "OCRBench": READ,
    "HallusionBench": ASK,
    "MMMU": MC,
    "MMStar": STAR,
}


@pytest.mark.parametrize("rule", ["2025-11", "2026-08"])
@pytest.mark.parametrize("name", ALL_SIX)
@pytest.mark.parametrize("prediction", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_prediction_is_wrong_and_not_a_crash(
    name: str, prediction: str, rule: str
) -> None:
    graded = evaluate.grade_prediction(name, prediction, ALL_SIX[name], None, rule)
    assert graded.score == 0.0
    assert graded.graded_by in (GradedBy.rule, None)
    config = EvaluateConfig(rules=rule)
    assert (
        evaluate.grade_prediction(
            name, prediction, ALL_SIX[name], None, configured_rules(config)
        ).score
        == 0.0
    )


def test_a_lost_text_becomes_the_word_nan_only_in_an_evaluation() -> None:
    item = {**STAR, "A": "n", "B": "x", "C": "y", "D": "z", "answer": "A"}
    through = configured_rules(EvaluateConfig())
    for prediction in ("", "None", "NA", "null"):
        assert (
            evaluate.grade_prediction("MMStar", prediction, item, None, through).extracted == "A"
        )  # "nan" has an n
        kept = replace(through, texts_become_nan=False)
        assert evaluate.grade_prediction("MMStar", "", item, None, kept).extracted is None
    assert not configured_rules(
        EvaluateConfig(harness_overrides=HarnessOverrides(kept_texts=True))
    ).texts_become_nan


def test_an_option_named_nan_can_be_scored_and_asked() -> None:
    item = {**STAR, "B": "nan", "answer": "B"}
    assert evaluate.score_item("MMStar", "B", item) == 1.0
    assert "B. nan\n" in evaluate.build_prompt("MMStar", {**item, "image": b"x"})[-1]["value"]
    gone = {**STAR, "B": float("nan")}
    assert evaluate.score_item("MMStar", "C", gone) == 1.0
    assert "B. " not in evaluate.build_prompt("MMStar", {**gone, "image": b"x"})[-1]["value"]


@pytest.mark.parametrize("status", [ResponseStatus.skipped, ResponseStatus.failed])
@pytest.mark.parametrize("name", ALL_SIX)
def test_an_item_without_a_response_has_no_score_and_says_why(
    name: str, status: ResponseStatus, tmp_path: Path
) -> None:
    config = EvaluateConfig(judge=JudgeKind.shapes)
    stored = StoredResponse(
        benchmark=name,
        item_id="1",
        prompt_hash="x",
        response=None,
        status=status,
        error="no image: the cell is empty",
    )
    judging = JudgeClient(config.judge, config.judge_client, tmp_path)
    result = grade_response(BenchmarkItem(name, ALL_SIX[name]), stored, config, judging)
    assert (result.score, result.graded_by, result.response) == (None, None, None)
    assert result.status is ItemStatus(status.value)
    assert result.error == "no image: the cell is empty"
