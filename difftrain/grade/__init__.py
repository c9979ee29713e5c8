"""One grader per answer kind, used by the probe, by GRPO's reward and by the reports.

Strings go in, a Verdict comes out; no files, no torch. A response without a closed answer tag is
unreadable, which is not the same as wrong.
"""

from difftrain.grade import boxes, choice, count, extract, number, text
from difftrain.records import AnswerKind, Sample, Verdict

GRADERS = {
    AnswerKind.choice: choice.grade,
    AnswerKind.number: number.grade,
    AnswerKind.count: count.grade,
    AnswerKind.text: text.grade,
    AnswerKind.boxes: boxes.grade,
}

GOLD_PROBLEMS = {
    AnswerKind.choice: choice.gold_problem,
    AnswerKind.number: number.gold_problem,
    AnswerKind.count: count.gold_problem,
    AnswerKind.text: text.gold_problem,
    AnswerKind.boxes: boxes.gold_problem,
}


def grade(response: str, sample: Sample) -> Verdict:
    """What the response's last answer is worth, by the grader of the sample's answer kind."""
    said = extract.answer(response)
    if said is None:
        return Verdict.unreadable
    return GRADERS[sample.answer_kind](said, sample.answer, sample.options)


def gold_problem(sample_answer: str, kind: AnswerKind, options: tuple[str, ...]) -> str | None:
    """Why a gold answer cannot be graded (for quarantine at load time); None if it can."""
    return GOLD_PROBLEMS[kind](sample_answer, options)
