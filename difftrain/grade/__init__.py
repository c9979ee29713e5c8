"""One grader per answer kind, used by the probe, by GRPO's reward and by the reports.

Strings in, a verdict out; no files, no torch. A response without a closed answer tag is
`unparsable`, which is not `incorrect`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from difftrain.config.difficulty import GradeConfig
from difftrain.grade import boxes, choice, count, extract, number, text
from difftrain.grade.pool import GradeFailure, GraderPool
from difftrain.records import AnswerKind, Sample, Verdict

GRADERS: dict[AnswerKind, Any] = {
    AnswerKind.choice: choice,
    AnswerKind.number: number,
    AnswerKind.count: count,
    AnswerKind.text: text,
    AnswerKind.boxes: boxes,
}
"""The module of each kind: `grade`; `gold_problem`, why a gold answer cannot be graded, or None;
and where an incorrect answer may earn a part of the credit, `partial_credit`."""
STRICT = GradeConfig()


@dataclass(frozen=True, slots=True)
class GradeResult:
    """A verdict, and the answer's credit in [0, 1]: 1 exactly where it is correct."""

    verdict: Verdict
    credit: float


def grade_answer(
    response: str, gold: str, kind: AnswerKind, options: tuple[str, ...], rules: GradeConfig
) -> GradeResult:
    """Verdict and credit of the response's last answer, by the grader of this answer kind."""
    answer = extract.answer(response)
    if answer is None:
        return GradeResult(Verdict.unparsable, 0.0)
    grader = GRADERS[kind]
    verdict = grader.grade(answer, gold, options, rules)
    if verdict is Verdict.incorrect and hasattr(grader, "partial_credit"):
        return GradeResult(verdict, grader.partial_credit(answer, gold, rules))
    return GradeResult(verdict, float(verdict is Verdict.correct))


def grade_with_credit(response: str, sample: Sample, rules: GradeConfig = STRICT) -> GradeResult:
    """Verdict and credit of a response to a sample."""
    return grade_answer(response, sample.answer, sample.answer_kind, sample.options, rules)


def grade(response: str, sample: Sample, rules: GradeConfig = STRICT) -> Verdict:
    """Whether the response's last answer is correct, incorrect or unparsable."""
    return grade_with_credit(response, sample, rules).verdict


def grade_batch(
    pool: GraderPool, responses: Sequence[str], samples: Sequence[Sample], rules: GradeConfig
) -> list[GradeResult | GradeFailure]:
    """Grade responses[i] to samples[i] in the pool's workers, which are killed at their limits."""
    calls = [
        (response, sample.answer, sample.answer_kind, sample.options, rules)
        for response, sample in zip(responses, samples, strict=True)
    ]
    return pool.run(grade_answer, calls)


def gold_problem(gold: str, kind: AnswerKind, options: tuple[str, ...]) -> str | None:
    """Why a gold answer cannot be graded (such samples are quarantined at load time), or None."""
    return GRADERS[kind].gold_problem(gold, options)
