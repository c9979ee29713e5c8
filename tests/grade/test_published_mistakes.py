"""What published reward code pays or refuses by mistake, each as a test that ours passes.

V-Triune's verifiers, the paper's own plugin, Visual-RFT, open-r1, R1-V, MathRuler and the traps of
math-verify, as others have read and executed them.
"""

import json
import threading

import pytest

from difftrain import grade
from difftrain.config.grade import BoxesCredit, GradeConfig, TextCredit
from difftrain.grade import boxes, extract
from difftrain.records import AnswerKind, Verdict
from tests.grade.adversarial import sample

COLOURS = "red|blue|green|orange"
PARTIAL = GradeConfig(text=TextCredit.similarity, boxes=BoxesCredit.f1)
ONE = {"bbox_2d": [0, 0, 10, 10], "label": "cat"}
TWO = {"bbox_2d": [50, 0, 60, 10], "label": "dog"}
BOTH = json.dumps([ONE, TWO])


def said(answer: str, gold: str, kind: str, options: str = "") -> Verdict:
    return grade.grade(f"<answer>{answer}</answer>", sample(kind, gold, options))


def test_v_triune_refuses_a_bare_42_without_a_box() -> None:
    assert said("42", "42", "number") is Verdict.correct


def test_v_triune_gives_two_perfect_boxes_in_swapped_order_nothing() -> None:
    assert said(json.dumps([TWO, ONE]), BOTH, "boxes") is Verdict.correct


def test_v_triune_breaks_labels_with_an_apostrophe() -> None:
    gold = json.dumps([{"bbox_2d": [0, 0, 10, 10], "label": "driver's seat"}])
    assert said(gold.replace('"', "'"), gold, "boxes") is Verdict.correct


def test_v_triune_breaks_at_code_fences() -> None:
    assert said(f"```json\n{BOTH}\n```", BOTH, "boxes") is Verdict.correct


def test_v_triune_cuts_a_truncated_list_back_to_the_boxes_that_are_whole() -> None:
    assert said(BOTH[:-12], json.dumps([ONE]), "boxes") is Verdict.unparsable


def test_v_triune_drops_duplicate_boxes_without_charging_them() -> None:
    assert said(json.dumps([ONE, TWO, ONE]), BOTH, "boxes") is Verdict.incorrect
    assert boxes.f1(json.dumps([ONE, TWO, ONE]), BOTH) == pytest.approx(4 / 5)


def test_v_triune_grades_counts_and_words_by_symbolic_mathematics() -> None:
    assert said("ampTa", "Tampa", "text") is Verdict.incorrect
    assert said("sey", "yes", "text") is Verdict.incorrect


def test_v_triune_lower_cases_the_letter_e_into_eulers_number() -> None:
    five = "a|b|c|d|e"
    assert said("2.718281828459045", "E", "choice", five) is not Verdict.correct
    assert said(r"\exp(1)", "E", "choice", five) is not Verdict.correct
    assert said("E", "E", "choice", five) is Verdict.correct


def test_v_triune_gives_zeros_to_a_whole_batch_for_one_answer_that_raises() -> None:
    bombs = ["<answer>" + "[" * 90_000 + "</answer>", "<answer>10^{10^{9}}</answer>"]
    good = "<answer>7</answer>"
    number, box = sample("number", "7", ""), sample("boxes", BOTH, "")
    found = [grade.grade(bombs[0], box), grade.grade(bombs[1], number), grade.grade(good, number)]
    assert found == [Verdict.unparsable, Verdict.unparsable, Verdict.correct]


def test_v_triune_scores_an_unreadable_gold_zero_without_saying_so() -> None:
    assert grade.gold_problem("see above", AnswerKind.number, ()) is not None


def test_the_papers_plugin_pays_17_where_7_is_right() -> None:
    assert said("17", "7", "count") is Verdict.incorrect
    assert said("17", "7", "number") is Verdict.incorrect
    assert said("17", "7", "text") is Verdict.incorrect


def test_the_papers_plugin_pays_one_letter_of_a_stop_sign() -> None:
    assert said("s", "stop sign", "text") is Verdict.incorrect


def test_the_papers_plugin_pays_a_text_that_is_half_alike() -> None:
    assert said("stop sing", "stop sign", "text") is Verdict.incorrect
    half = grade.grade_with_credit(
        "<answer>stop</answer>", sample("text", "stop sign", ""), PARTIAL
    )
    assert half.verdict is Verdict.incorrect
    assert half.value == pytest.approx(4 / 9)


def test_the_papers_plugin_takes_the_first_number_of_several() -> None:
    assert said("7 or 8 or 9", "7", "count") is Verdict.unparsable


def test_the_papers_plugin_guesses_the_task_from_the_gold() -> None:
    assert said("1,234", "1234", "count") is Verdict.correct
    assert said("1,234", "1234", "text") is Verdict.incorrect


def test_the_papers_plugin_charges_nothing_for_missing_boxes() -> None:
    assert said(json.dumps([ONE]), BOTH, "boxes") is Verdict.incorrect
    assert boxes.f1(json.dumps([ONE]), BOTH) == pytest.approx(2 / 3)


def test_the_papers_plugin_charges_nothing_for_extra_boxes() -> None:
    many = [ONE, TWO, *({"bbox_2d": [x, 50, x + 9, 60], "label": "cat"} for x in range(0, 80, 10))]
    assert said(json.dumps(many), BOTH, "boxes") is Verdict.incorrect
    assert boxes.f1(json.dumps(many), BOTH) == pytest.approx(4 / 12)


def test_the_papers_plugin_charges_nothing_for_missing_labels() -> None:
    bare = json.dumps([{"bbox_2d": box["bbox_2d"]} for box in (ONE, TWO)])
    assert said(bare, BOTH, "boxes") is Verdict.incorrect
    assert boxes.f1(bare, BOTH) == 0


def test_r1v_reads_nothing_in_an_answer_that_the_tags_touch() -> None:
    assert said("7", "7", "number") is Verdict.correct


@pytest.mark.parametrize("answer", ["\n7\n", "\\boxed{7}", "\n\\boxed{7}\n", " 7 "])
def test_r1v_refuses_an_answer_with_line_breaks_or_a_box(answer: str) -> None:
    assert said(answer, "7", "number") is Verdict.correct
    assert said(answer, "7", "text") is Verdict.correct


@pytest.mark.parametrize("kind", ["number", "count", "boxes", "choice"])
def test_an_unused_math_reward_pays_everything_when_the_gold_cannot_be_read(kind: str) -> None:
    for answer in ("7", "anything", "B", BOTH, "see above"):
        assert said(answer, "see above, or below", kind) is not Verdict.correct


@pytest.mark.parametrize("kind", list(AnswerKind))
def test_visual_rft_pays_an_empty_answer(kind: AnswerKind) -> None:
    gold = {"choice": "B", "boxes": BOTH, "text": "yes"}.get(kind, "7")
    for answer in ("", " ", "\n", "\\boxed{}"):
        assert said(answer, gold, kind) is Verdict.unparsable
        found = grade.grade_with_credit(
            f"<answer>{answer}</answer>", sample(kind, gold, ""), PARTIAL
        )
        assert found.value == 0


@pytest.mark.parametrize("answer", ["A or B or C", "A, B, C, D", "red or blue or green"])
def test_visual_rft_pays_all_options_named_together(answer: str) -> None:
    assert said(answer, "B", "choice", COLOURS) is Verdict.unparsable


def test_open_r1_lets_repeated_tags_pass_the_layout_check() -> None:
    assert not extract.has_expected_format("<think>a</think><answer>7</answer><answer>7</answer>")
    assert not extract.has_expected_format("<think>a</think><think>b</think><answer>7</answer>")
    assert not extract.has_expected_format("<think><think>a</think></think><answer>7</answer>")


def test_mathruler_refuses_an_unreduced_fraction() -> None:
    assert said("2/4", "1/2", "number") is Verdict.correct


def test_mathruler_refuses_a_letter_with_a_full_stop() -> None:
    assert said("A.", "A", "choice", COLOURS) is Verdict.correct


def test_mathruler_refuses_a_count_with_its_unit() -> None:
    assert said("12 apples", "12", "count") is Verdict.correct


def test_math_verify_takes_ten_percent_for_a_tenth_and_for_ten() -> None:
    assert said("0.1", "10%", "number") is Verdict.incorrect
    assert said("10%", "0.1", "number") is Verdict.incorrect


def test_math_verify_takes_the_last_number_of_a_sentence() -> None:
    assert said("I first got 3 but then the result is 7", "7", "number") is Verdict.unparsable
    assert said("I first got 3 but then the result is 7", "7", "count") is Verdict.unparsable


def test_math_verify_waits_for_its_whole_time_limit_at_a_power_tower() -> None:
    assert said("10^{10^{9}}", "7", "number") is Verdict.unparsable


def test_math_verify_raises_or_says_false_in_a_thread() -> None:
    found: list[Verdict] = []
    thread = threading.Thread(
        target=lambda: found.append(said(r"\sqrt{12}", r"2\sqrt{3}", "number"))
    )
    thread.start()
    thread.join()
    assert found == [Verdict.correct]
