"""The results tables and the prediction files of the reference harness (VLMEvalKit)."""

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from difftrain import evaluate
from difftrain.config.evaluate import AnswerTags, EvaluateConfig
from difftrain.evaluate import BENCHMARKS, write_results
from difftrain.evaluate.harness import configured_rules
from difftrain.evaluate.loading import BenchmarkItem
from difftrain.evaluate.write_results import breakdown, is_limited, outcomes, printed_score
from difftrain.records import GradedBy, ItemResult, ItemStatus
from difftrain.shapes import benchmarks as shapes_benchmarks

# Responses that are hard to store in a TSV file or that pandas reads as missing.
RESPONSES = ["B", "None", "a\tb\n| c |\0", '"quoted"', "", "<answer>A</answer>", "word " * 20_000]


def result(
    category: str,
    score: float | None,
    graded_by: GradedBy | None = GradedBy.rule,
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
        graded_by=graded_by,
        status=status or (ItemStatus.failed if score is None else ItemStatus.scored),
        category=category,
    )


def test_mathvista_counts_an_item_in_its_task_and_each_of_its_skills() -> None:
    results = [
        result("math word problem,algebraic reasoning,logical reasoning", 1.0),
        result("math word problem,algebraic reasoning", 0.0, GradedBy.judge),
        result("figure question answering,logical reasoning", 1.0, GradedBy.judge),
    ]
    table = breakdown("MathVista", results)["tasks and skills"]
    assert table["Overall"] == {"n": 3, "right": 2.0, "by_rule": 1, "score": 2 / 3}
    assert table["algebraic reasoning"]["score"] == 0.5
    assert table["logical reasoning"]["score"] == 1.0
    assert table["math word problem"]["n"] == 2
    assert len(table) == 1 + 2 + 2  # Overall, two tasks, two skills


def test_mmvet_has_capabilities_and_exact_combinations() -> None:
    tables = breakdown(
        "MMVet", [result("rec,ocr", 0.5), result("rec", 1.0), result("ocr,rec", 0.0)]
    )
    assert tables["capabilities"]["rec"]["score"] == 0.5
    assert tables["capabilities"]["ocr"]["n"] == 2
    # As in the harness, `rec,ocr` and `ocr,rec` are two combinations.
    assert list(tables["combinations"]) == ["Overall", "ocr_rec", "rec", "rec_ocr"]


def test_ocrbench_has_five_groups_and_the_number_of_right_items_divided_by_ten() -> None:
    results = [
        result("Handwriting Recognition", 1.0),
        result("Digit String Recognition", 1.0),
        result("Doc-oriented VQA", 1.0),
        result("Handwritten Mathematical Expression Recognition", 0.0),
    ]
    groups = breakdown("OCRBench", results)["groups"]
    assert len(groups) == 5 + 1  # five groups, Final Score
    assert groups["Text Recognition"]["right"] == 2
    assert groups["Scene Text-centric VQA"] == {"n": 0, "right": 0, "by_rule": 0, "score": None}
    assert (groups["Final Score"]["right"], groups["Final Score"]["norm"]) == (3, 0.3)


def test_hallusionbench_has_three_accuracies_for_each_subset_and_category() -> None:
    results = [
        result("VD_ocr", 1.0, item_id="VD_ocr/0/0/0"),
        result("VD_ocr", 0.0, item_id="VD_ocr/0/1/0"),
        result("VS_ocr", 1.0, item_id="VS_ocr/0/0/0"),  # another figure: VS instead of VD
    ]
    # aAcc: share of right items; fAcc: of figures, qAcc: of questions with only right items
    table = breakdown("HallusionBench", results)["subsets"]
    assert list(table) == ["Overall", "VD", "VS", "VD_ocr", "VS_ocr"]
    assert table["Overall"]["aAcc"] == table["Overall"]["fAcc"] == 2 / 3
    assert table["Overall"]["qAcc"] == 1 / 2
    assert table["Overall"]["average"] == pytest.approx((2 / 3 + 2 / 3 + 1 / 2) / 3)
    assert (table["VD"]["qAcc"], table["VS"]["qAcc"]) == (0.0, 1.0)


def hallusion_results(*scores: float | None) -> list[ItemResult]:
    """Results of four items: two questions on each of two figures."""
    figures_and_questions = ("0/0", "0/1", "1/0", "1/1")
    graders = [None if score is None else GradedBy.rule for score in scores]
    return [
        result("VD_ocr", score, graded_by, item_id=f"VD_ocr/0/{ids}")
        for ids, score, graded_by in zip(figures_and_questions, scores, graders, strict=True)
    ]


def test_a_figure_or_question_with_an_unscored_item_is_counted_but_in_no_accuracy() -> None:
    tables = breakdown("HallusionBench", hallusion_results(1.0, None, 1.0, 0.0))
    row = tables["subsets"]["Overall"]
    assert (row["n"], row["aAcc"]) == (3, 2 / 3)
    assert (row["fAcc"], row["figures_left_out"]) == (0.0, 1)
    assert (row["qAcc"], row["questions_left_out"]) == (1.0, 1)
    tables = breakdown("HallusionBench", hallusion_results(1.0, None, 1.0, None))
    row = tables["subsets"]["Overall"]
    assert (row["aAcc"], row["fAcc"], row["average"]) == (1.0, None, None)
    assert row["qAcc"] == 1.0  # question 0, which has scores on both figures


def test_if_evaluate_limit_left_items_out_there_is_only_aAcc_and_the_title_says_why() -> None:
    results = hallusion_results(1.0, 0.0, 1.0, 1.0)
    ((title, rows),) = breakdown("HallusionBench", results, limited=True).items()
    assert "no fAcc, qAcc and average" in title
    assert rows["Overall"] == {"n": 4, "aAcc": 0.75}
    assert "fAcc" in breakdown("HallusionBench", results)["subsets"]["Overall"]


@pytest.mark.parametrize(
    ("name", "limit", "num_items", "expected"),
    [
        ("HallusionBench", None, 951, False),  # 951 is the official number of items
        ("HallusionBench", 951, 951, False),
        ("HallusionBench", 100, 100, True),
        ("HallusionBench", 100, 60, False),  # the file itself has only 60 items
        ("shapes/HallusionBench", 100, 100, False),  # built-in, so without an official number
    ],
)
def test_an_official_benchmark_is_limited_only_if_items_are_left_out(
    name: str, limit: int | None, num_items: int, expected: bool
) -> None:
    assert is_limited(name, num_items, EvaluateConfig(limit=limit)) is expected


def test_mmmu_has_a_table_per_split_with_subjects_before_disciplines() -> None:
    results = [
        result("validation,Business,Finance", 1.0),
        result("validation,Business,Accounting", 0.0),
        result("dev,Business,Finance", 1.0),
    ]
    tables = breakdown("MMMU", results)
    assert list(tables["validation"]) == ["Overall", "Accounting", "Finance", "Business"]
    assert tables["validation"]["Business"]["score"] == 0.5
    assert tables["dev"]["Overall"]["score"] == 1.0


def test_mmstars_overall_score_is_a_mean_over_items_not_over_categories() -> None:
    table = breakdown(
        "shapes/MMStar", [result("math", 1.0)] * 3 + [result("coarse perception", 0.0)]
    )
    assert table["capabilities"]["Overall"]["score"] == 0.75


@pytest.mark.parametrize("name", BENCHMARKS)
def test_results_without_a_score_count_in_no_table(name: str) -> None:
    unscored = result("VD_ocr", None, None, item_id="VD_ocr/0/0/0")
    for table in breakdown(name, [unscored]).values():
        for row in table.values():
            assert row["n"] == 0
            assert all(value in (None, 0) for value in row.values())


def nonzero_outcomes(results: Sequence[ItemResult]) -> dict[str, int]:
    return {name: n for name, n in outcomes(results).items() if n}


def test_every_item_has_exactly_one_outcome() -> None:
    results = [
        result("s", 1.0),  # rule
        result("s", 0.5, GradedBy.judge),  # judge
        result("s", 0.0, None, response=" \n"),  # undecided: neither a rule nor a judge
        result("s", 1.0, None, extracted="B"),  # drawn: a random option
        result("s", None, None),  # judge_failed
        result("s", None, None, response=None, status=ItemStatus.skipped),  # skipped
        result("s", None, None, response=None),  # no_response
    ]
    assert nonzero_outcomes(results[:1]) == {"rule": 1}
    counts = outcomes(results)
    names = ("rule", "judge", "undecided", "drawn", "judge_failed", "skipped", "no_response")
    assert counts == dict.fromkeys((*names, "empty"), 1)
    # `empty` is counted in addition: that item is also undecided.
    assert sum(n for name, n in counts.items() if name != "empty") == len(results)


def test_scores_are_printed_in_the_units_of_the_tables_of_qi_et_al_2026() -> None:
    # In percent, except for MMMU and MMStar. A quotient is right items / all items.
    assert printed_score("MathVista", 0.683) == "68.300"
    assert printed_score("HallusionBench", 654 / 951) == "68.770"
    assert printed_score("MMVet", 105.2 / 218) == "48.257"
    assert printed_score("MMMU", 492 / 900) == "0.547"
    assert printed_score("MMStar", 958 / 1500) == "0.639"
    assert math.isclose(float(printed_score("OCRBench", 0.778)), 77.8)


def grade_all(
    items: list[BenchmarkItem], responses: list[str], config: EvaluateConfig
) -> list[ItemResult]:
    results = []
    for item, response in zip(items, responses, strict=True):
        prediction = write_results.prediction(response, config)
        grade = evaluate.grade_prediction(
            item.benchmark, prediction, item.row, None, configured_rules(config)
        )
        results.append(evaluate.item_result(item.benchmark, item.row, response, grade))
    return results


@pytest.fixture
def mmstar_items() -> list[BenchmarkItem]:
    """One built-in item of MMStar per response in RESPONSES."""
    return [
        BenchmarkItem("shapes/MMStar", item)
        for item in shapes_benchmarks.items("MMStar", len(RESPONSES))
    ]


def test_a_prediction_file_has_the_items_columns_and_the_text_that_was_scored(
    mmstar_items: list[BenchmarkItem], tmp_path: Path
) -> None:
    config = EvaluateConfig(benchmarks=["shapes/MMStar"])
    results = grade_all(mmstar_items, RESPONSES, config)
    (path,) = write_results.write_predictions(
        tmp_path, "org/My model", mmstar_items, results, config
    )
    assert path.name == "My-model_shapes-MMStar.tsv"
    table = pd.read_csv(path, sep="\t", keep_default_na=False)
    assert list(table["index"]) == [item.row["index"] for item in mmstar_items]
    assert {"question", "A", "B", "C", "D", "answer", "category", "prediction"} <= set(table)
    assert "image" not in table
    # The zero byte of the third response is removed, and so are the answer tags of the sixth.
    expected = ["B", "None", "a\tb\n| c |", '"quoted"', "", "A", RESPONSES[-1]]
    assert list(table["prediction"]) == expected
    config.answer_tags = AnswerTags.raw  # the whole response is the prediction
    (path,) = write_results.write_predictions(tmp_path, "m", mmstar_items, results, config)
    raw = pd.read_csv(path, sep="\t", keep_default_na=False)["prediction"]
    assert raw[RESPONSES.index("<answer>A</answer>")] == "<answer>A</answer>"


def test_a_prediction_file_read_with_pandas_as_in_the_harness_gives_the_same_scores(
    mmstar_items: list[BenchmarkItem], tmp_path: Path
) -> None:
    config = EvaluateConfig(benchmarks=["shapes/MMStar"])
    results = grade_all(mmstar_items, RESPONSES, config)
    (path,) = write_results.write_predictions(tmp_path, "m", mmstar_items, results, config)
    table = pd.read_csv(path, sep="\t")  # pandas' default: "None" and "" are read as missing
    for row, result in zip(table.to_dict("records"), results, strict=True):
        assert (
            evaluate.grade_prediction("MMStar", str(row["prediction"]), row).score == result.score
        )


def test_prediction_files_have_the_harnesss_names_and_skipped_items_are_empty(
    tmp_path: Path,
) -> None:
    assert (
        write_results.prediction_file("a/Qwen2.5-VL-7B", "MathVista")
        == "Qwen2.5-VL-7B_MathVista_MINI.tsv"
    )
    assert write_results.prediction_file("tiny", "MMMU") == "tiny_MMMU_DEV_VAL.tsv"
    assert write_results.prediction(None, EvaluateConfig()) == ""
