"""VQA accuracy by ten annotators, and its normalization."""

import pytest

from difftrain.grade import vqa


@pytest.mark.parametrize(
    ("num_equal", "accuracy"),
    [  # mean over the ten annotators of min(1, other annotators with this answer / 3)
        (0, 0.0),
        (1, 9 / 10 * 1 / 3),
        (2, (2 * 1 / 3 + 8 * 2 / 3) / 10),
        (3, (3 * 2 / 3 + 7) / 10),
        (4, 1.0),
        (10, 1.0),
    ],
)
def test_accuracy_leaves_each_annotator_out_once(num_equal: int, accuracy: float) -> None:
    accepted = ["Yes"] * num_equal + ["no"] * (10 - num_equal)
    assert vqa.vqa_accuracy("yes.", accepted) == pytest.approx(accuracy)


def test_one_accepted_answer_must_be_equal_after_normalization() -> None:
    assert vqa.vqa_accuracy("The two dogs", ["2 dogs"]) == 1
    assert vqa.vqa_accuracy("three dogs", ["2 dogs"]) == 0


@pytest.mark.parametrize(
    ("answer", "normalized"),
    [
        ("A  Red\tcar.", "red car"),
        ("none", "0"),
        ("Ten", "10"),
        ("1,000", "1000"),
        ("3.5", "3.5"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("black/white", "black white"),
        ("black / white", "black white"),
        ("t-shirt", "t shirt"),
        ("", ""),
    ],
)
def test_answers_are_normalized_as_in_the_official_code(answer: str, normalized: str) -> None:
    assert vqa.normalize(answer) == normalized
