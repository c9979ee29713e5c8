"""Grades responses of the probe (which scores difficulty) and of GRPO; one grader per answer kind.

A response is correct, incorrect or unparsable (for example without closed `<answer>` tags). Grading
reads no files and does not import torch.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from difftrain import images
from difftrain.config.difficulty import BoxCoordinates, GradeConfig, TextCredit
from difftrain.grade import boxes, choice, count, extract, math, number, text, vqa
from difftrain.grade.decision import GradeDecision
from difftrain.grade.pool import GradeFailure, GraderPool
from difftrain.records import AnswerKind, Sample, Verdict

GRADERS: dict[AnswerKind, Any] = {
    AnswerKind.choice: choice,
    AnswerKind.number: number,
    AnswerKind.count: count,
    AnswerKind.text: text,
    AnswerKind.boxes: boxes,
}
"""The module that grades each kind. `decide(answer, gold, options, rules)` returns a GradeDecision.
`gold_problem(gold, options)` returns why a gold answer cannot be graded, or None."""
_WORD = re.compile(r"[^\W\d_]+")
STRICT = GradeConfig()  # no partial credit


@dataclass(frozen=True, slots=True)
class GradeResult:
    """A verdict, and the credit in [0, 1], which is 1 if and only if the answer is correct."""

    verdict: Verdict
    credit: float
    decision: GradeDecision


def grade_with_credit(response: str, sample: Sample, rules: GradeConfig = STRICT) -> GradeResult:
    """Verdict and credit of the response's last answer, by the grader of sample.answer_kind.

    Of several accepted answers the one that gives most credit counts.
    """
    answer, grader = extract.answer(response), GRADERS[sample.answer_kind]
    if answer is None:
        decision = GradeDecision(None, None, sample.answer, "no answer in closed answer tags")
        return GradeResult(Verdict.unparsable, 0.0, decision)
    if rules.text is TextCredit.vqa and sample.answer_kind is AnswerKind.text and sample.accepted:
        return _grade_by_votes(answer, sample, rules)
    best: GradeDecision | None = None
    for gold in dict.fromkeys(sample.accepted or (sample.answer,)):
        text = _boxed_list(response, gold, sample.answer_kind) or answer
        if sample.answer_kind is AnswerKind.number:
            decision = number.decide(text, gold, sample.options, rules, sample.question)
        elif rules.box_coordinates is BoxCoordinates.relative and grader is boxes:
            size = images.png_size(sample.images[0])
            decision = boxes.decide(text, gold, sample.options, rules, size)
        else:
            decision = grader.decide(text, gold, sample.options, rules)
        if best is None or (decision.credit or 0.0) > (best.credit or 0.0):
            best = decision
        if decision.credit == 1:
            break
    assert best is not None, "a sample has an answer"
    if best.credit is None:
        return GradeResult(Verdict.unparsable, 0.0, best)
    return GradeResult(
        Verdict.correct if best.credit == 1 else Verdict.incorrect, best.credit, best
    )


def _grade_by_votes(answer: str, sample: Sample, rules: GradeConfig) -> GradeResult:
    """VQA accuracy, which counts how many of the accepted answers are equal to the answer."""
    score = vqa.vqa_accuracy(answer, sample.accepted)
    score = 1.0 if score >= rules.text_correct_min else score
    golds = "; ".join(vqa.normalize(gold) for gold in sample.accepted)
    decision = GradeDecision(score, vqa.normalize(answer), golds, "VQA accuracy")
    return GradeResult(Verdict.correct if score == 1 else Verdict.incorrect, score, decision)


def _boxed_list(response: str, gold: str, kind: AnswerKind) -> str | None:
    """Several boxes as one list, if the gold answer is a list of numbers or texts; else None.

    Between the boxes there may be no words but `and`, `or` and `for part (a)`.
    """
    content = extract.tag_content(response) or ""
    if kind not in (AnswerKind.number, AnswerKind.text) or content.count("\\boxed") < 2:
        return None
    boxes = extract.all_boxed(content)
    between = content.partition("\\boxed")[2]
    for box in boxes:
        between = between.replace(f"{{{box}}}", " ", 1)
    words = {*_WORD.findall(between.replace("\\text", "").replace("\\boxed", ""))}
    is_plain = words <= {"and", "or", "quad", "qquad", "for", "part", "a", "b", "c"}
    return ", ".join(boxes) if is_plain and number.is_list(gold) else None


def grade(response: str, sample: Sample, rules: GradeConfig = STRICT) -> Verdict:
    """Whether the response's last answer is correct, incorrect or unparsable."""
    return grade_with_credit(response, sample, rules).verdict


def grade_batch(
    pool: GraderPool, responses: Sequence[str], samples: Sequence[Sample], rules: GradeConfig
) -> list[GradeResult | GradeFailure]:
    """Grade responses[i] to samples[i] in the pool's workers, under its time limit."""
    needs_image = rules.box_coordinates is BoxCoordinates.relative
    imageless_samples = [  # less data to send
        sample
        if needs_image and sample.answer_kind is AnswerKind.boxes
        else replace(sample, images=())
        for sample in samples
    ]
    calls = [(*pair, rules) for pair in zip(responses, imageless_samples, strict=True)]
    return pool.run(grade_with_credit, calls, _preparation(samples))


def prepare_workers(pool: GraderPool, samples: Sequence[Sample]) -> None:
    """Let the pool's workers import, while others work, what grading these samples needs."""
    if prepare := _preparation(samples):
        pool.prepare_workers(prepare)


def _preparation(samples: Sequence[Sample]) -> Callable[[], None] | None:
    has_numbers = any(sample.answer_kind is AnswerKind.number for sample in samples)
    return math.load_math_verify if has_numbers else None


def gold_problem(gold: str, kind: AnswerKind, options: tuple[str, ...]) -> str | None:
    """Why a gold answer cannot be graded, or None; the data stage rejects such rows."""
    return GRADERS[kind].gold_problem(gold, options)
