"""No payment for a wrong answer, no refusal of a right one: the table adversarial.tsv."""

import time
from collections import Counter

import pytest

from difftrain import grade
from difftrain.config.grade import BoxesCredit, GradeConfig, TextCredit
from difftrain.grade import expressions
from difftrain.records import AnswerKind, Verdict
from tests.grade.adversarial import Case, cases

CASES = cases()
PARTIAL = GradeConfig(text=TextCredit.similarity, boxes=BoxesCredit.f1)
LIMIT_SECONDS = 2.0


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """The worker for expressions is started before anything is timed."""
    assert expressions.equal(r"\frac{1}{2}", r"\frac{2}{4}")


def test_the_table_holds_hundreds_of_cases_of_every_kind() -> None:
    kinds = Counter(case.sample.answer_kind for case in CASES)
    assert sum(kinds.values()) >= 300
    assert min(kinds[kind] for kind in AnswerKind) >= 40
    assert {case.verdict for case in CASES} == {*Verdict, "unpaid"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.sample.answer_kind}: {case.why}")
def test_the_grader_says_what_the_table_says(case: Case) -> None:
    started = time.monotonic()
    found = grade.grade_with_credit(case.response, case.sample)
    assert time.monotonic() - started < LIMIT_SECONDS
    if case.verdict == "unpaid":
        assert found.verdict is not Verdict.correct
    else:
        assert found.verdict == case.verdict
    assert found.value == (1.0 if case.verdict == "correct" else 0.0)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.sample.answer_kind}: {case.why}")
def test_partial_credit_never_reaches_that_of_a_right_answer(case: Case) -> None:
    found = grade.grade_with_credit(case.response, case.sample, PARTIAL)
    assert (found.value == 1.0) == (case.verdict == "correct")
    assert 0.0 <= found.value <= 1.0
