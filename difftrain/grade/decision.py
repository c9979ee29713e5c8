"""What a grader returns: the credit of an answer, and how it was decided."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GradeDecision:
    """How one answer was graded. `answer` and `gold` are the values that were compared, as text.

    `credit` is 1 for a correct answer, less than 1 for an incorrect one (0 unless the settings give
    partial credit), None if the answer is unparsable; then `rule` says why.
    """

    credit: float | None
    answer: str | None
    gold: str
    rule: str
