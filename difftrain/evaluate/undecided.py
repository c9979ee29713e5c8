"""Marks that nothing could decide, and the words where a benchmark has no others. Pure."""

from collections.abc import Mapping, Sequence

from difftrain.records import GradedBy, ItemResult

ALWAYS_JUDGED = "MMVet"
"""The benchmark that has no rules of its own."""
UNASKED = "not asked: "
"""So a mark begins that stands for an item nobody can be asked, as one without its picture."""
UNANSWERED = "no answer: "
"""So one begins whose engine gave no answer; the next run asks again."""


def count(marks: Sequence[ItemResult]) -> int:
    """Marks that no rule or reply decided; they count 0, or as their drawn option does.

    Those whose judge failed are not here.
    """
    return sum(mark.graded_by is GradedBy.failed and mark.score is not None for mark in marks)


def unasked(marks: Sequence[ItemResult]) -> int:
    """Marks of items that could not be asked; they have no score."""
    return sum(_begins(mark, UNASKED) for mark in marks)


def unanswered(marks: Sequence[ItemResult]) -> int:
    """Marks of items that the engine did not answer; they have no score."""
    return sum(_begins(mark, UNANSWERED) for mark in marks)


def _begins(mark: ItemResult, word: str) -> bool:
    return mark.score is None and (mark.extracted or "").startswith(word)


def is_drawn(mark: ItemResult) -> bool:
    """Whether the option was drawn at random, which is no decision either (fallback=random)."""
    scored = mark.graded_by is GradedBy.failed and mark.score is not None
    return scored and mark.extracted is not None


def nothing_decided(marks: Sequence[ItemResult]) -> bool:
    """Whether no mark comes from a rule or a reply, so that a mean would be made of failures."""
    return all(mark.score is None or mark.graded_by is GradedBy.failed for mark in marks)


def why_none(benchmark: str, marks: Sequence[ItemResult]) -> str | None:
    """Why a benchmark with these marks has no score; None if it has one."""
    if not marks or not nothing_decided(marks):
        return None
    unscored = sum(mark.score is None for mark in marks)
    if unscored:
        rest = ", and nothing decided the others" if unscored < len(marks) else ""
        return f"{unscored} of {len(marks)} items got no score{rest}"
    if benchmark.removeprefix("shapes/") == ALWAYS_JUDGED:
        return f"{ALWAYS_JUDGED} needs a judge: none was asked, or none of its replies was a score"
    return f"neither a rule nor a judge decided any of the {len(marks)} items"


def why_no_mean(marks_by_benchmark: Mapping[str, Sequence[ItemResult]]) -> str | None:
    """Why there is no mean over these benchmarks; None if there is one."""
    without = [
        name for name, marks in marks_by_benchmark.items() if marks and nothing_decided(marks)
    ]
    if not without:
        return None
    return (
        f"no mean over {len(marks_by_benchmark)}, without a score of {', '.join(sorted(without))}"
    )
