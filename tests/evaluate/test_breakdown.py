"""The reference harness's tables, on marks whose totals one can add up by hand."""

import math
from collections.abc import Sequence

import pytest

from difftrain.config.evaluate import EvaluateConfig
from difftrain.evaluate import BENCHMARKS
from difftrain.evaluate.write_results import breakdown, is_limited, outcomes, printed_score
from difftrain.records import GradedBy, ItemResult, ItemStatus


def mark(
    subset: str,
    score: float | None,
    path: GradedBy | None = GradedBy.rule,
    item_id: str = "1",
    extracted: str | None = None,
    response: str | None = "x",
    status: ItemStatus | None = None,
) -> ItemResult:
    return ItemResult(
        benchmark="x",
        item_id=item_id,
        response=response,
        extracted=extracted,
        score=score,
        graded_by=path,
        status=status or (ItemStatus.failed if score is None else ItemStatus.scored),
        category=subset,
    )


def test_mathvista_counts_an_item_in_its_task_and_each_of_its_skills() -> None:
    marks = [
        mark("math word problem,algebraic reasoning,logical reasoning", 1.0),
        mark("math word problem,algebraic reasoning", 0.0, GradedBy.judge),
        mark("figure question answering,logical reasoning", 1.0, GradedBy.judge),
    ]
    table = breakdown("MathVista", marks)["tasks and skills"]
    assert table["Overall"] == {"n": 3, "right": 2.0, "by_rule": 1, "score": 2 / 3}
    assert table["algebraic reasoning"]["score"] == 0.5
    assert table["logical reasoning"]["score"] == 1.0
    assert table["math word problem"]["n"] == 2
    assert len(table) == 5


def test_mmvet_has_capabilities_and_exact_combinations() -> None:
    found = breakdown("MMVet", [mark("rec,ocr", 0.5), mark("rec", 1.0), mark("ocr,rec", 0.0)])
    assert found["capabilities"]["rec"]["score"] == 0.5
    assert found["capabilities"]["ocr"]["n"] == 2
    assert list(found["combinations"]) == ["Overall", "ocr_rec", "rec", "rec_ocr"]


def test_ocrbench_has_five_groups_and_a_final_score_over_ten() -> None:
    marks = [
        mark("Handwriting Recognition", 1.0),
        mark("Digit String Recognition", 1.0),
        mark("Doc-oriented VQA", 1.0),
        mark("Handwritten Mathematical Expression Recognition", 0.0),
    ]
    groups = breakdown("OCRBench", marks)["groups"]
    assert len(groups) == 6
    assert groups["Text Recognition"]["right"] == 2
    assert groups["Scene Text-centric VQA"] == {"n": 0, "right": 0, "by_rule": 0, "score": None}
    assert (groups["Final Score"]["right"], groups["Final Score"]["norm"]) == (3, 0.3)


def test_hallusionbench_has_three_accuracies_for_each_subset_and_category() -> None:
    marks = [
        mark("VD_ocr", 1.0, item_id="VD_ocr/0/0/0"),
        mark("VD_ocr", 0.0, item_id="VD_ocr/0/1/0"),
        mark("VS_ocr", 1.0, item_id="VS_ocr/0/0/0"),  # the same numbers, another figure
    ]
    table = breakdown("HallusionBench", marks)["subsets"]
    assert list(table) == ["Overall", "VD", "VS", "VD_ocr", "VS_ocr"]
    assert table["Overall"]["aAcc"] == table["Overall"]["fAcc"] == 2 / 3
    assert table["Overall"]["qAcc"] == 1 / 2
    assert table["Overall"]["average"] == pytest.approx((2 / 3 + 2 / 3 + 1 / 2) / 3)
    assert (table["VD"]["qAcc"], table["VS"]["qAcc"]) == (0.0, 1.0)


def hallucinations(*scores: float | None) -> list[ItemResult]:
    """Marks of one set: two questions about each of two figures."""
    places = ("0/0", "0/1", "1/0", "1/1")
    paths = [None if score is None else GradedBy.rule for score in scores]
    return [
        mark("VD_ocr", score, path, item_id=f"VD_ocr/0/{place}")
        for place, score, path in zip(places, scores, paths, strict=True)
    ]


def test_a_figure_or_question_with_an_item_without_a_score_is_counted_and_in_no_accuracy() -> None:
    found = breakdown("HallusionBench", hallucinations(1.0, None, 1.0, 0.0))["subsets"]["Overall"]
    assert (found["n"], found["aAcc"]) == (3, 2 / 3)
    assert (found["fAcc"], found["figures_left_out"]) == (0.0, 1)
    assert (found["qAcc"], found["questions_left_out"]) == (1.0, 1)
    none = breakdown("HallusionBench", hallucinations(1.0, None, 1.0, None))["subsets"]["Overall"]
    assert (none["aAcc"], none["fAcc"], none["average"]) == (1.0, None, None)
    assert none["qAcc"] == 1.0  # of the one question that was scored on both figures


def test_under_a_limit_that_takes_figures_apart_there_is_only_aAcc_and_a_word_why() -> None:
    marks = hallucinations(1.0, 0.0, 1.0, 1.0)
    ((title, rows),) = breakdown("HallusionBench", marks, limited=True).items()
    assert "no fAcc, qAcc and average" in title
    assert rows["Overall"] == {"n": 4, "aAcc": 0.75}
    assert "fAcc" in breakdown("HallusionBench", marks)["subsets"]["Overall"]


@pytest.mark.parametrize(
    ("name", "limit", "found", "thinned"),
    [
        ("HallusionBench", None, 951, False),
        ("HallusionBench", 951, 951, False),
        ("HallusionBench", 100, 100, True),
        ("HallusionBench", 100, 60, False),  # a small file of one's own, taken whole
        ("shapes/HallusionBench", 100, 100, False),
    ],
)
def test_a_limit_thins_official_items_only_where_it_leaves_some_out(
    name: str, limit: int | None, found: int, thinned: bool
) -> None:
    assert is_limited(name, found, EvaluateConfig(limit=limit)) is thinned


def test_mmmu_keeps_its_splits_apart_and_lists_subjects_before_disciplines() -> None:
    marks = [
        mark("validation,Business,Finance", 1.0),
        mark("validation,Business,Accounting", 0.0),
        mark("dev,Business,Finance", 1.0),
    ]
    found = breakdown("MMMU", marks)
    assert list(found["validation"]) == ["Overall", "Accounting", "Finance", "Business"]
    assert found["validation"]["Business"]["score"] == 0.5
    assert found["dev"]["Overall"]["score"] == 1.0


def test_mmstar_is_a_mean_over_items_not_over_categories() -> None:
    table = breakdown("shapes/MMStar", [mark("math", 1.0)] * 3 + [mark("coarse perception", 0.0)])
    assert table["capabilities"]["Overall"]["score"] == 0.75


@pytest.mark.parametrize("name", BENCHMARKS)
def test_marks_without_a_score_are_in_no_mean(name: str) -> None:
    none = mark("VD_ocr", None, None, item_id="VD_ocr/0/0/0")
    for table in breakdown(name, [none]).values():
        for row in table.values():
            assert row["n"] == 0
            assert all(value in (None, 0) for value in row.values())


def outcome(marks: Sequence[ItemResult]) -> dict[str, int]:
    return {name: n for name, n in outcomes(marks).items() if n}


def test_every_item_has_exactly_one_outcome() -> None:
    marks = [
        mark("s", 1.0),
        mark("s", 0.5, GradedBy.judge),
        mark("s", 0.0, None, response=" \n"),
        mark("s", 1.0, None, extracted="B"),
        mark("s", None, None),
        mark("s", None, None, response=None, status=ItemStatus.skipped),
        mark("s", None, None, response=None),
    ]
    assert outcome(marks[:1]) == {"rule": 1}
    found = outcomes(marks)
    assert found == {
        **{"rule": 1, "judge": 1, "undecided": 1, "drawn": 1, "judge_failed": 1, "skipped": 1},
        "no_response": 1,
        "empty": 1,
    }
    assert sum(n for name, n in found.items() if name != "empty") == len(marks)


def test_scores_are_printed_as_the_papers_tables_print_them() -> None:
    assert printed_score("MathVista", 0.683) == "68.300"
    assert printed_score("HallusionBench", 654 / 951) == "68.770"
    assert printed_score("MMVet", 105.2 / 218) == "48.257"
    assert printed_score("MMMU", 492 / 900) == "0.547"
    assert printed_score("MMStar", 958 / 1500) == "0.639"
    assert math.isclose(float(printed_score("OCRBench", 0.778)), 77.8)
