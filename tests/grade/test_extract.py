"""The answer is found in a response, and the format of the response is checked."""

import time

import pytest

from difftrain.grade import extract


def test_the_answer_is_in_the_last_closed_tags() -> None:
    assert extract.answer("<answer>3</answer> no, <answer>\n7\n</answer> and <answer>9") == "7"


def test_a_boxed_answer_inside_the_tags_is_unwrapped() -> None:
    assert extract.answer("<answer>\\boxed{7}</answer>") == "7"
    assert extract.answer(r"<answer>so \boxed{1} or \boxed{\frac{1}{2}}</answer>") == r"\frac{1}{2}"


def test_a_boxed_answer_with_unbalanced_braces_is_skipped() -> None:
    assert extract.answer(r"<answer>\boxed{7} then \boxed{8</answer>") == "7"


def test_a_boxed_answer_outside_the_answer_tags_is_ignored() -> None:
    assert extract.answer(r"\boxed{7} <answer>8</answer>") == "8"


@pytest.mark.parametrize(
    "response", ["", "7", "<answer>7", "7</answer>", "<answer> \n </answer>", r"\boxed{7}"]
)
def test_a_response_without_text_in_closed_answer_tags_has_no_answer(response: str) -> None:
    assert extract.answer(response) is None


def test_fifty_thousand_unclosed_boxed_answers_are_read_in_two_seconds() -> None:
    started = time.monotonic()
    assert extract.boxed_content("\\boxed{" * 50_000) is None
    assert time.monotonic() - started < 2


def test_think_tags_followed_by_answer_tags_are_the_expected_format() -> None:
    assert extract.has_expected_format("<think>\n3 + 4\n</think>\n<answer>7</answer>\n")


@pytest.mark.parametrize(
    "response",
    [
        "<answer>7</answer>",
        "<think>a</think> so <answer>7</answer>",
        "<think>a</think><answer>7</answer> indeed",
        "<answer>7</answer><think>a</think>",
        "<think>a</think><answer>7</answer><answer>7</answer>",
        "<think>a <answer>7</answer></think>",
        "<think>a<answer>7</think></answer>",
        "<think>a</think><think>b</think><answer>7</answer>",
    ],
)
def test_any_other_format_is_not_the_expected_one(response: str) -> None:
    assert not extract.has_expected_format(response)
