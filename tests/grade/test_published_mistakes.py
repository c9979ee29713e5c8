"""The graders do not make the mistakes of published reward code; a test's name is the mistake.

The mistakes are those of V-Triune's verifiers, the plugin of Qi et al. 2026, Visual-RFT, open-r1,
R1-V, MathRuler and math-verify. A test shows that difftrain grades the same answer correctly.
"""

import json
import threading

import pytest

from difftrain import grade
from difftrain.config.difficulty import BoxesCredit, GradeConfig, TextCredit
from difftrain.grade import extract
from difftrain.records import AnswerKind, Verdict
from tests.grade.adversarial import sample

COLORS = "red|blue|green|orange"  # the options A to D
# Credit between 0 and 1: similarity of texts, F1 score of boxes.
PARTIAL_CREDIT = GradeConfig(text=TextCredit.similarity, boxes=BoxesCredit.f1)
CAT = {"bbox_2d": [0, 0, 10, 10], "label": "cat"}
DOG = {"bbox_2d": [50, 0, 60, 10], "label": "dog"}
BOTH = json.dumps([CAT, DOG])


def verdict_of(answer: str, gold: str, kind: str, options: str = "") -> Verdict:
    return grade.grade(f"<answer>{answer}</answer>", sample(kind, gold, options))


def box_credit(answer: str, gold: str) -> float:
    response = f"<answer>{answer}</answer>"
    return grade.grade_with_credit(response, sample("boxes", gold, ""), PARTIAL_CREDIT).credit


def test_v_triune_refuses_42_without_a_latex_box() -> None:
    assert verdict_of("42", "42", "number") is Verdict.correct


def test_v_triune_gives_no_reward_to_two_perfect_boxes_in_swapped_order() -> None:
    assert verdict_of(json.dumps([DOG, CAT]), BOTH, "boxes") is Verdict.correct


def test_v_triune_cannot_parse_a_label_with_an_apostrophe() -> None:
    gold = json.dumps([{"bbox_2d": [0, 0, 10, 10], "label": "driver's seat"}])
    assert verdict_of(gold.replace('"', "'"), gold, "boxes") is Verdict.correct


def test_v_triune_cannot_parse_boxes_inside_a_code_fence() -> None:
    assert verdict_of(f"```json\n{BOTH}\n```", BOTH, "boxes") is Verdict.correct


def test_v_triune_rewards_the_complete_boxes_of_a_truncated_list() -> None:
    without_end = BOTH[:-12]  # ends inside the second box
    assert verdict_of(without_end, json.dumps([CAT]), "boxes") is Verdict.unparsable


def test_v_triune_ignores_duplicate_boxes_without_a_penalty() -> None:
    assert verdict_of(json.dumps([CAT, DOG, CAT]), BOTH, "boxes") is Verdict.incorrect
    # 2 x 2 matched boxes / (3 boxes in the answer + 2 gold boxes)
    assert box_credit(json.dumps([CAT, DOG, CAT]), BOTH) == pytest.approx(4 / 5)


def test_v_triune_grades_words_as_products_of_letters() -> None:
    assert verdict_of("ampTa", "Tampa", "text") is Verdict.incorrect
    assert verdict_of("sey", "yes", "text") is Verdict.incorrect


def test_v_triune_reads_option_e_as_eulers_number() -> None:
    options = "a|b|c|d|e"
    assert verdict_of("2.718281828459045", "E", "choice", options) is not Verdict.correct
    assert verdict_of(r"\exp(1)", "E", "choice", options) is not Verdict.correct
    assert verdict_of("E", "E", "choice", options) is Verdict.correct


def test_v_triune_scores_a_whole_batch_zero_if_one_answer_raises() -> None:
    verdicts = [
        verdict_of("[" * 90_000, BOTH, "boxes"),
        verdict_of("10^{10^{9}}", "7", "number"),
        verdict_of("7", "7", "number"),
    ]
    assert verdicts == [Verdict.unparsable, Verdict.unparsable, Verdict.correct]


def test_v_triune_silently_scores_zero_for_an_unparsable_gold_answer() -> None:
    assert grade.gold_problem("see above", AnswerKind.number, ()) is not None


def test_the_plugin_of_qi_et_al_rewards_17_if_the_gold_answer_is_7() -> None:
    assert verdict_of("17", "7", "count") is Verdict.incorrect
    assert verdict_of("17", "7", "number") is Verdict.incorrect
    assert verdict_of("17", "7", "text") is Verdict.incorrect


def test_the_plugin_of_qi_et_al_rewards_a_single_letter_of_the_gold_text() -> None:
    assert verdict_of("s", "stop sign", "text") is Verdict.incorrect


def test_the_plugin_of_qi_et_al_rewards_a_similar_text() -> None:
    assert verdict_of("stop sing", "stop sign", "text") is Verdict.incorrect
    result = grade.grade_with_credit(
        "<answer>stop</answer>", sample("text", "stop sign", ""), PARTIAL_CREDIT
    )
    assert result.verdict is Verdict.incorrect
    assert result.credit == pytest.approx(4 / 9)  # `stop` is 4 of the 9 characters


def test_the_plugin_of_qi_et_al_grades_only_the_first_of_several_numbers() -> None:
    assert verdict_of("7 or 8 or 9", "7", "count") is Verdict.unparsable


def test_the_plugin_of_qi_et_al_guesses_the_answer_kind_from_the_gold_answer() -> None:
    assert verdict_of("1,234", "1234", "count") is Verdict.correct
    assert verdict_of("1,234", "1234", "text") is Verdict.incorrect


def test_the_plugin_of_qi_et_al_has_no_penalty_for_missing_boxes() -> None:
    assert verdict_of(json.dumps([CAT]), BOTH, "boxes") is Verdict.incorrect
    # 2 x 1 matched box / (1 box in the answer + 2 gold boxes)
    assert box_credit(json.dumps([CAT]), BOTH) == pytest.approx(2 / 3)


def test_the_plugin_of_qi_et_al_has_no_penalty_for_extra_boxes() -> None:
    extra_boxes = [{"bbox_2d": [x, 50, x + 9, 60], "label": "cat"} for x in range(0, 80, 10)]
    many = [CAT, DOG, *extra_boxes]
    assert verdict_of(json.dumps(many), BOTH, "boxes") is Verdict.incorrect
    # 2 x 2 matched boxes / (10 boxes in the answer + 2 gold boxes)
    assert box_credit(json.dumps(many), BOTH) == pytest.approx(4 / 12)


def test_the_plugin_of_qi_et_al_has_no_penalty_for_missing_labels() -> None:
    without_labels = json.dumps([{"bbox_2d": box["bbox_2d"]} for box in (CAT, DOG)])
    assert verdict_of(without_labels, BOTH, "boxes") is Verdict.incorrect
    assert box_credit(without_labels, BOTH) == 0


def test_r1v_finds_no_answer_without_white_space_inside_the_tags() -> None:
    assert verdict_of("7", "7", "number") is Verdict.correct


@pytest.mark.parametrize("answer", ["\n7\n", "\\boxed{7}", "\n\\boxed{7}\n", " 7 "])
def test_r1v_refuses_an_answer_with_line_breaks_or_a_latex_box(answer: str) -> None:
    assert verdict_of(answer, "7", "number") is Verdict.correct
    assert verdict_of(answer, "7", "text") is Verdict.correct


@pytest.mark.parametrize("kind", ["number", "count", "boxes", "choice"])
def test_a_math_reward_accepts_every_answer_if_the_gold_answer_is_unparsable(kind: str) -> None:
    for answer in ("7", "anything", "B", BOTH, "see above"):
        assert verdict_of(answer, "see above, or below", kind) is not Verdict.correct


@pytest.mark.parametrize("kind", list(AnswerKind))
def test_visual_rft_rewards_an_empty_answer(kind: AnswerKind) -> None:
    gold = {"choice": "B", "boxes": BOTH, "text": "yes"}.get(kind, "7")
    for answer in ("", " ", "\n", "\\boxed{}"):
        assert verdict_of(answer, gold, kind) is Verdict.unparsable
        result = grade.grade_with_credit(
            f"<answer>{answer}</answer>", sample(kind, gold, ""), PARTIAL_CREDIT
        )
        assert result.credit == 0


@pytest.mark.parametrize("answer", ["A or B or C", "A, B, C, D", "red or blue or green"])
def test_visual_rft_rewards_an_answer_that_names_all_options(answer: str) -> None:
    assert verdict_of(answer, "B", "choice", COLORS) is Verdict.unparsable


def test_open_r1_accepts_repeated_tags_in_its_format_reward() -> None:
    assert not extract.has_expected_format("<think>a</think><answer>7</answer><answer>7</answer>")
    assert not extract.has_expected_format("<think>a</think><think>b</think><answer>7</answer>")
    assert not extract.has_expected_format("<think><think>a</think></think><answer>7</answer>")


def test_mathruler_refuses_an_unreduced_fraction() -> None:
    assert verdict_of("2/4", "1/2", "number") is Verdict.correct


def test_mathruler_refuses_a_letter_with_a_full_stop() -> None:
    assert verdict_of("A.", "A", "choice", COLORS) is Verdict.correct


def test_mathruler_refuses_a_count_with_its_unit() -> None:
    assert verdict_of("12 apples", "12", "count") is Verdict.correct


def test_math_verify_accepts_ten_percent_as_a_tenth_and_as_ten() -> None:
    assert verdict_of("0.1", "10%", "number") is Verdict.incorrect
    assert verdict_of("10%", "0.1", "number") is Verdict.incorrect


def test_math_verify_grades_only_the_last_number_of_a_sentence() -> None:
    assert verdict_of("I first got 3 but then the result is 7", "7", "number") is Verdict.unparsable
    assert verdict_of("I first got 3 but then the result is 7", "7", "count") is Verdict.unparsable


def test_math_verify_needs_its_whole_time_limit_for_a_power_tower() -> None:
    assert verdict_of("10^{10^{9}}", "7", "number") is Verdict.unparsable


def test_math_verify_raises_or_returns_false_in_a_thread() -> None:
    verdicts: list[Verdict] = []
    thread = threading.Thread(
        target=lambda: verdicts.append(verdict_of(r"\sqrt{12}", r"2\sqrt{3}", "number"))
    )
    thread.start()
    thread.join()
    assert verdicts == [Verdict.correct]
