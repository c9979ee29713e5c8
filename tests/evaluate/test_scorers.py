"""The six scorers on small items written for these tests; a judge, if any, is scripted.

score_item returns 1.0 for a correct prediction, 0.0 for an incorrect one, None without a score.
RULES has the rules of the reference harness (VLMEvalKit) by date.
"""

from collections.abc import Callable

import httpx
import pytest

from difftrain import evaluate
from difftrain.config.evaluate import EvaluateConfig
from difftrain.evaluate.benchmarks import hallusionbench, mathvista, multiple_choice
from difftrain.evaluate.harness import RULES, JudgeDown
from difftrain.evaluate.write_results import prediction
from difftrain.records import ItemStatus

CHOICE_ITEM = {
    "index": 3,
    "question": "What is it?",
    "A": "a cat",
    "B": "a dog",
    "C": float("nan"),  # an empty option, as pandas reads it from a TSV file
    "D": "a hen",
    "answer": "D",
    "category": "math",
    "image_path": "a.png",
}
INTEGER_ITEM = {
    "pid": "1",
    "question": "Hint: h\nQuestion: How many?",
    "question_type": "free_form",
    "answer_type": "integer",
    "choices": None,
    "answer": "12",
    "task": "math word problem",
    "image_path": "a.png",
}
YES_NO_ITEM = {
    "index": "x_VD_math_4_1_2",
    "category": "VD",
    "l2-category": "VD_math",
    "question": "Is it?",
    "answer": "Yes",
    "image_path": "a.png",
}
# Items of MM-Vet and OCRBench.
OPEN_ITEM = {"index": 0, "question": "x?", "answer": "1<OR>one", "category": "rec,ocr"}
READING_ITEM = {
    "index": 0,
    "question": "what is written in the image?",
    "answer": "['STOP', 'HALT']",
    "category": "Irregular Text Recognition",
}
VERSION_ITEM = {
    "index": 7,
    "problem_index": "2",
    "problem_version": "Vision Only",
    "question": "According to the question shown in the image, please directly answer it.",
    "question_for_eval": "How long is it?",
    "answer": "12",
    "metadata": "{'subject': 'Plane Geometry', 'subfield': 'Length'}",
}
STEP_ITEM = {
    **{"index": 1, "ID": "2steps_9", "key": "2steps_1", "knowledge concept": "Translation"},
    **{"question": "How long is it?", "A": "1 m", "B": "2 m", "C": float("nan"), "answer": "B"},
}
SKILL_ITEM = {"index": 1, "question": "Which?", "answer": "A, C", "skill": "['spatial']"}
# The item of a benchmark for which no rule reads an answer in the prediction `hm`.
ITEMS = {
    "MathVista": INTEGER_ITEM,
    "MMVet": OPEN_ITEM,
    "HallusionBench": YES_NO_ITEM,
    "MMMU": CHOICE_ITEM,
    "MMStar": CHOICE_ITEM,
    "MathVerse": VERSION_ITEM,
    "WeMath": STEP_ITEM,
    "LogicVista": SKILL_ITEM,
}


def scripted_judge(*replies: str) -> Callable[[str, float], str]:
    """A judge that gives these replies in turn, and the last one from then on."""
    remaining = list(replies)
    return lambda prompt, temperature: remaining.pop(0) if len(remaining) > 1 else remaining[0]


@pytest.mark.parametrize("prefix", ["", "shapes/"])
@pytest.mark.parametrize("name", evaluate.BENCHMARKS)
def test_a_benchmark_is_found_by_its_name_with_and_without_the_prefix_shapes(
    name: str, prefix: str
) -> None:
    """The built-in imitation shapes/NAME is scored like the official benchmark NAME."""
    assert evaluate.benchmark_named(prefix + name).name == name


def test_an_unknown_benchmark_or_date_of_the_rules_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match="'MMStarr': must be one of: MathVista"):
        evaluate.score_item("MMStarr", "A", CHOICE_ITEM)
    with pytest.raises(ValueError, match="'2024-01': must be one of"):
        evaluate.score_item("MMStar", "A", CHOICE_ITEM, rules="2024-01")


@pytest.mark.parametrize("name", evaluate.BENCHMARKS)
def test_without_a_prediction_there_is_no_score(name: str) -> None:
    item = ITEMS.get(name, READING_ITEM)
    assert evaluate.score_item(name, None, item) is None
    assert evaluate.score_item(name, None, item, scripted_judge("A"), "2026-08") is None
    assert evaluate.grade_prediction(name, None, item).error == "there is no prediction"
    with pytest.raises(ValueError, match="must be one of: MathVista"):
        evaluate.score_item("MMStarr", None, CHOICE_ITEM)


@pytest.mark.parametrize("error", [JudgeDown("gone"), ConnectionError(), httpx.ReadTimeout("")])
@pytest.mark.parametrize("name", ITEMS)
def test_a_judge_that_cannot_be_reached_gives_no_score(name: str, error: Exception) -> None:
    def unreachable_judge(prompt: str, temperature: float) -> str:
        raise error

    graded = evaluate.grade_prediction(name, "hm", ITEMS[name], unreachable_judge)
    assert (graded.score, graded.graded_by) == (None, None)
    assert graded.error
    result = evaluate.item_result(name, ITEMS[name], "hm", graded)
    assert (result.status, result.error) == (ItemStatus.failed, graded.error)
    assert evaluate.score_item(name, "hm", ITEMS[name], unreachable_judge) is None


@pytest.mark.parametrize("name", ITEMS)
def test_without_a_judge_a_prediction_that_no_rule_can_read_scores_0(name: str) -> None:
    graded = evaluate.grade_prediction(name, "hm", ITEMS[name])
    assert (graded.score, graded.graded_by, graded.error) == (0.0, None, None)


@pytest.mark.parametrize("name", ["MMMU", "MMStar", "WeMath"])
def test_an_item_scores_0_if_the_judges_replies_are_unusable(name: str) -> None:
    """The reference harness draws a random option instead."""
    assert evaluate.score_item(name, "hm", CHOICE_ITEM, scripted_judge("who knows")) == 0.0


@pytest.mark.parametrize("name", ["MMMU", "MMStar"])
def test_the_harnesss_text_for_a_failed_judge_call_gives_no_score(name: str) -> None:
    judge = scripted_judge("Failed to obtain answer via API.")
    assert evaluate.score_item(name, "hm", CHOICE_ITEM, judge) is None


@pytest.mark.parametrize("name", ["MMMU", "MMStar"])
def test_the_text_for_a_failed_judge_call_is_not_read_as_an_option(name: str) -> None:
    """It contains the option A, `answer`."""
    item = {**CHOICE_ITEM, "A": "answer", "B": "a long walk home", "answer": "A"}
    failed = "Failed to obtain answer via API."
    assert evaluate.score_item(name, "hm", item, scripted_judge(failed)) is None
    assert evaluate.score_item(name, "hm", item, scripted_judge(failed, "B")) == 0.0
    assert evaluate.score_item(name, "hm", item, scripted_judge(failed, "A")) == 1.0
    # The text of a prediction is compared with the options, as in the harness.
    assert evaluate.score_item(name, failed, item) == 1.0


def test_mathvistas_failed_judge_call_is_recognized_by_the_text_with_its_period() -> None:
    judge = scripted_judge("Failed to obtain answer via API.", "12")
    assert evaluate.score_item("MathVista", "a dozen", INTEGER_ITEM, judge) == 1.0
    judge = scripted_judge("Failed to obtain answer via API", "12")
    assert evaluate.score_item("MathVista", "a dozen", INTEGER_ITEM, judge) == 0.0


def test_options_after_an_empty_option_keep_their_letters() -> None:
    assert evaluate.score_item("MMStar", "a hen", CHOICE_ITEM) == 1.0
    assert evaluate.score_item("MMStar", "C", CHOICE_ITEM) == 0.0
    prompt = evaluate.build_prompt("MMStar", CHOICE_ITEM)[-1]["value"]
    assert "B. a dog\nD. a hen\n" in prompt


def test_an_mmstar_item_without_option_columns_is_an_error() -> None:
    with pytest.raises(ValueError, match="no option columns"):
        evaluate.score_item("MMStar", "A", {"index": 1, "question": "?", "answer": "A"})


def test_a_single_letter_far_from_the_end_counts_only_before_august_2025() -> None:
    """Since then, a letter counts only among the last four words."""
    prediction = "A. because of the five long whiskers there"
    options = {"A": "x" * 50, "B": "y"}  # no option's text is in the prediction
    assert multiple_choice.match_option(prediction, options, RULES["2025-07"]) == "A"
    assert multiple_choice.match_option(prediction, options, RULES["2025-11"]) is None


def test_since_june_2026_the_first_letter_of_a_word_after_answer_is_counts_as_an_option() -> None:
    prediction = "The answer is built upon many long and careful prompt of mine"  # b as in B
    options = {"A": "x", "B": "zz"}
    assert multiple_choice.match_option(prediction, options, RULES["2025-11"]) is None
    assert multiple_choice.match_option(prediction, options, RULES["2026-08"]) == "B"


@pytest.mark.parametrize(
    ("prediction", "letter"),
    [
        ("The answer is **B** since A, C, D do not fit the picture at all", "B"),
        ("The answer  is B, since A, C and D do not fit the picture at all", "B"),
        ("the ANSWER\nis\t**b, not A, C or D, which do not fit the picture", "B"),
        ("**The correct answer is** B because A and C are too dark and D is absent here", None),
        ("The answer is ** B since A, C, D do not fit the picture at all", None),
        ("The answer is(B) since A, C, D do not fit the picture at all", None),
    ],
)
def test_since_june_2026_answer_is_may_have_any_blanks_but_asterisks_only_before_the_letter(
    prediction: str, letter: str | None
) -> None:
    options = {"A": "red", "B": "blue", "C": "green", "D": "orange"}
    assert multiple_choice.match_option(prediction, options, RULES["2026-08"]) == letter
    assert multiple_choice.match_option(prediction, options, RULES["2025-11"]) is None


def test_the_length_of_a_prediction_is_that_of_its_lowered_text() -> None:
    """Lowered, `İ` is two characters long. Twice the length of the options is the limit, 14."""
    options = {"A": "red", "B": "blue"}
    for rules in ("2025-11", "2026-08"):
        match = multiple_choice.match_option
        assert match("I" + " " * 10 + "red", options, RULES[rules]) == "A"
        assert match("İ" + " " * 10 + "red", options, RULES[rules]) is None
        assert match("İ" + " " * 9 + "red", options, RULES[rules]) == "A"


def test_a_judges_reply_is_compared_with_the_length_of_options_that_may_have_been_lowered() -> None:
    """The harness lowers them in place after a short text: then the limit is 26, not 14."""
    item = {"index": 1, "question": "?", "A": "İİİİİİ", "B": "x", "answer": "B"}
    judge = scripted_judge("it is certainly x ok")
    assert evaluate.score_item("MMStar", "hm", item, judge) == 1.0
    assert evaluate.score_item("MMStar", "hm, I cannot tell at all", item, judge) == 0.0
    judge = scripted_judge("hm", "it is certainly x ok")  # a short reply lowers them too
    assert evaluate.score_item("MMStar", "hm, I cannot tell at all", item, judge) == 1.0


def test_mathvista_accepts_what_pythons_int_accepts() -> None:
    assert evaluate.score_item("MathVista", " 1_2 ", INTEGER_ITEM) == 1.0  # int(" 1_2 ") is 12
    assert evaluate.score_item("MathVista", "12.0", INTEGER_ITEM) == 0.0
    assert evaluate.score_item("MathVista", "12.0", INTEGER_ITEM, scripted_judge("12")) == 1.0


def test_mathvista_finds_the_gold_letter_by_the_text_of_the_answer() -> None:
    item = {"question_type": "multi_choice", "choices": ["x", "y"], "answer": "y", "pid": "2"}
    assert evaluate.score_item("MathVista", "(B)", item) == 1.0
    item["answer"] = "z"
    with pytest.raises(ValueError, match="not one of the choices"):
        evaluate.score_item("MathVista", "(B)", item)


def test_mathvistas_judge_prompt_has_the_query_and_the_prediction_but_not_the_gold_answer() -> None:
    prompt = mathvista.judge_prompt("a dozen", INTEGER_ITEM)
    # `respone` is spelled as in the harness.
    assert prompt.endswith("Question: How many?\nModel respone: a dozenExtracted answer:")
    assert "12" not in prompt.rpartition("Hint: h")[2]  # the part about this item


def test_mmvet_is_scored_only_by_the_judge() -> None:
    assert evaluate.score_item("MMVet", "one", OPEN_ITEM, scripted_judge(" 0.7\n")) == 0.7
    # A reply that is no number from 0 to 1 is repeated, up to five calls in all.
    assert evaluate.score_item("MMVet", "one", OPEN_ITEM, scripted_judge("good", "1.5", "1")) == 1.0
    assert evaluate.score_item("MMVet", "one", OPEN_ITEM, scripted_judge("good")) == 0.0
    # `nan` is read as a number, which leaves the item without a score.
    assert evaluate.score_item("MMVet", "one", OPEN_ITEM, scripted_judge("nan")) is None


def test_ocrbench_accepts_any_gold_answer_anywhere_in_the_prediction() -> None:
    assert evaluate.score_item("OCRBench", "It says halt!", READING_ITEM) == 1.0
    assert evaluate.score_item("OCRBench", "S T O P", READING_ITEM) == 0.0
    assert evaluate.score_item("OCRBench", "", READING_ITEM) == 0.0


@pytest.mark.parametrize(
    ("gold", "prediction"),
    [("2590", "２５９０"), ("both sides", "ｂｏｔｈ　ｓｉｄｅｓ"), ("2", "²"), ("kg", "㎏")],
)
def test_ocrbench_does_not_accept_full_width_or_other_forms_of_a_character(
    gold: str, prediction: str
) -> None:
    assert evaluate.score_item("OCRBench", prediction, {**READING_ITEM, "answer": [gold]}) == 0.0


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        ("Yes, it is.", "Yes"),
        ("no-one", "No"),
        ("**Yes**", None),
        ("not really", None),
        ("yes and no", None),
        ("a. " * 32 + "yes.", None),  # the harness removes 32 periods, so "yes." is no yes
    ],
)
def test_hallusionbench_reads_yes_and_no_as_the_reference_harness_does(
    prediction: str, expected: str | None
) -> None:
    assert hallusionbench.yes_or_no(prediction) == expected


@pytest.mark.parametrize("num_sentences", [12, 15, 16, 17, 20, 25])
def test_hallusionbench_reads_the_answer_after_any_number_of_numbered_sentences(
    num_sentences: int,
) -> None:
    """The periods of `1.` and `2.` stay, so that they are not among the 32 that are removed."""
    lines = [f"{i + 1}. The bar number {i} is blue.\n" for i in range(num_sentences)]
    prediction = f"Let me check the image step by step.\n{''.join(lines)}Yes."
    for rules in ("2025-11", "2026-08"):
        assert evaluate.score_item("HallusionBench", prediction, YES_NO_ITEM, rules=rules) == 1.0


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [("2.yes", None), ("2. yes.", "Yes"), ("yes.2", None), ("yes2.", None), ("3.5 .yes", "Yes")],
)
def test_hallusionbench_keeps_a_period_that_touches_a_digit(
    prediction: str, expected: str | None
) -> None:
    assert hallusionbench.yes_or_no(prediction) == expected
    assert hallusionbench.yes_or_no(prediction, all_periods=True) == expected


def test_hallusionbench_item_ids_have_category_set_figure_and_question() -> None:
    with_columns = {**YES_NO_ITEM, "set_id": "4", "figure_id": "1", "question_id": "2"}
    item_id = evaluate.benchmark_named("HallusionBench").item_id
    assert item_id(YES_NO_ITEM) == item_id(with_columns) == "VD_math/4/1/2"
    assert hallusionbench.figure_of(item_id(YES_NO_ITEM)) == "VD_math/4/1"


def test_the_gold_answer_of_an_open_mmmu_item_is_option_a() -> None:
    item = {"id": "validation_Art_1", "question": "<image 1> ?", "answer": "8"}
    assert evaluate.score_item("MMMU", "It is 8.", item) == 1.0
    assert (
        evaluate.score_item("MMMU", "18", item) == 1.0
    )  # "18" contains "8". The reference harness makes this mistake too.
    assert evaluate.score_item("MMMU", "Other Answers", item) == 0.0
    assert evaluate.benchmark_named("MMMU").category(item) == "Art"


def test_an_mmmu_item_without_option_a_gets_the_options_of_an_open_one_and_keeps_c() -> None:
    """The harness takes every item with an empty A for an open one."""
    item = {"id": "v", "question": "?", "A": float("nan"), "B": "oil", "C": "ink", "answer": "C"}
    assert evaluate.score_item("MMMU", "oil or ink", item) == 1.0  # B is now "Other Answers"
    assert evaluate.score_item("MMMU", "C", item) == 1.0
    assert evaluate.score_item("MMMU", "B", item) == 0.0


def test_mmmu_puts_each_image_where_it_is_mentioned() -> None:
    item = {"id": "v", "question": "<image 2>, <image 1>, <image 2>?", "image": [b"1", b"2", b"3"]}
    values = [part["value"] for part in evaluate.build_prompt("MMMU", item)]
    assert values == ["Question: ", b"2", ", ", b"1", ", ", b"2", "?\n"]


def test_an_mmmu_question_that_mentions_a_missing_image_is_an_error() -> None:
    with pytest.raises(ValueError, match="<image 2>"):
        evaluate.build_prompt("MMMU", {"id": "v", "question": "<image 2>?", "image": [b"1"]})


def test_a_chinese_question_gets_the_chinese_judge_prompt() -> None:
    assert multiple_choice.judge_prompt("这是什么", {"A": "猫"}, "猫咪").endswith("输出: ")
    assert multiple_choice.judge_prompt("What", {"A": "cat"}, "kitten").endswith("Your output: ")


def test_a_prediction_is_the_text_in_the_last_tags_or_the_response_itself() -> None:
    config = EvaluateConfig()
    assert prediction("<think>B</think><answer>\nA\n</answer>", config) == "A"
    assert prediction("no tags here ", config) == "no tags here "


def test_a_result_has_the_full_name_of_the_benchmark_and_the_response() -> None:
    graded = evaluate.grade_prediction("shapes/MMStar", "D", CHOICE_ITEM)
    result = evaluate.item_result("shapes/MMStar", CHOICE_ITEM, "D", graded)
    assert (result.benchmark, result.item_id, result.response) == ("shapes/MMStar", "3", "D")
    assert (result.extracted, result.score, result.category) == ("D", 1.0, "math")
