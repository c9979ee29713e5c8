"""Settings of the graders: when an answer is correct, and where it may earn partial credit.

The probe's verdicts and GRPO's reward use the same settings, so they are one group.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class TextCredit(StrEnum):
    """The credit of a text that differs from the gold."""

    exact = "exact"
    similarity = "similarity"


class BoxesCredit(StrEnum):
    """The credit of an incomplete list of boxes."""

    exact = "exact"
    f1 = "f1"


@dataclass(kw_only=True, slots=True)
class GradeConfig:
    """When an answer is correct. Every default is the strict one."""

    text: TextCredit = TextCredit.exact
    """exact: the gold's characters or no credit; similarity: 1 - edit distance / longer length."""
    text_correct_min: float = 1.0
    """With text=similarity, the smallest similarity that counts as correct."""
    boxes: BoxesCredit = BoxesCredit.exact
    """exact: all boxes or no credit; f1: 2 x matched / (answer's + gold's boxes). Correct is f1 = 1
    in both cases."""
    boxes_iou: float = 0.5
    """Smallest intersection over union of a matched pair."""
    number_tolerance: float = 0.0
    """Largest relative error of a decimal that counts as equal; 0 is exact arithmetic."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        if not 0 < self.text_correct_min <= 1:
            yield "text_correct_min", "must lie above 0 and at or below 1"
        if self.text is TextCredit.exact and self.text_correct_min < 1:
            yield "text_correct_min", "below 1 needs grade.text=similarity"
        if not 0 < self.boxes_iou <= 1:
            yield "boxes_iou", "must lie above 0 and at or below 1"
        if not 0 <= self.number_tolerance < 0.5:
            yield "number_tolerance", "must be at least 0 and below 0.5"
