"""Worked cases of the six scorers, made here."""

from collections.abc import Callable

import httpx
import pytest

from difftrain import evaluate
from difftrain.config.evaluate import EvaluateConfig
from difftrain.evaluate.benchmarks import hallusionbench, mathvista, multiple_choice
from difftrain.evaluate.harness import RULES, JudgeDown
from difftrain.evaluate.write_results import prediction
from difftrain.records import ItemStatus

CHOICE = {
    "index": 3,
    "question": "What is it?",
    "A": "a cat",
    "B": "a dog",
    "C": float("nan"),
    "D": "a hen",
    "answer": "D",
    "category": "math",
    "image_path": "a.png",
}
COUNT = {
    "pid": "1",
    "question": "Hint: h\nQuestion: How many?",
    "question_type": "free_form",
    "answer_type": "integer",
    "choices": None,
    "answer": "12",
    "task": "math word problem",
    "image_path": "a.png",
}
YES = {
    "index": "x_VD_math_4_1_2",
    "category": "VD",
    "l2-category": "VD_math",
    "question": "Is it?",
    "answer": "Yes",
    "image_path": "a.png",
}
OPEN = {"index": 0, "question": "x?", "answer": "1<OR>one", "category": "rec,ocr"}
READ = {
    "index": 0,
    "question": "what is written in the image?",
    "answer": "['STOP', 'HALT']",
    "category": "Irregular Text Recognition",
}
ITEMS = {"MathVista": COUNT, "MMVet": OPEN, "HallusionBench": YES, "MMMU": CHOICE, "MMStar": CHOICE}


def replying(*replies: str) -> Callable[[str, float], str]:
    left = list(replies)
    return lambda prompt, temperature: left.pop(0) if len(left) > 1 else left[0]


@pytest.mark.parametrize("prefix", ["", "shapes/"])
@pytest.mark.parametrize("name", evaluate.BENCHMARKS)
def test_a_benchmark_is_known_by_its_name_and_as_a_miniature(name: str, prefix: str) -> None:
    assert evaluate.benchmark_named(prefix + name).name == name


def test_an_unknown_benchmark_or_date_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'MMStarr': must be one of MathVista"):
        evaluate.score_item("MMStarr", "A", CHOICE)
    with pytest.raises(ValueError, match="'2024-01': must be one of"):
        evaluate.score_item("MMStar", "A", CHOICE, rules="2024-01")


@pytest.mark.parametrize("name", evaluate.BENCHMARKS)
def test_no_prediction_is_no_score(name: str) -> None:
    assert evaluate.score_item(name, None, ITEMS.get(name, READ)) is None
    with pytest.raises(ValueError, match="must be one of MathVista"):
        evaluate.score_item("MMStarr", None, CHOICE)


@pytest.mark.parametrize("error", [JudgeDown("gone"), ConnectionError(), httpx.ReadTimeout("")])
@pytest.mark.parametrize("name", ITEMS)
def test_a_judge_that_cannot_be_reached_gives_no_score(name: str, error: Exception) -> None:
    def dead(prompt: str, temperature: float) -> str:
        raise error

    graded = evaluate.grade_prediction(name, "hm", ITEMS[name], dead)
    assert (graded.score, graded.graded_by) == (None, None)
    assert graded.error
    result = evaluate.item_result(name, ITEMS[name], "hm", graded)
    assert (result.status, result.error) == (ItemStatus.failed, graded.error)
    assert evaluate.score_item(name, "hm", ITEMS[name], dead) is None


@pytest.mark.parametrize("name", ITEMS)
def test_what_no_rule_decides_is_wrong_and_undecided_without_a_judge(name: str) -> None:
    graded = evaluate.grade_prediction(name, "hm", ITEMS[name])
    assert (graded.score, graded.graded_by, graded.error) == (0.0, None, None)


@pytest.mark.parametrize("name", ["MMMU", "MMStar"])
def test_where_the_reference_guesses_we_count_wrong_or_nothing(name: str) -> None:
    assert evaluate.score_item(name, "hm", CHOICE, replying("who knows")) == 0.0
    assert (
        evaluate.score_item(name, "hm", CHOICE, replying("Failed to obtain answer via API."))
        is None
    )


def test_an_empty_option_leaves_the_others_their_letters() -> None:
    assert evaluate.score_item("MMStar", "a hen", CHOICE) == 1.0
    assert evaluate.score_item("MMStar", "C", CHOICE) == 0.0
    prompt = evaluate.build_prompt("MMStar", CHOICE)[-1]["value"]
    assert "B. a dog\nD. a hen\n" in prompt


def test_an_mmstar_item_without_option_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="no option columns"):
        evaluate.score_item("MMStar", "A", {"index": 1, "question": "?", "answer": "A"})


def test_a_lone_letter_far_from_the_end_counts_only_before_august_2025() -> None:
    prediction = "A. because of the five long whiskers there"
    options = {"A": "x" * 50, "B": "y"}
    assert multiple_choice.match_option(prediction, options, RULES["2025-07"]) == "A"
    assert multiple_choice.match_option(prediction, options, RULES["2025-11"]) is None


def test_answer_is_has_no_word_boundary_since_june_2026() -> None:
    prediction = "The answer is built upon many long and careful prompt of mine"
    options = {"A": "x", "B": "zz"}
    assert multiple_choice.match_option(prediction, options, RULES["2025-11"]) is None
    assert multiple_choice.match_option(prediction, options, RULES["2026-08"]) == "B"


def test_mathvista_accepts_what_pythons_int_accepts() -> None:
    assert evaluate.score_item("MathVista", " 1_2 ", COUNT) == 1.0
    assert evaluate.score_item("MathVista", "12.0", COUNT) == 0.0
    assert evaluate.score_item("MathVista", "12.0", COUNT, replying("12")) == 1.0


def test_mathvista_official_rows_give_the_gold_letter_by_its_text() -> None:
    item = {"question_type": "multi_choice", "choices": ["x", "y"], "answer": "y", "pid": "2"}
    assert evaluate.score_item("MathVista", "(B)", item) == 1.0
    item["answer"] = "z"
    with pytest.raises(ValueError, match="not one of the choices"):
        evaluate.score_item("MathVista", "(B)", item)


def test_mathvistas_extractor_sees_the_query_and_the_prediction_but_not_the_gold() -> None:
    prompt = mathvista.judge_prompt("a dozen", COUNT)
    assert prompt.endswith("Question: How many?\nModel respone: a dozenExtracted answer:")
    assert "12" not in prompt.rpartition("Hint: h")[2]


def test_mmvet_is_scored_by_the_judge_alone() -> None:
    assert evaluate.score_item("MMVet", "one", OPEN, replying(" 0.7\n")) == 0.7
    assert evaluate.score_item("MMVet", "one", OPEN, replying("good", "1.5", "1")) == 1.0
    assert evaluate.score_item("MMVet", "one", OPEN, replying("good")) == 0.0
    assert evaluate.score_item("MMVet", "one", OPEN, replying("nan")) is None


def test_ocrbench_takes_any_gold_anywhere() -> None:
    assert evaluate.score_item("OCRBench", "It says halt!", READ) == 1.0
    assert evaluate.score_item("OCRBench", "S T O P", READ) == 0.0
    assert evaluate.score_item("OCRBench", "", READ) == 0.0


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        ("Yes, it is.", "Yes"),
        ("no-one", "No"),
        ("**Yes**", None),
        ("not really", None),
        ("yes and no", None),
        ("a. " * 32 + "yes.", None),
    ],
)
def test_hallusionbench_reads_yes_and_no_as_the_reference_does(
    prediction: str, expected: str | None
) -> None:
    assert hallusionbench.yes_or_no(prediction) == expected


def test_hallusionbench_items_are_named_by_their_places() -> None:
    with_columns = {**YES, "set_id": "4", "figure_id": "1", "question_id": "2"}
    kind = evaluate.benchmark_named("HallusionBench")
    assert kind.item_id(YES) == kind.item_id(with_columns) == "VD_math/4/1/2"
    assert hallusionbench.figure_of(kind.item_id(YES)) == "VD_math/4/1"


def test_mmmu_open_golds_become_option_a() -> None:
    item = {"id": "validation_Art_1", "question": "<image 1> ?", "answer": "8"}
    assert evaluate.score_item("MMMU", "It is 8.", item) == 1.0
    assert evaluate.score_item("MMMU", "18", item) == 1.0  # The reference's accident, kept.
    assert evaluate.score_item("MMMU", "Other Answers", item) == 0.0
    assert evaluate.benchmark_named("MMMU").category(item) == "Art"


def test_mmmu_puts_each_image_where_it_is_mentioned() -> None:
    item = {"id": "v", "question": "<image 2>, <image 1>, <image 2>?", "image": [b"1", b"2", b"3"]}
    values = [part["value"] for part in evaluate.build_prompt("MMMU", item)]
    assert values == ["Question: ", b"2", ", ", b"1", ", ", b"2", "?\n"]


def test_mmmu_refuses_a_mentioned_image_that_is_missing() -> None:
    with pytest.raises(ValueError, match="<image 2>"):
        evaluate.build_prompt("MMMU", {"id": "v", "question": "<image 2>?", "image": [b"1"]})


def test_a_chinese_question_gets_the_chinese_judge_prompt() -> None:
    assert multiple_choice.judge_prompt("这是什么", {"A": "猫"}, "猫咪").endswith("输出: ")
    assert multiple_choice.judge_prompt("What", {"A": "cat"}, "kitten").endswith("Your output: ")


def test_a_prediction_is_the_text_in_the_last_tags_or_the_response_itself() -> None:
    config = EvaluateConfig()
    assert prediction("<think>B</think><answer>\nA\n</answer>", config) == "A"
    assert prediction("no tags here ", config) == "no tags here "


def test_a_result_keeps_the_benchmarks_name_and_the_response() -> None:
    graded = evaluate.grade_prediction("shapes/MMStar", "D", CHOICE)
    result = evaluate.item_result("shapes/MMStar", CHOICE, "D", graded)
    assert (result.benchmark, result.item_id, result.response) == ("shapes/MMStar", "3", "D")
    assert (result.extracted, result.score, result.category) == ("D", 1.0, "math")
