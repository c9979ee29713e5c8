"""The graders give each answer in adversarial.tsv its expected verdict."""

import time
from collections import Counter

import pytest

from difftrain import grade
from difftrain.config.difficulty import BoxesCredit, GradeConfig, TextCredit
from difftrain.grade import math
from difftrain.records import AnswerKind, Verdict
from tests.grade.adversarial import Case, cases

CASES = cases()
PARTIAL_CREDIT = GradeConfig(text=TextCredit.similarity, boxes=BoxesCredit.f1)
LIMIT_SECONDS = 2.0  # for grading one answer


@pytest.fixture(scope="module", autouse=True)
def start_math_verify_worker() -> None:
    """Start the worker of math-verify, which takes seconds, before any test measures time."""
    assert math.expressions_equal(r"\frac{1}{2}", r"\frac{2}{4}")


def test_the_file_has_300_cases_and_40_of_every_answer_kind() -> None:
    kinds = Counter(case.sample.answer_kind for case in CASES)
    assert len(CASES) >= 300
    assert min(kinds[kind] for kind in AnswerKind) >= 40
    assert {case.verdict for case in CASES} == {*Verdict, "not_correct"}


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case.sample.answer_kind}: {case.reason}"
)
def test_an_answer_gets_its_expected_verdict_in_time(case: Case) -> None:
    started = time.monotonic()
    result = grade.grade_with_credit(case.response, case.sample)  # without partial credit
    assert time.monotonic() - started < LIMIT_SECONDS
    if case.verdict == "not_correct":
        assert result.verdict is not Verdict.correct
    else:
        assert result.verdict == case.verdict
    assert result.credit == (1.0 if case.verdict == "correct" else 0.0)


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case.sample.answer_kind}: {case.reason}"
)
def test_only_a_correct_answer_has_credit_1(case: Case) -> None:
    result = grade.grade_with_credit(case.response, case.sample, PARTIAL_CREDIT)
    assert (result.credit == 1.0) == (case.verdict == "correct")
    assert 0.0 <= result.credit <= 1.0
