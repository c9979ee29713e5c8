"""Grades a text: the same characters, whatever their case, width or spacing. No containment."""

from rapidfuzz.distance import Levenshtein

from difftrain.config.grade import GradeConfig, TextWorth
from difftrain.grade.characters import normal_text, unwrapped
from difftrain.records import Verdict

LONGEST = 20_000
"""Characters beyond which a text is not compared but wrong."""


def similarity(said: str, gold: str) -> float:
    """1 - edit distance / length of the longer, both normalised; 1 only for equal texts.

    The Levenshtein distance over the longer length, not the Indel ratio that some libraries call
    by the same name. Wrappers around what is said (`\\text{}`, `$`, `**`) are no part of it.
    """
    if len(said) > LONGEST:
        return 0.0
    wanted = normal_text(gold)
    spellings = {normal_text(said), normal_text(unwrapped(said))}
    return max(Levenshtein.normalized_similarity(words, wanted) for words in spellings)


def value(said: str, gold: str, rules: GradeConfig) -> float:
    """What a text that is not right is worth: its similarity, or nothing (grade.text)."""
    return similarity(said, gold) if rules.text is TextWorth.similarity else 0.0


def grade(
    said: str, gold: str, options: tuple[str, ...] = (), rules: GradeConfig | None = None
) -> Verdict:
    """Right if equal after NFKC, case folding and white-space collapse, or similar enough."""
    if not normal_text(said):
        return Verdict.unparsable
    enough = rules.text_right_from if rules and rules.text is TextWorth.similarity else 1.0
    return Verdict.correct if similarity(said, gold) >= enough else Verdict.incorrect


def gold_problem(gold: str, options: tuple[str, ...] = ()) -> str | None:
    """Why this gold cannot be graded, or None."""
    return None if normal_text(gold) else "the text is empty"
