"""One grader per answer kind, used by the probe, by GRPO's reward and by the reports.

Strings go in, a Credit comes out; no files, no torch. A response without a closed answer tag is
unreadable, which is not the same as wrong.
"""

from collections.abc import Callable
from dataclasses import dataclass

from difftrain.config.grade import GradeConfig
from difftrain.grade import boxes, choice, count, extract, number, text
from difftrain.records import AnswerKind, Sample, Verdict

GRADERS: dict[AnswerKind, Callable[[str, str, tuple[str, ...], GradeConfig], Verdict]] = {
    AnswerKind.choice: choice.grade,
    AnswerKind.number: number.grade,
    AnswerKind.count: count.grade,
    AnswerKind.text: text.grade,
    AnswerKind.boxes: boxes.grade,
}

PARTIAL: dict[AnswerKind, Callable[[str, str, GradeConfig], float]] = {
    AnswerKind.text: text.credit,
    AnswerKind.boxes: boxes.credit,
}
"""The kinds for which a part of the way may be worth something; others are worth 1 or 0."""

GOLD_PROBLEMS = {
    AnswerKind.choice: choice.gold_problem,
    AnswerKind.number: number.gold_problem,
    AnswerKind.count: count.gold_problem,
    AnswerKind.text: text.gold_problem,
    AnswerKind.boxes: boxes.gold_problem,
}

STRICT = GradeConfig()


@dataclass(frozen=True, slots=True)
class GradeResult:
    """A verdict, and what the answer is worth in [0, 1]: 1 exactly where it is right."""

    verdict: Verdict
    value: float


UNPARSABLE = GradeResult(Verdict.unparsable, 0.0)
"""The credit of an answer that cannot be read."""


def grade_with_credit(response: str, sample: Sample, rules: GradeConfig = STRICT) -> GradeResult:
    """Verdict and worth of the response's last answer, by the grader of the sample's kind."""
    said = extract.answer(response)
    if said is None:
        return UNPARSABLE
    kind = sample.answer_kind
    verdict = GRADERS[kind](said, sample.answer, sample.options, rules)
    if verdict is Verdict.incorrect and kind in PARTIAL:
        return GradeResult(verdict, PARTIAL[kind](said, sample.answer, rules))
    return GradeResult(verdict, float(verdict is Verdict.correct))


def grade(response: str, sample: Sample, rules: GradeConfig = STRICT) -> Verdict:
    """What the response's last answer is, by the grader of the sample's answer kind."""
    return grade_with_credit(response, sample, rules).verdict


def gold_problem(sample_answer: str, kind: AnswerKind, options: tuple[str, ...]) -> str | None:
    """Why a gold answer cannot be graded (for quarantine at load time); None if it can."""
    return GOLD_PROBLEMS[kind](sample_answer, options)
