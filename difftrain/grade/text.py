"""Grades a text: the same characters, whatever their case, width or spacing. No containment."""

from difftrain.grade.characters import normal_text
from difftrain.records import Verdict


def grade(said: str, gold: str, options: tuple[str, ...] = ()) -> Verdict:
    """Right if equal after NFKC, case folding and white-space collapse."""
    words = normal_text(said)
    if not words:
        return Verdict.unreadable
    return Verdict.right if words == normal_text(gold) else Verdict.wrong


def gold_problem(gold: str, options: tuple[str, ...] = ()) -> str | None:
    """Why this gold cannot be graded, or None."""
    return None if normal_text(gold) else "the text is empty"
