"""Grades a text: the same characters, whatever their case, width or spacing. No containment."""

import re
import unicodedata

from rapidfuzz.distance import Levenshtein

from difftrain.config.grade import GradeConfig, TextCredit
from difftrain.records import Verdict

MAX_CHARS = 20_000
"""Characters beyond which a text is not compared but wrong."""


def similarity(said: str, gold: str) -> float:
    """1 - edit distance / length of the longer, both normalised; 1 only for equal texts.

    The Levenshtein distance over the longer length, not the Indel ratio that some libraries call
    by the same name. Wrappers around what is said (`\\text{}`, `$`, `**`) are no part of it.
    """
    if len(said) > MAX_CHARS:
        return 0.0
    wanted = normalize_text(gold)
    spellings = {normalize_text(said), normalize_text(strip_wrappers(said))}
    return max(Levenshtein.normalized_similarity(words, wanted) for words in spellings)


def credit(said: str, gold: str, rules: GradeConfig) -> float:
    """What a text that is not right is worth: its similarity, or nothing (grade.text)."""
    return similarity(said, gold) if rules.text is TextCredit.similarity else 0.0


def grade(
    said: str, gold: str, options: tuple[str, ...] = (), rules: GradeConfig | None = None
) -> Verdict:
    """Right if equal after NFKC, case folding and white-space collapse, or similar enough."""
    if not normalize_text(said):
        return Verdict.unparsable
    enough = rules.text_right_from if rules and rules.text is TextCredit.similarity else 1.0
    return Verdict.correct if similarity(said, gold) >= enough else Verdict.incorrect


def gold_problem(gold: str, options: tuple[str, ...] = ()) -> str | None:
    """Why this gold cannot be graded, or None."""
    return None if normalize_text(gold) else "the text is empty"


_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_DASHES = dict.fromkeys((*range(0x2010, 0x2016), 0x2212, 0xFE58, 0xFE63), "-")
_NUMERIC = {**_FULL_WIDTH, **_DASHES, 0x00B2: "^2", 0x00B3: "^3", 0x00A0: " ", 0x3000: " "}
_WRAPPED = re.compile(
    r"\s*(?:\\(?:text|textbf|textit|mathrm|mathbf|mathit|textrm)\s*\{([^{}]*)\}"
    r"|\$([^$]*)\$|\*\*([^*]*)\*\*)\s*"
)
_WRAPPERS = 4
"""Wrappers one within the other that are opened."""


def normalize_text(text: str) -> str:
    """NFKC, case-folded, white space collapsed to single blanks and stripped."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def normalize_number(text: str) -> str:
    """Full-width characters, dashes and superscripts in their ASCII spelling; stripped.

    Not NFKC, which would make 102 of ten squared and 11/2 of one and a half.
    """
    return text.translate(_NUMERIC).strip()


def strip_wrappers(text: str) -> str:
    r"""The text without `\text{}` and its kin, `$ $` or `** **` around all of it."""
    for _ in range(_WRAPPERS):
        found = _WRAPPED.fullmatch(text)
        if found is None:
            break
        text = next(inside for inside in found.groups() if inside is not None)
    return text
