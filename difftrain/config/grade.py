"""Settings of the graders: what is right, and where a part of the way is worth something.

The probe's verdicts and GRPO's reward follow the same settings, so they are one group.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class TextCredit(StrEnum):
    """What a text that differs from the gold is worth."""

    exact = "exact"
    similarity = "similarity"


class BoxesCredit(StrEnum):
    """What an incomplete list of boxes is worth."""

    exact = "exact"
    f1 = "f1"


@dataclass(kw_only=True, slots=True)
class GradeConfig:
    """When an answer is right. Every default is the strict one."""

    text: TextCredit = TextCredit.exact
    """exact: the gold's characters or nothing; similarity: 1 - edit distance / longer length."""
    text_right_from: float = 1.0
    """With text=similarity, the similarity from which on a text counts as right."""
    boxes: BoxesCredit = BoxesCredit.exact
    """exact: all boxes or nothing; f1: 2 x matched / (said + gold). Right is f1 = 1 either way."""
    boxes_iou: float = 0.5
    """Least intersection over union of a matched pair."""
    number_tolerance: float = 0.0
    """Largest relative error of a decimal that counts as equal; 0 is exact arithmetic."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        if not 0 < self.text_right_from <= 1:
            yield "text_right_from", "must lie above 0 and at or below 1"
        if self.text is TextCredit.exact and self.text_right_from < 1:
            yield "text_right_from", "below 1 needs grade.text=similarity"
        if not 0 < self.boxes_iou <= 1:
            yield "boxes_iou", "must lie above 0 and at or below 1"
        if not 0 <= self.number_tolerance < 0.5:
            yield "number_tolerance", "must be at least 0 and below 0.5"
