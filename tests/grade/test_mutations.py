"""Ten thousand randomly mutated answers are graded without a crash and within the time limit.

The answers to mutate are those of adversarial.tsv, which try to trick the graders.
"""

from random import Random

import pytest

from difftrain.config.difficulty import BoxesCredit, GradeConfig, TextCredit
from difftrain.grade import GradeResult, grade_batch
from difftrain.grade.pool import GraderPool
from difftrain.records import Verdict
from tests.grade.adversarial import cases

LIMIT_SECONDS = 5.0  # for grading one answer
MAX_CHARS = 3_000  # length of a mutated answer
PIECES = (
    "<answer>", "</answer>", "<think>", "</think>", "\\boxed{", "\\frac{", "\\sqrt{", "\\text{",
    "\\left(", "}", "{", "(", ")", "[", "]", "^", "_", "=", "\\", "$", "%", ",", ".", "-", "/",
    "'", '"', "```", "\\pi", "\\infty", "\\sin", "x", "e", "i", "0", "9", "99999", "1e9", "A", "or",
    " ", "\n", "\t", "\x00", "\u200b", "\u202e", "Ａ", "７", "é", "😀", "\ud800", "bbox_2d", "NaN",
)  # fmt: skip
"""Texts to insert: tags, LaTeX, brackets, numbers and characters that often break parsers."""


def mutate(text: str, rng: Random) -> str:
    """The text after one to six insertions, deletions, repetitions, moves and changes of case."""
    for _ in range(rng.randint(1, 6)):
        start, end = sorted((rng.randint(0, len(text)), rng.randint(0, len(text))))
        part = text[start:end]
        match rng.randrange(6):
            case 0:
                text = text[:start] + rng.choice(PIECES) * rng.randint(1, 4) + text[start:]
            case 1:
                text = text[:start] + text[end:]
            case 2:
                text = text[:end] + part * rng.randint(1, 3) + text[end:]
            case 3:
                text = text[:start] + part[::-1] + text[end:]
            case 4:
                text = text[:start] + part.swapcase() + text[end:]
            case _:
                text = text[end:] + text[:end]
    return text[:MAX_CHARS]


@pytest.mark.parametrize("num_answers", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutated_answers_are_graded_without_a_crash_and_in_time(num_answers: int) -> None:
    rng = Random(num_answers)  # the number is also the seed
    short_cases = [case for case in cases() if len(case.response) < 1_000]
    rules = GradeConfig(text=TextCredit.similarity, boxes=BoxesCredit.f1)  # with partial credit
    responses, samples = [], []
    for _ in range(num_answers):
        case, keeps_tags = rng.choice(short_cases), rng.random() < 0.7
        opening, closing = "<think>so</think><answer>", "</answer>"
        mutated = mutate(case.response.removeprefix(opening).removesuffix(closing), rng)
        responses.append(f"{opening}{mutated}{closing}" if keeps_tags else mutated)
        samples.append(case.sample)
    with GraderPool(2, LIMIT_SECONDS) as pool:
        results = grade_batch(pool, responses, samples, rules)
        assert pool.num_killed == 0
    grades = [result for result in results if isinstance(result, GradeResult)]
    assert len(grades) == num_answers, "some calls have no result"
    for result in grades:
        assert 0.0 <= result.credit <= 1.0
        assert (result.verdict == Verdict.correct) == (result.credit == 1.0)
