"""Expected grades of invented items of all six benchmarks, under the rules of two dates.

The rules are those of the reference harness (VLMEvalKit) in November 2025 and in August 2026.
"""

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

# The prefixes mean: MV MathVista; VET MM-Vet; READING and FORMULA OCRBench; YES_NO HallusionBench;
# MMMU, CHOICE and OPEN MMMU; STAR MMStar.
MV_CHOICES = {
    "question_type": "multi_choice",
    "answer_type": "text",
    "choices": ["4 m", "6 m", "9 m"],
}
MV_CHOICE_ITEM = {
    "pid": "1",
    "query": "How far?",
    "answer": "6 m",
    "answer_option": "B",
    **MV_CHOICES,
}
MV_INTEGER_ITEM = {
    "pid": "2",
    "query": "How many?",
    "question_type": "free_form",
    "answer_type": "integer",
    "choices": None,
    "answer": "12",
}
MV_ZERO_ITEM = {**MV_INTEGER_ITEM, "pid": "3", "answer": "0"}
MV_FLOAT_ITEM = {
    **MV_INTEGER_ITEM,
    "pid": "4",
    "answer_type": "float",
    "precision": 1.0,
    "answer": "1.5",
}
MV_LIST_ITEM = {**MV_INTEGER_ITEM, "pid": "5", "answer_type": "list", "answer": "[3, 4]"}
VET_ITEM = {
    "index": 1,
    "question": "What is it?",
    "answer": "a cat<AND>a hat",
    "category": "rec,know",
}
READING_ITEM = {
    "index": 1,
    "question": "what?",
    "answer": ["Grand Hotel"],
    "category": "Doc-oriented VQA",
}
FORMULA_ITEM = {**READING_ITEM, "answer": ["x _ { 1 } = 2"]}
FORMULA_ITEM["category"] = "Handwritten Mathematical Expression Recognition"
YES_NO_ITEM = {
    "index": "a_VS_map_1_0_2",
    "category": "VS",
    "l2-category": "VS_map",
    "question": "Is it so?",
    "answer": "No",
}
MMMU_COLUMNS = {"id": "validation_Art_1", "question": "<image 1>?", "split": "validation"}
CHOICE_ITEM = {**MMMU_COLUMNS, "A": "oil", "B": "ink", "C": "oil and ink", "answer": "B"}
OPEN_ITEM = {**MMMU_COLUMNS, "answer": "8.4"}
STAR_ITEM = {
    "index": 1,
    "question": "What?",
    "A": "A red kite.",
    "B": "A blue kite.",
    "C": "A green kite.",
    "D": "A drum.",
    "answer": "C",
    "category": "math",
}
# Only the rules of 2026-08 match `answer is **C**`.
ANSWER_IS = "The correct answer is **C**. The kite is clearly of a green hue, unlike all the others"
# The rules of both dates ignore a lone letter far from the end.
LETTER_FIRST = "C. because the kite that one sees in it is green, without any doubt at all, I think"

WRONG, RIGHT = (0.0, 0.0), (1.0, 1.0)
CASES = [
    # benchmark, item, prediction, the judge's replies, scores by (2025-11, 2026-08), graded_by
    # graded_by is None if neither a rule nor the judge decides (the score is then 0), and "any" if
    # it is not compared.
    ("MathVista", MV_CHOICE_ITEM, "B", [], RIGHT, "rule"),
    ("MathVista", MV_CHOICE_ITEM, "(B) 6 m", [], RIGHT, "rule"),
    ("MathVista", MV_CHOICE_ITEM, "16 m", [], RIGHT, "rule"),  # contains "6 m"
    ("MathVista", MV_CHOICE_ITEM, "9 m", [], WRONG, "rule"),
    ("MathVista", MV_CHOICE_ITEM, "Cannot determine the answer", [], WRONG, "rule"),
    ("MathVista", MV_CHOICE_ITEM, "The distance is 6 m, I am sure", ["B"], RIGHT, "judge"),
    ("MathVista", MV_INTEGER_ITEM, "12", [], RIGHT, "rule"),
    ("MathVista", MV_INTEGER_ITEM, "１２", [], RIGHT, "rule"),  # int() reads full-width digits
    ("MathVista", MV_INTEGER_ITEM, "a dozen", ["12"], RIGHT, "judge"),
    ("MathVista", MV_INTEGER_ITEM, "a dozen", ["12.0"], WRONG, "judge"),
    ("MathVista", MV_INTEGER_ITEM, "13", ["13"], WRONG, "judge"),
    ("MathVista", MV_INTEGER_ITEM, "12 or so", [], WRONG, None),
    ("MathVista", MV_ZERO_ITEM, "0", ["0"], RIGHT, "judge"),  # no rule accepts a 0
    ("MathVista", MV_ZERO_ITEM, "0", [], WRONG, None),
    ("MathVista", MV_FLOAT_ITEM, "15e-1", [], RIGHT, "rule"),
    ("MathVista", MV_FLOAT_ITEM, "1.54", ["1.54"], WRONG, "judge"),  # nothing is rounded
    ("MathVista", MV_LIST_ITEM, "[3, 4]", ["[3, 4]"], WRONG, "judge"),
    ("MathVista", MV_INTEGER_ITEM, "?", ["Failed to obtain answer via API."], WRONG, None),
    ("MMVet", VET_ITEM, "a cat in a hat", ["1.0"], RIGHT, "judge"),
    ("MMVet", VET_ITEM, "a cat", [" 0.5\n"], (0.5, 0.5), "judge"),
    ("MMVet", VET_ITEM, "a cat", ["half", "0.5 |", ".5"], (0.5, 0.5), "judge"),
    ("MMVet", VET_ITEM, "a cat", ["1.5", "-1", "2", "x", ""], WRONG, None),
    ("MMVet", VET_ITEM, "a cat", [], WRONG, None),
    ("OCRBench", READING_ITEM, "It is the GRAND hotel", [], RIGHT, "rule"),
    ("OCRBench", READING_ITEM, "grand\nhotel", [], RIGHT, "rule"),
    ("OCRBench", READING_ITEM, "grand  hotel", [], WRONG, "rule"),
    ("OCRBench", READING_ITEM, "nan", [], WRONG, "rule"),
    ("OCRBench", FORMULA_ITEM, "$x_{1}=2$", [], RIGHT, "rule"),
    ("OCRBench", FORMULA_ITEM, "X_{1}=2", [], WRONG, "rule"),
    ("OCRBench", FORMULA_ITEM, "x_{1}=25", [], RIGHT, "rule"),  # contains x_{1}=2
    ("HallusionBench", YES_NO_ITEM, "No.", [], RIGHT, "rule"),
    ("HallusionBench", YES_NO_ITEM, "There is no such city.", [], RIGHT, "rule"),  # has "no"
    ("HallusionBench", YES_NO_ITEM, "Yes", [], WRONG, "rule"),
    ("HallusionBench", YES_NO_ITEM, "<answer>No</answer>", [], RIGHT, "rule"),
    ("HallusionBench", YES_NO_ITEM, "**No**", [], WRONG, None),
    ("HallusionBench", YES_NO_ITEM, "It is not.", ["Unknown", "No"], RIGHT, "judge"),
    ("HallusionBench", YES_NO_ITEM, "It is not.", ["Unknown"], WRONG, None),
    ("MMMU", CHOICE_ITEM, "(B)", [], RIGHT, "rule"),
    ("MMMU", CHOICE_ITEM, "ink", [], RIGHT, "rule"),
    ("MMMU", CHOICE_ITEM, "oil and ink", [], WRONG, None),  # contains the texts of all options
    ("MMMU", CHOICE_ITEM, "It is drawn, I believe", ["B"], RIGHT, "judge"),
    ("MMMU", CHOICE_ITEM, "It is drawn, I believe", ["?"], WRONG, None),
    # An open item has the options A, its gold answer (8.4), and B, "Other Answers".
    ("MMMU", OPEN_ITEM, "18.42", [], RIGHT, "rule"),  # contains 8.4
    ("MMMU", OPEN_ITEM, "9.1 A", [], RIGHT, "rule"),  # has the letter A
    ("MMMU", OPEN_ITEM, "8.39", ["B"], WRONG, "judge"),
    ("MMMU", {**OPEN_ITEM, "answer": "C"}, "C", [], WRONG, "rule"),
    ("MMStar", STAR_ITEM, "C", [], RIGHT, "rule"),
    ("MMStar", STAR_ITEM, "a green kite.", [], RIGHT, "rule"),
    ("MMStar", STAR_ITEM, "a green kite", [], WRONG, None),
    ("MMStar", STAR_ITEM, "<think>maybe B</think> C", [], RIGHT, "rule"),
    ("MMStar", STAR_ITEM, "<answer>C</answer>", [], WRONG, None),
    ("MMStar", STAR_ITEM, ANSWER_IS, [], (0.0, 1.0), "any"),
    ("MMStar", STAR_ITEM, LETTER_FIRST, [], WRONG, None),
    ("MMStar", STAR_ITEM, LETTER_FIRST, ["C"], RIGHT, "judge"),
]


def scripted_judge(replies: list[str]) -> Callable[[str, float], str] | None:
    """A judge that gives these replies in turn, and the last one from then on; None without any."""
    remaining = list(replies)
    if not replies:
        return None
    return lambda prompt, temperature: remaining.pop(0) if len(remaining) > 1 else remaining[0]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}: {case[2][:24]} {case[3]}")
def test_an_item_is_graded_as_expected_by_the_rules_of_two_dates(case: tuple) -> None:
    benchmark, item, prediction, replies, expected, graded_by = case
    for date, score in zip(("2025-11", "2026-08"), expected, strict=True):
        graded = evaluate.grade_prediction(
            benchmark, prediction, item, scripted_judge(replies), date
        )
        assert graded.score == score, date
        assert graded_by in ("any", graded.graded_by)
        assert (
            evaluate.score_item(benchmark, prediction, item, scripted_judge(replies), date) == score
        )


def overridden_rules(**changes: Any) -> HarnessRules:
    """The rules of 2026-08 with these harness overrides."""
    config = EvaluateConfig(rules="2026-08", harness_overrides=HarnessOverrides(**changes))
    return configured_rules(config)


OVERRIDES = [
    # setting in evaluate.harness_overrides, benchmark, item, prediction, the judge's replies, score
    # without and with the override
    # A rule accepts a correct 0.
    ({"zero": True}, "MathVista", MV_ZERO_ITEM, "0", ["5"], 0.0, 1.0),
    # An answer that is a list can be correct.
    ({"list_items": True}, "MathVista", MV_LIST_ITEM, "so", ["[3, 4]"], 0.0, 1.0),
    ({"list_items": True}, "MathVista", MV_LIST_ITEM, "so", ["[3, 5]"], 0.0, 0.0),
    ({"list_items": True}, "MathVista", MV_LIST_ITEM, "so", ["[3, 4"], 0.0, 0.0),
    ({"list_items": True}, "MathVista", MV_LIST_ITEM, "so", ["[" * 50_000], 0.0, 0.0),
    # The answer to an open question is its option A. A is correct even if that answer is a letter.
    ({"letter_golds": True}, "MMMU", {**OPEN_ITEM, "answer": "C"}, "C", [], 0.0, 1.0),
    # After `answer is`, only a whole word is a letter: `clearly` is not C.
    ({"whole_letter": True}, "MMStar", STAR_ITEM, "My answer is clearly all I say", [], 1.0, 0.0),
    # All periods are removed before `no` is looked for, not only the first 32.
    ({"all_periods": True}, "HallusionBench", YES_NO_ITEM, "a. " * 32 + "no.", [], 0.0, 1.0),
]


@pytest.mark.parametrize("case", OVERRIDES, ids=lambda case: f"{[*case[0]]} {case[4]}"[:40])
def test_an_override_changes_the_score_and_is_off_by_default(case: tuple) -> None:
    changes, benchmark, item, prediction, replies, reference, overridden = case
    for rules, expected in (
        ("2026-08", reference),
        (overridden_rules(), reference),
        (overridden_rules(**changes), overridden),
    ):
        judge = scripted_judge(replies)
        assert evaluate.score_item(benchmark, prediction, item, judge, rules) == expected


@pytest.mark.parametrize("benchmark", ["MMMU", "MMStar"])
def test_an_item_that_no_rule_or_judge_decides_gets_a_random_option_with_fallback_random(
    benchmark: str,
) -> None:
    items = [{**STAR_ITEM, "index": i, "id": f"validation_Art_{i}"} for i in range(200)]
    judge = scripted_judge(["who knows"])  # no usable reply
    undecided = [
        evaluate.grade_prediction(benchmark, "hm", item, judge, overridden_rules())
        for item in items
    ]
    assert {(grade.score, grade.graded_by) for grade in undecided} == {(0.0, None)}
    rules = overridden_rules(fallback=Fallback.random)
    drawn = [evaluate.grade_prediction(benchmark, "hm", item, judge, rules) for item in items]
    assert drawn == [  # the same options again
        evaluate.grade_prediction(benchmark, "hm", item, judge, rules) for item in items
    ]
    assert {grade.extracted for grade in drawn} == set(
        "ABCDZ"
    )  # the harness also draws Z, which is no option
    assert {grade.graded_by for grade in drawn} == {None}
    rows = [
        evaluate.item_result(benchmark, item, "hm", grade)
        for item, grade in zip(items, drawn, strict=True)
    ]
    rows.append(evaluate.item_result(benchmark, items[0], "hm", undecided[0]))
    counts = outcomes(rows)
    assert (counts["drawn"], counts["undecided"], counts["judge"]) == (200, 1, 0)
    # About a fifth of 200: one of the five letters is correct.
    assert 20 < sum(grade.score or 0 for grade in drawn) < 60
    without_judge = evaluate.grade_prediction(benchmark, "hm", items[0], None, rules)
    assert without_judge.graded_by is None


HOSTILE_PREDICTIONS = {
    "empty": "",
    "None": "None",
    "nan": "nan",
    "100 kB": "word " * 20_000,
    "100 kB of letters": "A B " * 25_000,
    "pipes": "a | b | 1.0 | \n| --- |\n" * 50,
    "newlines": "\n" * 500,
    "nothing printable": "\x00\x07\ufffe\u202e",
    "half a surrogate pair": "\ud800",
    "brackets": "{" * 5_000 + "[" * 5_000,
    "the harness's text for a failed call": "Failed to obtain answer via API.",
}
ITEMS = {
    "MathVista": MV_CHOICE_ITEM,
    "MMVet": VET_ITEM,
    "OCRBench": READING_ITEM,
    "HallusionBench": YES_NO_ITEM,
    "MMMU": CHOICE_ITEM,
    "MMStar": STAR_ITEM,
}


@pytest.mark.parametrize("date", ["2025-11", "2026-08"])
@pytest.mark.parametrize("name", ITEMS)
@pytest.mark.parametrize("prediction", HOSTILE_PREDICTIONS.values(), ids=HOSTILE_PREDICTIONS.keys())
def test_a_hostile_prediction_scores_0_without_an_error(
    name: str, prediction: str, date: str
) -> None:
    graded = evaluate.grade_prediction(name, prediction, ITEMS[name], None, date)
    assert graded.score == 0.0
    assert graded.graded_by in (GradedBy.rule, None)
    config = EvaluateConfig(rules=date)
    assert (
        evaluate.grade_prediction(
            name, prediction, ITEMS[name], None, configured_rules(config)
        ).score
        == 0.0
    )


def test_an_evaluation_grades_a_prediction_that_pandas_reads_as_missing_as_nan() -> None:
    item = {**STAR_ITEM, "A": "n", "B": "x", "C": "y", "D": "z", "answer": "A"}
    rules = configured_rules(EvaluateConfig())
    for prediction in ("", "None", "NA", "null"):
        assert (
            evaluate.grade_prediction("MMStar", prediction, item, None, rules).extracted == "A"
        )  # "nan" contains option A, "n"
        without_nan = replace(rules, texts_become_nan=False)
        assert evaluate.grade_prediction("MMStar", "", item, None, without_nan).extracted is None
    # The override kept_texts: a text such as "NA" stays a text.
    assert not configured_rules(
        EvaluateConfig(harness_overrides=HarnessOverrides(kept_texts=True))
    ).texts_become_nan


def test_an_option_with_the_text_nan_is_kept_and_an_option_that_is_the_float_nan_is_not() -> None:
    item = {**STAR_ITEM, "B": "nan", "answer": "B"}
    assert evaluate.score_item("MMStar", "B", item) == 1.0
    assert "B. nan\n" in evaluate.build_prompt("MMStar", {**item, "image": b"x"})[-1]["value"]
    without_b = {**STAR_ITEM, "B": float("nan")}
    assert evaluate.score_item("MMStar", "C", without_b) == 1.0
    assert "B. " not in evaluate.build_prompt("MMStar", {**without_b, "image": b"x"})[-1]["value"]


@pytest.mark.parametrize("status", [ResponseStatus.skipped, ResponseStatus.failed])
@pytest.mark.parametrize("name", ITEMS)
def test_the_result_of_an_item_without_a_response_has_an_error_and_no_score(
    name: str, status: ResponseStatus, tmp_path: Path
) -> None:
    config = EvaluateConfig(judge=JudgeKind.shapes)  # a stub that needs no server
    stored = StoredResponse(
        benchmark=name,
        item_id="1",
        prompt_hash="x",
        response=None,
        status=status,
        error="no image: the cell is empty",
    )
    judge_client = JudgeClient(config.judge, config.judge_client, tmp_path)
    result = grade_response(BenchmarkItem(name, ITEMS[name]), stored, config, judge_client)
    assert (result.score, result.graded_by, result.response) == (None, None, None)
    assert result.status is ItemStatus(status.value)
    assert result.error == "no image: the cell is empty"
