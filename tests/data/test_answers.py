r"""Gold answers lose their tags and \boxed{}; task, options and text decide their kind.

The arguments are infer_kind(gold, task, question, options) and choice_letter(gold, options).
"""

import pytest

from difftrain.data import answers
from difftrain.data.quarantine import RowError
from difftrain.records import AnswerKind, TaskSet

LETTERED_QUESTION = "Which is larger?\nA. the red one\nB. the blue one"


@pytest.mark.parametrize(
    ("gold", "expected"),
    [
        (r"\boxed{52}", "52"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        ("<answer>\n1\n</answer>", "1"),
        (r"<answer>\boxed{open}</answer>", "open"),
        (r"first \boxed{3}, then \boxed{4}", "4"),
        (r"\boxed{\text{open}}", "open"),
        (r"\boxed{52", r"\boxed{52"),
        (" 52 ", "52"),
    ],
)
def test_a_gold_answer_is_the_content_of_its_tags_and_its_last_complete_boxed(gold, expected):
    assert answers.unwrap(gold) == expected


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        ("cv_detection", AnswerKind.boxes),
        ("detection", AnswerKind.boxes),
        ("cv_grounding", AnswerKind.boxes),
        ("grounding", AnswerKind.boxes),
        ("ocr", AnswerKind.text),
        ("cv_ocr", AnswerKind.text),
        ("counting", AnswerKind.count),
    ],
)
def test_a_perception_task_decides_the_answer_kind(task, kind):
    assert answers.infer_kind("7", task, "How many?", ()) is kind
    assert answers.task_set(task, kind) is TaskSet.perception


@pytest.mark.parametrize(
    "gold",
    [
        *("52", "-3.5", "1,000", "12 cm", r"60^\circ", "50%", r"\frac{1}{2}", r"2\sqrt{3}"),
        *(r"\pi", "$7$", "3:4", "(1,2)", "x=3", "2x+1", "-3", "2-x", "10^{-3}", "1/2"),
        # quantities in LaTeX
        *(r"12\text{ cm}^2", r"5\mathrm{m}", r"3.2\,\text{kg}", r"6\times10^{8}", "12 cm^2"),
        # lists, pairs, intervals, sets and matrices
        *("1, 2", "1, 2, 3", "1,000, 2,000", r"\frac{1}{2}, 3", "x=1, y=2", "(1, 2)", "[0, 1)"),
        *(r"(-\infty, 3]", "(0, 1) ∪ (2, 3)", r"\{1, 2\}", "(1,2), (3,4)"),
        *(r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{bmatrix} a \\ b \end{bmatrix}"),
    ],
)
def test_an_expression_is_inferred_as_a_number(gold):
    assert answers.infer_kind(gold, "math", "What is it?", ()) is AnswerKind.number


@pytest.mark.parametrize(
    "gold",
    [
        *("red", "No entry", "7 red apples", "B", "N/A", "CO2 level", "yes", "May 1, 2007"),
        *("(red, blue)", "1, two", r"\angle 1"),
        # dates, times and years
        *("2022-05-01", "05/01/2022", "1.5.2022", "10:30", "12:30 pm", "9:05 a.m.", "5pm"),
        *("1:02:03", "2007-2008", "2007–2008", "2nd", "21st"),
        # ranges, scores, phone numbers, ratios of three, sizes
        *("16-20", "16 - 20", "10%-20%", "$5-$10", "1.5-2.5", "3-2", "16--20", "1,000-2,000"),
        *("555-1234", "555-123-4567", "(555) 123-4567", "+1 555 123 4567", "1:2:3"),
        *("1920x1080", "1920 × 1080", r"3\times 4", "2x3x4"),
    ],
)
def test_words_and_digits_that_are_not_computed_with_are_inferred_as_text(gold):
    assert answers.infer_kind(gold, "science", "What is it?", ()) is AnswerKind.text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["3", "three", "3"], ("3", "three", "3")),
        (["3", 4, 5.0], ("3", "4", "5")),
        ([2, 3], ("2", "3")),
        ([{"answer": "yes", "answer_id": 1}, {"answer": "no"}], ("yes", "no")),
        ([r"\boxed{3}", None], ("3",)),
        ("['a', \"b's\"]", ("a", "b's")),
        ('["a", "b"]', ("a", "b")),
        ('[{"answer": "a"}, {"answer": "b"}]', ("a", "b")),
        # A text of numbers may be an interval; four numbers may be a box.
        ("[1, 2]", None),
        ([1, 2, 3, 4], None),
        ([[1, 2, 3, 4], [1, 2, 3, 4]], None),
        ([{"bbox_2d": [1, 2, 3, 4]}], None),
        ("[no list", None),
        ("red", None),
        ([], None),
    ],
)
def test_a_list_of_texts_and_numbers_has_several_accepted_answers(value, expected):
    assert answers.accepted_answers(value) == expected


def test_accepted_answers_of_different_kinds_are_compared_as_text():
    assert answers.infer_kind_of_all(["3", "5"], "", "How many?", ()) is AnswerKind.count
    assert answers.infer_kind_of_all(["3", "3.5"], "", "How many?", ()) is AnswerKind.number
    assert answers.infer_kind_of_all(["3", "three"], "", "How many?", ()) is AnswerKind.text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"text": ["Paris"], "answer_start": [0]}, ("Paris",)),  # SQuAD
        ({"answer": ["cat", "cat"], "answer_id": [1, 2]}, ("cat", "cat")),  # Sequence({...})
        ({"value": "cat"}, ("cat",)),
        ({"answer": None, "value": 3}, ("3",)),  # Arrow adds null fields
        ('{"text": ["Paris"], "answer_start": [0]}', ("Paris",)),
        ([{"text": "cat"}, {"value": "dog"}], ("cat", "dog")),
        ("{1, 2}", None),
        ({"bbox_2d": [1, 2, 3, 4]}, None),
        ([{"bbox_2d": [1, 2, 3, 4], "text": "cat"}], None),
    ],
)
def test_an_object_with_answers_is_its_answers(value, expected):
    assert answers.accepted_answers(value) == expected


@pytest.mark.parametrize("value", [{"label": "cat"}, {}, {"answer": {"a": 1}}, {"text": None}])
def test_any_other_object_is_no_gold_answer(value):
    with pytest.raises(RowError, match="an object needs a text or a list under answer, answers"):
        answers.accepted_answers(value)


def test_four_numbers_are_a_box_only_if_they_can_be_corners():
    assert answers.accepted_answers([3, 3, 3, 3]) == ("3", "3", "3", "3")
    assert answers.accepted_answers([3, 1, 2, 4]) == ("3", "1", "2", "4")
    assert answers.accepted_answers([1, 2, 3, 4]) is None


@pytest.mark.parametrize(
    ("gold", "question", "kind"),
    [
        ("3", "How many cats are there?", AnswerKind.count),
        ("1,200", "What is the number of cats?", AnswerKind.count),
        ("3.5", "How many cats are there?", AnswerKind.number),
        ("3 cm", "How many is it?", AnswerKind.number),
        ("60", "How many degrees is angle A?", AnswerKind.number),
        ("50", "How many percent are red?", AnswerKind.number),
        ("4", "How many square meters is it?", AnswerKind.number),
        ("4", "How many square tiles are there?", AnswerKind.count),
        ("3", "What is x?", AnswerKind.number),
    ],
)
def test_a_whole_number_of_things_is_a_count(gold, question, kind):
    assert answers.infer_kind(gold, "math", question, ()) is kind


@pytest.mark.parametrize("gold", ["A4", "B-52", "F-16", "I-95", "3D", "5G", "AB12C"])
def test_names_with_digits_are_inferred_as_text(gold):
    assert answers.infer_kind(gold, "", "Which is it?", ()) is AnswerKind.text


@pytest.mark.parametrize("gold", ["2x", "x1 + x2", "12V", "300K", "A=4"])
def test_algebra_and_quantities_are_no_names(gold):
    assert answers.infer_kind(gold, "", "What is it?", ()) is AnswerKind.number


def test_two_numbers_with_to_between_are_a_text_unless_a_ratio_is_asked_for():
    assert answers.infer_kind("9 to 5", "", "When is it open?", ()) is AnswerKind.text
    assert answers.infer_kind("2 to 3", "", "What is the ratio of a to b?", ()) is AnswerKind.number
    assert answers.infer_kind("2 to 3", "find_ratio", "What is it?", ()) is AnswerKind.number


def test_accepted_answers_that_cannot_be_graded_are_dropped_unless_none_is_left():
    golds = ["3", "a few", "three", "3"]
    assert answers.gradable_answers(golds, AnswerKind.count, ()) == ("3", "three", "3")
    with pytest.raises(RowError, match="'a few' is not one number"):
        answers.gradable_answers(["a few", "many"], AnswerKind.count, ())
    assert answers.gradable_answers(["red", "green", "A"], AnswerKind.choice, ("red", "blue")) == (
        *("A", "A"),
    )


@pytest.mark.parametrize(
    "question",
    [
        LETTERED_QUESTION,
        "Which?\n(A) red\n(B) blue",
        "Which? A: red B: blue",
        "Which?\nA) red\nB) blue",
    ],
)
@pytest.mark.parametrize("gold", ["B", "(B)", "B.", "b"])
def test_a_letter_is_a_choice_if_the_question_lists_lettered_options(question, gold):
    assert answers.infer_kind(gold, "puzzle", question, ()) is AnswerKind.choice
    assert answers.choice_letter(gold, ()) == "B"


def test_a_letter_outside_the_options_is_a_text():
    assert answers.infer_kind("D", "puzzle", LETTERED_QUESTION, ()) is AnswerKind.text


def test_letters_that_name_points_are_not_options():
    assert (
        answers.infer_kind("A", "math", "Triangle ABC has a right angle at A.", ())
        is AnswerKind.text
    )


def test_a_row_with_options_is_a_choice_unless_its_task_needs_boxes():
    assert answers.infer_kind("12", "math", "How many?", ("11", "12")) is AnswerKind.choice
    assert answers.infer_kind("[1, 2, 3, 4]", "cv_grounding", "Where?", ("a",)) is AnswerKind.boxes


def test_without_a_task_boxes_are_recognized_by_the_key_bbox_2d():
    gold = "[{'bbox_2d': [1, 2, 3, 4]}]"
    assert answers.infer_kind(gold, "unknown", "Where?", ()) is AnswerKind.boxes
    assert answers.task_set("unknown", AnswerKind.boxes) is TaskSet.perception
    assert answers.task_set("unknown", AnswerKind.text) is TaskSet.reasoning


def test_the_text_of_an_option_becomes_its_letter():
    assert answers.choice_letter("Blue", ("red", "blue")) == "B"
    assert answers.choice_letter("A", ("red", "blue")) == "A"


def test_an_answer_that_is_the_letter_of_one_option_and_the_text_of_another_is_rejected():
    with pytest.raises(RowError, match="the letter of one option and the text of another"):
        answers.choice_letter("B", ("B", "C", "A"))
    # Here letter and text name the same option.
    assert answers.choice_letter("A", ("A", "B")) == "A"


def test_letter_marks_are_removed_from_options():
    assert answers.strip_option_marks(["A. red", "B. blue"]) == ("red", "blue")
    assert answers.strip_option_marks(["(A) red", "(B) blue"]) == ("red", "blue")
    # A and C are not the first two letters, so they are initials and not marks.
    assert answers.strip_option_marks(["A. Smith", "C. Jones"]) == ("A. Smith", "C. Jones")


@pytest.mark.parametrize(
    "value",
    [
        {"B": "dog", "A": "cat"},
        {"A": "cat", "B": "dog", "C": None},  # Arrow adds null fields
        {"label": ["B", "A"], "text": ["dog", "cat"]},
        [{"label": "A", "text": "cat"}, {"label": "B", "text": "dog"}],
        "A. cat\nB. dog",
        "(A) cat (B) dog",
        "['cat', 'dog']",
    ],
)
def test_options_of_every_form_are_in_the_order_of_their_letters(value):
    assert answers.option_texts(value) == ["cat", "dog"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"A": "cat", "B": None, "C": "dog"}, "found A, C"),
        ({"label": ["1", "2"], "text": ["cat", "dog"]}, "each label must be a letter"),
        ({"label": ["A", "A"], "text": ["cat", "dog"]}, "found A, A"),
        ("cat or dog", "must be a list"),
    ],
)
def test_options_whose_letters_are_unclear_are_rejected(value, reason):
    with pytest.raises(RowError, match=reason):
        answers.option_texts(value)


def test_a_whole_number_is_the_index_of_an_option_unless_options_are_numbers():
    assert answers.option_letter_of_index(1, ("cat", "dog")) == "B"
    assert answers.option_letter_of_index(2, ("cat", "dog")) is None
    assert answers.option_letter_of_index(52, ("50", "52")) is None
    assert answers.option_letter_of_index(1, ("0", "1")) == "B"  # as index and as text
    with pytest.raises(
        RowError, match=r'write the option\'s letter \("B"\) or its text as a string'
    ):
        answers.option_letter_of_index(1, ("1", "2"))


def test_several_letters_are_no_accepted_answers_of_a_choice() -> None:
    options = ("cat", "dog")
    assert answers.gradable_answers(["B", "dog"], AnswerKind.choice, options) == ("B", "B")
    with pytest.raises(answers.GoldError, match="several options"):
        answers.gradable_answers(["A", "B"], AnswerKind.choice, options)


def test_people_are_counted_and_meters_are_measured() -> None:
    question = "How many {} are there?".format
    assert answers.infer_kind("3", "vqa", question("people"), ()) is AnswerKind.count
    assert answers.infer_kind("3", "vqa", question("meters"), ()) is AnswerKind.number
