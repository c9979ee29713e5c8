"""Grades a text: correct if equal to the gold text, ignoring case, character width and spacing.

Also normalizes characters for all graders.
"""

import re
import unicodedata

from rapidfuzz.distance import Levenshtein

from difftrain.config.difficulty import GradeConfig, TextCredit
from difftrain.grade.decision import Decision

MAX_CHARS = 20_000  # longer answers are incorrect

_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}  # such as ７ -> 7
_DASHES = dict.fromkeys((*range(0x2010, 0x2016), 0x2212, 0xFE58, 0xFE63), "-")
_NUMERIC = {**_FULL_WIDTH, **_DASHES, ord("²"): "^2", ord("³"): "^3", 0x00A0: " ", 0x3000: " "}
_WRAPPED = re.compile(
    r"\s*(?:\\(?:text|textbf|textit|mathrm|mathbf|mathit|textrm)\s*\{([^{}]*)\}"
    r"|\$([^$]*)\$|\*\*([^*]*)\*\*)\s*"
)
_MAX_WRAPPERS = 4  # nested wrappers to strip at most


def normalize_text(text: str) -> str:
    """The text in NFKC and case-folded, with single blanks for white space, stripped."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())  # casefold can undo NFKC


def normalize_number(text: str) -> str:
    """The text with ASCII for full-width characters, dashes and superscripts, stripped.

    NFKC cannot be used: it turns 10² into 102 and 1½ into 11/2.
    """
    return text.translate(_NUMERIC).strip()


def strip_wrappers(text: str) -> str:
    r"""The text without `\text{}` (or `\mathrm{}`, ...), `$ $` or `** **` around all of it."""
    for _ in range(_MAX_WRAPPERS):
        if match := _WRAPPED.fullmatch(text):
            text = next(content for content in match.groups() if content is not None)
    return text


def similarity(answer: str, gold: str) -> float:
    """1 - Levenshtein distance / length of the longer text, both normalized; 1 only if equal."""
    if len(answer) > MAX_CHARS:
        return 0.0
    normal_gold = normalize_text(gold)
    spellings = {normalize_text(answer), normalize_text(strip_wrappers(answer))}
    return max(Levenshtein.normalized_similarity(spelling, normal_gold) for spelling in spellings)


def decide(answer: str, gold: str, options: tuple[str, ...], rules: GradeConfig) -> Decision:
    """1 for equal texts, else 0. With grade.text=similarity, 1 if the similarity is at least
    grade.text_correct_min, else the similarity.
    """
    normal, normal_gold = normalize_text(strip_wrappers(answer)), normalize_text(gold)
    if not normalize_text(answer):
        return Decision(None, None, normal_gold, "empty")
    score = similarity(answer, gold)
    if rules.text is TextCredit.exact:
        score = float(score == 1)
    elif score >= rules.text_correct_min:
        score = 1.0
    return Decision(score, normal, normal_gold, f"{rules.text} text")


def gold_problem(gold: str, options: tuple[str, ...]) -> str | None:
    """Why the gold answer is not a text, or None."""
    return None if normalize_text(gold) else "the text is empty"
