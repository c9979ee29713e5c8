"""What published reward code rewards or refuses by mistake, each as a test that our graders pass.

V-Triune's verifiers, the paper's own plugin, Visual-RFT, open-r1, R1-V, MathRuler and the traps of
math-verify, as others have read and run them.
"""

import json
import threading

import pytest

from difftrain import grade
from difftrain.config.difficulty import BoxesCredit, GradeConfig, TextCredit
from difftrain.grade import extract
from difftrain.records import AnswerKind, Verdict
from tests.grade.adversarial import sample

COLORS = "red|blue|green|orange"
PARTIAL = GradeConfig(text=TextCredit.similarity, boxes=BoxesCredit.f1)
ONE = {"bbox_2d": [0, 0, 10, 10], "label": "cat"}
TWO = {"bbox_2d": [50, 0, 60, 10], "label": "dog"}
BOTH = json.dumps([ONE, TWO])


def verdict_of(answer: str, gold: str, kind: str, options: str = "") -> Verdict:
    return grade.grade(f"<answer>{answer}</answer>", sample(kind, gold, options))


def box_credit(answer: str, gold: str) -> float:
    response = f"<answer>{answer}</answer>"
    return grade.grade_with_credit(response, sample("boxes", gold, ""), PARTIAL).credit


def test_v_triune_refuses_a_bare_42_without_a_box() -> None:
    assert verdict_of("42", "42", "number") is Verdict.correct


def test_v_triune_gives_two_perfect_boxes_in_swapped_order_nothing() -> None:
    assert verdict_of(json.dumps([TWO, ONE]), BOTH, "boxes") is Verdict.correct


def test_v_triune_breaks_labels_with_an_apostrophe() -> None:
    gold = json.dumps([{"bbox_2d": [0, 0, 10, 10], "label": "driver's seat"}])
    assert verdict_of(gold.replace('"', "'"), gold, "boxes") is Verdict.correct


def test_v_triune_breaks_at_code_fences() -> None:
    assert verdict_of(f"```json\n{BOTH}\n```", BOTH, "boxes") is Verdict.correct


def test_v_triune_cuts_a_truncated_list_back_to_the_boxes_that_are_whole() -> None:
    assert verdict_of(BOTH[:-12], json.dumps([ONE]), "boxes") is Verdict.unparsable


def test_v_triune_drops_duplicate_boxes_without_charging_them() -> None:
    assert verdict_of(json.dumps([ONE, TWO, ONE]), BOTH, "boxes") is Verdict.incorrect
    assert box_credit(json.dumps([ONE, TWO, ONE]), BOTH) == pytest.approx(4 / 5)


def test_v_triune_grades_counts_and_words_by_symbolic_mathematics() -> None:
    assert verdict_of("ampTa", "Tampa", "text") is Verdict.incorrect
    assert verdict_of("sey", "yes", "text") is Verdict.incorrect


def test_v_triune_lower_cases_the_letter_e_into_eulers_number() -> None:
    five = "a|b|c|d|e"
    assert verdict_of("2.718281828459045", "E", "choice", five) is not Verdict.correct
    assert verdict_of(r"\exp(1)", "E", "choice", five) is not Verdict.correct
    assert verdict_of("E", "E", "choice", five) is Verdict.correct


def test_v_triune_gives_zeros_to_a_whole_batch_for_one_answer_that_raises() -> None:
    bombs = ["<answer>" + "[" * 90_000 + "</answer>", "<answer>10^{10^{9}}</answer>"]
    good = "<answer>7</answer>"
    number, box = sample("number", "7", ""), sample("boxes", BOTH, "")
    verdicts = [
        grade.grade(bombs[0], box),
        grade.grade(bombs[1], number),
        grade.grade(good, number),
    ]
    assert verdicts == [Verdict.unparsable, Verdict.unparsable, Verdict.correct]


def test_v_triune_scores_an_unreadable_gold_zero_without_saying_so() -> None:
    assert grade.gold_problem("see above", AnswerKind.number, ()) is not None


def test_the_papers_plugin_pays_17_where_7_is_right() -> None:
    assert verdict_of("17", "7", "count") is Verdict.incorrect
    assert verdict_of("17", "7", "number") is Verdict.incorrect
    assert verdict_of("17", "7", "text") is Verdict.incorrect


def test_the_papers_plugin_pays_one_letter_of_a_stop_sign() -> None:
    assert verdict_of("s", "stop sign", "text") is Verdict.incorrect


def test_the_papers_plugin_pays_a_text_that_is_half_alike() -> None:
    assert verdict_of("stop sing", "stop sign", "text") is Verdict.incorrect
    half = grade.grade_with_credit(
        "<answer>stop</answer>", sample("text", "stop sign", ""), PARTIAL
    )
    assert half.verdict is Verdict.incorrect
    assert half.credit == pytest.approx(4 / 9)


def test_the_papers_plugin_takes_the_first_number_of_several() -> None:
    assert verdict_of("7 or 8 or 9", "7", "count") is Verdict.unparsable


def test_the_papers_plugin_guesses_the_task_from_the_gold() -> None:
    assert verdict_of("1,234", "1234", "count") is Verdict.correct
    assert verdict_of("1,234", "1234", "text") is Verdict.incorrect


def test_the_papers_plugin_charges_nothing_for_missing_boxes() -> None:
    assert verdict_of(json.dumps([ONE]), BOTH, "boxes") is Verdict.incorrect
    assert box_credit(json.dumps([ONE]), BOTH) == pytest.approx(2 / 3)


def test_the_papers_plugin_charges_nothing_for_extra_boxes() -> None:
    many = [ONE, TWO, *({"bbox_2d": [x, 50, x + 9, 60], "label": "cat"} for x in range(0, 80, 10))]
    assert verdict_of(json.dumps(many), BOTH, "boxes") is Verdict.incorrect
    assert box_credit(json.dumps(many), BOTH) == pytest.approx(4 / 12)


def test_the_papers_plugin_charges_nothing_for_missing_labels() -> None:
    bare = json.dumps([{"bbox_2d": box["bbox_2d"]} for box in (ONE, TWO)])
    assert verdict_of(bare, BOTH, "boxes") is Verdict.incorrect
    assert box_credit(bare, BOTH) == 0


def test_r1v_reads_nothing_in_an_answer_that_the_tags_touch() -> None:
    assert verdict_of("7", "7", "number") is Verdict.correct


@pytest.mark.parametrize("answer", ["\n7\n", "\\boxed{7}", "\n\\boxed{7}\n", " 7 "])
def test_r1v_refuses_an_answer_with_line_breaks_or_a_box(answer: str) -> None:
    assert verdict_of(answer, "7", "number") is Verdict.correct
    assert verdict_of(answer, "7", "text") is Verdict.correct


@pytest.mark.parametrize("kind", ["number", "count", "boxes", "choice"])
def test_an_unused_math_reward_pays_everything_when_the_gold_cannot_be_read(kind: str) -> None:
    for answer in ("7", "anything", "B", BOTH, "see above"):
        assert verdict_of(answer, "see above, or below", kind) is not Verdict.correct


@pytest.mark.parametrize("kind", list(AnswerKind))
def test_visual_rft_pays_an_empty_answer(kind: AnswerKind) -> None:
    gold = {"choice": "B", "boxes": BOTH, "text": "yes"}.get(kind, "7")
    for answer in ("", " ", "\n", "\\boxed{}"):
        assert verdict_of(answer, gold, kind) is Verdict.unparsable
        result = grade.grade_with_credit(
            f"<answer>{answer}</answer>", sample(kind, gold, ""), PARTIAL
        )
        assert result.credit == 0


@pytest.mark.parametrize("answer", ["A or B or C", "A, B, C, D", "red or blue or green"])
def test_visual_rft_pays_all_options_named_together(answer: str) -> None:
    assert verdict_of(answer, "B", "choice", COLORS) is Verdict.unparsable


def test_open_r1_lets_repeated_tags_pass_the_layout_check() -> None:
    assert not extract.has_expected_format("<think>a</think><answer>7</answer><answer>7</answer>")
    assert not extract.has_expected_format("<think>a</think><think>b</think><answer>7</answer>")
    assert not extract.has_expected_format("<think><think>a</think></think><answer>7</answer>")


def test_mathruler_refuses_an_unreduced_fraction() -> None:
    assert verdict_of("2/4", "1/2", "number") is Verdict.correct


def test_mathruler_refuses_a_letter_with_a_full_stop() -> None:
    assert verdict_of("A.", "A", "choice", COLORS) is Verdict.correct


def test_mathruler_refuses_a_count_with_its_unit() -> None:
    assert verdict_of("12 apples", "12", "count") is Verdict.correct


def test_math_verify_takes_ten_percent_for_a_tenth_and_for_ten() -> None:
    assert verdict_of("0.1", "10%", "number") is Verdict.incorrect
    assert verdict_of("10%", "0.1", "number") is Verdict.incorrect


def test_math_verify_takes_the_last_number_of_a_sentence() -> None:
    assert verdict_of("I first got 3 but then the result is 7", "7", "number") is Verdict.unparsable
    assert verdict_of("I first got 3 but then the result is 7", "7", "count") is Verdict.unparsable


def test_math_verify_waits_for_its_whole_time_limit_at_a_power_tower() -> None:
    assert verdict_of("10^{10^{9}}", "7", "number") is Verdict.unparsable


def test_math_verify_raises_or_says_false_in_a_thread() -> None:
    verdicts: list[Verdict] = []
    thread = threading.Thread(
        target=lambda: verdicts.append(verdict_of(r"\sqrt{12}", r"2\sqrt{3}", "number"))
    )
    thread.start()
    thread.join()
    assert verdicts == [Verdict.correct]
