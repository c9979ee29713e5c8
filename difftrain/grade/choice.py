"""Grades a choice: one letter, however decorated, or the exact text of one option."""

import re
import unicodedata

from difftrain.config.difficulty import GradeConfig
from difftrain.grade.text import normalize_text
from difftrain.records import Verdict

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MAX_CHARS = 2_000
"""Longer answers are not parsed."""

_WRAPPER = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit)\s*\{([^{}]*)\}")
_EDGES = "*_`\"'“”‘’$#> \t\n.,:;!?"
_LEAD = re.compile(
    r"\A(?:(?:so|thus|therefore|hence),? )?(?:the |my |i choose |i pick |it is |it's )?"
    r"(?:(?:final|correct|right|best) )?(?:(?:answer|option|choice|letter)\b(?: is\b)?)?[:\s]*",
    re.IGNORECASE,
)
_TAIL = re.compile(
    r"\s+is\s+(?:the\s+)?(?:correct|right|best|answer)(?:\s+(?:answer|option|choice))?\Z",
    re.IGNORECASE,
)
_MAX_LEADS = 3
"""Phrases before the letter (`So the answer is`) that are stripped."""
_LETTER = re.compile(r"[(\[{<]{0,3}\s*([A-Za-z])\s*[)\]}>.:]{0,4}")
_LETTER_AND_TEXT = re.compile(
    r"(?:[(\[]([A-Z])[)\]]|([A-Z])[).:,]|([A-Z])(?=\s*[-–—=(]))"
    r"[*_.:,]*\s*[-–—=(]*\s*(\S.*?)\)?",
    re.DOTALL,
)
_TEXT_AND_LETTER = re.compile(r"(\S.*?)\s*[(\[]([A-Z])[)\]]", re.DOTALL)
_DASHES = r"\-\u2010-\u2015\u2212"
_DASH = re.compile(f"[{_DASHES}]")
_LETTER_FIRST = re.compile(
    r"[(\[]?([A-Za-z])([*_]*(?:[)\].:,][)\].:,*_]*\s*"
    rf"|\s*(?=[{_DASHES}=+(\[{{])|\s+(?=(?:is|means|says)\b)))(\S.*)",
    re.DOTALL,
)
"""`a. red`, `A is red`, `(A) = red`; only the option's text tells the letter A from an article."""
_SEPARATOR = re.compile(rf"\A(?:[{_DASHES}=(]|(?:is|means|says)\b[:*_]*)\s*")
_SIGN = re.compile(rf"\A[{_DASHES}]\s+")
_MAX_SEPARATORS = 8
"""Separators between a letter and the option's text that are skipped."""
_LONE_LETTER = re.compile(r"\b[A-Z]\b")


def _undecorated(answer: str) -> str:
    return _WRAPPER.sub(r"\1", unicodedata.normalize("NFKC", answer)).strip().strip(_EDGES)


def _option_text(text: str) -> str:
    """The spelling in which texts of options are compared; all dashes are the same."""
    return _DASH.sub("-", normalize_text(_undecorated(text)))


def _letters_with_text(text: str, options: tuple[str, ...]) -> list[str]:
    """The letters of the options that have this text."""
    spelling = _option_text(text)
    return [
        letter
        for letter, option in zip(LETTERS, options, strict=False)
        if spelling and _option_text(option) == spelling
    ]


def _letter_by_text(text: str, options: tuple[str, ...]) -> str | None:
    letters = _letters_with_text(text, options)
    return letters[0] if len(letters) == 1 else None


def _letters_after_separator(separator: str, rest: str, options: tuple[str, ...]) -> list[str]:
    """The options whose text follows a letter, after removing as few separators as possible.

    A minus or a bracket belongs to the option before it is a separator: `C -5` does not mean 5.
    After another separator, `- 5` is minus five too.
    """
    separated = any(mark in separator for mark in ".:,")
    for _ in range(_MAX_SEPARATORS):
        for text in (rest, rest.removesuffix(")")):
            signed = _SIGN.sub("-", text) if separated else text
            letters = _letters_with_text(text, options) or _letters_with_text(signed, options)
            if letters:
                return letters
        shorter = _SEPARATOR.sub("", rest)
        if shorter == rest:
            break
        rest, separated = shorter, True
    return []


def _letter_with_text(text: str, options: tuple[str, ...]) -> str | None:
    """The letter of `B. blue`, `B is blue` or `blue (B)`, if that option has that text."""
    text_first = _TEXT_AND_LETTER.fullmatch(text)
    if options:
        if match := _LETTER_FIRST.fullmatch(text):
            letter = match[1].upper()
            if letters := _letters_after_separator(match[2], match[3], options):
                return letter if letters == [letter] else None
        if text_first and _letter_by_text(text_first[1], options) == text_first[2]:
            return text_first[2]
        return None
    if match := _LETTER_AND_TEXT.fullmatch(text):
        letter, rest = match[1] or match[2] or match[3], match[4]
    elif text_first:
        letter, rest = text_first[2], text_first[1]
    else:
        return None
    return None if _LONE_LETTER.search(rest) else letter


def parse(answer: str, options: tuple[str, ...]) -> str | None:
    """The letter of an answer (perhaps outside the options), or None if it is not clearly one.

    `(B)`, `B.`, `**B**`, `Option B`, `b. blue`, `B is blue` and `blue` are B where B is blue;
    `A or B`, all options in a row, and a letter with another option's text are not an answer.
    """
    if len(answer) > MAX_CHARS:
        return None
    text = _undecorated(answer)
    for _ in range(_MAX_LEADS):
        if match := _LETTER.fullmatch(text):
            return match[1].upper()
        if letter := _letter_by_text(text, options) or _letter_with_text(text, options):
            return letter
        shorter = _undecorated(_TAIL.sub("", _LEAD.sub("", text, count=1), count=1))
        if shorter == text:
            break
        text = shorter
    return None


def grade(
    answer: str, gold: str, options: tuple[str, ...] = (), rules: GradeConfig | None = None
) -> Verdict:
    """Correct if the letter is the gold's; a letter outside the options is incorrect."""
    letter = parse(answer, options)
    if letter is None:
        return Verdict.unparsable
    return Verdict.correct if letter == parse(gold, options) else Verdict.incorrect


def gold_problem(gold: str, options: tuple[str, ...] = ()) -> str | None:
    """Why the gold answer is not an option, or None."""
    letter = parse(gold, options)
    if letter is None:
        return f"{gold!r} names no option"
    if options and letter not in LETTERS[: len(options)]:
        return f"{gold!r} is outside the {len(options)} options"
    return None
