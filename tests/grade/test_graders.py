"""Each grader's verdict (correct, incorrect, unparsable) on typical answers."""

import json
import signal
import threading

import pytest

from difftrain import grade
from difftrain.config.difficulty import BoxesCredit, GradeConfig
from difftrain.records import AnswerKind, Sample, TaskSet, Verdict

CORRECT, INCORRECT, UNPARSABLE = Verdict.correct, Verdict.incorrect, Verdict.unparsable
PARTIAL_CREDIT = GradeConfig(boxes=BoxesCredit.f1)  # credit 0 to 1 by the F1 score of the boxes
COLORS = ("red", "blue", "green", "orange")  # the options A, B, C and D


def sample(answer: str, kind: AnswerKind, options: tuple[str, ...] = ()) -> Sample:
    return Sample(
        sample_id="0" * 16,
        images=(),
        question="?",
        answer=answer,
        answer_kind=kind,
        options=options,
        task="test",
        task_set=TaskSet.perception,
        source="test",
    )


def verdict_of(kind: AnswerKind, answer: str, gold: str, options: tuple[str, ...] = ()) -> Verdict:
    """The verdict of the kind's grader on an answer without its tags."""
    # STRICT: no partial credit. The credit is None if the answer is unparsable.
    credit = grade.GRADERS[kind].decide(answer, gold, options, grade.STRICT).credit
    return UNPARSABLE if credit is None else CORRECT if credit == 1 else INCORRECT


def box_credit(answer: str, gold: str) -> float:
    """The F1 score of the answer's boxes."""
    return grade.GRADERS[AnswerKind.boxes].decide(answer, gold, (), PARTIAL_CREDIT).credit


@pytest.mark.parametrize("kind", AnswerKind)
@pytest.mark.parametrize("response", ["", "<answer></answer>", "<answer> </answer>", "7"])
def test_an_empty_or_missing_answer_is_unparsable_for_every_kind(
    kind: AnswerKind, response: str
) -> None:
    assert grade.grade(response, sample("7", kind)) is UNPARSABLE


@pytest.mark.parametrize("response", ["<answer>\n7\n</answer>", "<answer>\\boxed{7}</answer>"])
@pytest.mark.parametrize("kind", [AnswerKind.count, AnswerKind.number, AnswerKind.text])
def test_an_answer_may_have_white_space_or_a_latex_box_around_it(
    response: str, kind: AnswerKind
) -> None:
    assert grade.grade(response, sample("7", kind)) is CORRECT


@pytest.mark.parametrize("kind", [AnswerKind.count, AnswerKind.number, AnswerKind.text])
def test_17_is_not_7(kind: AnswerKind) -> None:
    assert grade.grade("<answer>17</answer>", sample("7", kind)) is INCORRECT


@pytest.mark.parametrize(
    "answer",
    ["B", "b", "(B)", "[B]", "B.", "B)", "**B**", "Option B", "The answer is B.", r"\text{B}"],
)
def test_a_letter_in_any_decoration_is_correct(answer: str) -> None:
    assert verdict_of(AnswerKind.choice, answer, "B", COLORS) is CORRECT


@pytest.mark.parametrize("answer", ["blue", "Blue.", "B. blue", "(B) blue", "**B.** blue"])
def test_the_exact_text_of_the_correct_option_is_correct(answer: str) -> None:
    assert verdict_of(AnswerKind.choice, answer, "B", COLORS) is CORRECT


@pytest.mark.parametrize(
    "answer",
    [
        "A or B",
        "A, B",
        "A B C D",
        "A. B. C. D.",
        "red or blue",
        "(A) red (B) blue",
        "B. red",
        "dark blue",
    ],
)
def test_several_letters_or_a_wrong_text_are_unparsable(answer: str) -> None:
    assert verdict_of(AnswerKind.choice, answer, "B", COLORS) is UNPARSABLE


def test_a_letter_outside_the_options_is_incorrect() -> None:
    assert verdict_of(AnswerKind.choice, "E", "B", COLORS) is INCORRECT


def test_a_text_that_two_options_share_is_unparsable() -> None:
    assert verdict_of(AnswerKind.choice, "red", "A", ("red", "Red")) is UNPARSABLE


def test_a_letter_is_graded_even_if_the_options_are_unknown() -> None:
    assert verdict_of(AnswerKind.choice, "B. the blue one", "B") is CORRECT
    assert verdict_of(AnswerKind.choice, "A. or B.", "A") is UNPARSABLE


@pytest.mark.parametrize(
    "answer", ["1,234", "1234", "1234 shapes", "**1234**", "\uff11\uff12\uff13\uff14", "1234."]
)  # \uff11 to \uff14 are the full-width digits 1 to 4
def test_a_count_is_one_whole_number(answer: str) -> None:
    assert verdict_of(AnswerKind.count, answer, "1234") is CORRECT


@pytest.mark.parametrize(
    "answer", ["7 or 8", "7,8", "7/8", "many", "H7O", "3-7", "7" * 300]
)  # the last one is too long to be read
def test_a_count_with_two_numbers_or_none_is_unparsable(answer: str) -> None:
    assert verdict_of(AnswerKind.count, answer, "7") is UNPARSABLE


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("0.5", "1/2"),
        ("2/4", "1/2"),
        (r"\frac{1}{2}", "0.5"),
        (r"$-\dfrac{1}{2}$", "-0.5"),
        ("1,000", "1000"),
        ("x = 5", "5"),
        ("5 cm", "5"),
        (r"5 \text{ cm}", "5cm"),
        (r"45^\circ", "45"),
        ("45 degrees", "45°"),
        ("1e3", "1000"),
        ("7.0", "7"),
        (r"\sqrt{12}", r"2\sqrt{3}"),
        (r"\frac{\pi}{2}", r"\pi/2"),
        ("2(x+1)", "2x+2"),
    ],
)
def test_equal_values_are_correct_in_any_notation(answer: str, gold: str) -> None:
    assert verdict_of(AnswerKind.number, answer, gold) is CORRECT


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("0.333", "1/3"),
        ("5 cm", "5 m"),
        ("10%", "0.1"),
        (r"\sqrt{2}", r"\sqrt{3}"),
        ("3", r"\sqrt{3}"),
        ("71", "7"),
        ("1,2", "12"),
    ],
)
def test_unequal_values_are_not_correct(answer: str, gold: str) -> None:
    assert verdict_of(AnswerKind.number, answer, gold) is not CORRECT


@pytest.mark.parametrize(
    "answer",
    [
        "yes",
        "Tampa",
        r"\text{sey}",
        "7 or 8",
        "1" + "+1" * 150,
        "10^{10^{9}}",
        "2^3^4^5",
        "9^{99999}",
        "1/0",
        r"\sum_{n=1}^{9} n",
        "99999!",
        "((2^{99})^{99})^{99}",
        "__import__('os')",
    ],
)
def test_words_and_expressions_too_costly_to_evaluate_are_unparsable(answer: str) -> None:
    assert verdict_of(AnswerKind.number, answer, "7") is UNPARSABLE


def test_a_word_is_not_read_as_a_product_of_letters() -> None:
    assert verdict_of(AnswerKind.number, "ampTa", "Tampa") is UNPARSABLE


def test_a_number_is_graded_in_any_thread() -> None:
    verdicts: list[Verdict] = []
    worker = threading.Thread(
        target=lambda: verdicts.append(verdict_of(AnswerKind.number, r"\sqrt{12}", r"2\sqrt{3}"))
    )
    worker.start()
    worker.join()
    assert verdicts == [CORRECT]


def test_grading_leaves_the_callers_sigalrm_timer_running() -> None:
    timer_before = signal.getitimer(signal.ITIMER_REAL)
    handler_before = signal.signal(signal.SIGALRM, lambda *_: None)
    try:
        signal.setitimer(signal.ITIMER_REAL, 100)  # seconds
        verdict_of(AnswerKind.number, r"\sqrt{12}", r"2\sqrt{3}")
        seconds_left, _ = signal.getitimer(signal.ITIMER_REAL)
        assert seconds_left > 50
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer_before)
        signal.signal(signal.SIGALRM, handler_before)


def test_a_text_is_correct_in_any_case_width_and_spacing() -> None:
    assert verdict_of(AnswerKind.text, "  Stop\n SIGN ", "stop sign") is CORRECT
    assert verdict_of(AnswerKind.text, "\uff33\uff34\uff2f\uff30", "stop") is CORRECT  # full width
    assert verdict_of(AnswerKind.text, "Straße", "STRASSE") is CORRECT


@pytest.mark.parametrize("answer", ["s", "stop", "big stop sign", "stop sign stop sign"])
def test_a_part_of_the_gold_text_or_a_longer_text_is_incorrect(answer: str) -> None:
    assert verdict_of(AnswerKind.text, answer, "stop sign") is INCORRECT


def box(x: int, label: str = "cat") -> dict:
    """A box of 10 x 10 pixels."""
    return {"bbox_2d": [x, 0, x + 10, 10], "label": label}


TWO_CATS = json.dumps([box(0), box(50)])


@pytest.mark.parametrize(
    "answer",
    [
        TWO_CATS,
        json.dumps([box(50), box(0)]),
        f"```json\n{TWO_CATS}\n```",
        TWO_CATS.replace('"', "'"),
        TWO_CATS.replace("cat", "CAT"),
        TWO_CATS.replace("[0, 0,", "[1, 0,"),  # overlaps the gold box enough, see below
    ],
)
def test_boxes_are_correct_in_any_order_and_quoting(answer: str) -> None:
    assert verdict_of(AnswerKind.boxes, answer, TWO_CATS) is CORRECT


@pytest.mark.parametrize(
    ("answer", "credit"),
    [  # credit: 2 x matched boxes / (boxes in the answer + 2 gold boxes)
        ([box(0)], 2 / 3),
        ([box(0), box(50), box(80)], 4 / 5),
        ([box(0), box(0)], 1 / 2),
        ([box(0), box(50, "dog")], 1 / 2),
        ([box(0), {"bbox_2d": [50, 0, 60, 10]}], 1 / 2),
        ([box(0), {"bbox_2d": [60, 10, 50, 0], "label": "cat"}], 1 / 2),
        ([], 0.0),
    ],
)
def test_missing_extra_and_mislabeled_boxes_lower_the_credit(answer: list, credit: float) -> None:
    assert verdict_of(AnswerKind.boxes, json.dumps(answer), TWO_CATS) is INCORRECT
    assert box_credit(json.dumps(answer), TWO_CATS) == pytest.approx(credit)


def test_boxes_are_matched_one_to_one_with_as_many_pairs_as_possible() -> None:
    gold = json.dumps([box(0), box(4)])
    # Boxes match from an intersection over union of 0.5 on. box(2) overlaps box(0) and box(4) by
    # 8/12, box(-3) overlaps box(0) by 7/13 and box(4) by 3/17. So box(2) must be matched with
    # box(4).
    answer = json.dumps([box(2), box(-3)])
    assert box_credit(answer, gold) == 1


def test_a_label_in_single_quotes_may_have_an_apostrophe_and_double_quotes() -> None:
    answer = "[{'bbox_2d': [0, 0, 10, 10], 'label': 'driver's \"seat\"'}]"
    gold = json.dumps([{"bbox_2d": [0, 0, 10, 10], "label": 'driver\'s "seat"'}])
    assert verdict_of(AnswerKind.boxes, answer, gold) is CORRECT


@pytest.mark.parametrize(
    "answer",
    [
        "a cat on the left",
        "[1, 2, 3, 4]",
        '[{"bbox_2d": [0, 0, 10], "label": "cat"}]',
        '[{"bbox_2d": [0, 0, 10, NaN], "label": "cat"}]',
        '[{"bbox_2d": [0, 0, 10, 1e999], "label": "cat"}]',
        '[{"bbox_2d": ["0", 0, 10, 10], "label": "cat"}]',
        "[" * 100_000,
        "[" * 40_000,
        "__import__('os').system('true')",
    ],
)
def test_anything_but_a_list_of_boxes_is_unparsable(answer: str) -> None:
    assert verdict_of(AnswerKind.boxes, answer, TWO_CATS) is UNPARSABLE


@pytest.mark.parametrize(
    ("gold", "kind", "options"),
    [
        ("E", AnswerKind.choice, COLORS),
        ("purple", AnswerKind.choice, COLORS),
        ("A, C", AnswerKind.choice, ()),
        ("many", AnswerKind.count, ()),
        ("7.5", AnswerKind.count, ()),
        ("see above", AnswerKind.number, ()),
        ("", AnswerKind.number, ()),
        (" ", AnswerKind.text, ()),
        ("[]", AnswerKind.boxes, ()),
        ("left", AnswerKind.boxes, ()),
        ('[{"bbox_2d": [9, 9, 1, 1], "label": "cat"}]', AnswerKind.boxes, ()),
    ],
)
def test_a_gold_answer_that_cannot_be_graded_is_a_problem(
    gold: str, kind: AnswerKind, options: tuple[str, ...]
) -> None:
    assert grade.gold_problem(gold, kind, options)


@pytest.mark.parametrize(
    ("gold", "kind", "options"),
    [
        ("B", AnswerKind.choice, COLORS),
        ("7", AnswerKind.count, ()),
        (r"\frac{\sqrt{3}}{2}", AnswerKind.number, ()),
        ("-3.5 cm", AnswerKind.number, ()),
        ("Yes", AnswerKind.text, ()),
        (TWO_CATS, AnswerKind.boxes, ()),
    ],
)
def test_a_gold_answer_without_a_problem_is_graded_correct_as_an_answer(
    gold: str, kind: AnswerKind, options: tuple[str, ...]
) -> None:
    assert grade.gold_problem(gold, kind, options) is None
    response = f"<think>so</think><answer>{gold}</answer>"
    assert grade.grade(response, sample(gold, kind, options)) is CORRECT
