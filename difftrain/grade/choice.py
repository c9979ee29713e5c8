"""Grades a choice: one letter, however decorated, or the exact text of one option."""

import re
import unicodedata

from difftrain.config.grade import GradeConfig
from difftrain.grade.text import normalize_text
from difftrain.records import Verdict

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MAX_CHARS = 2_000
"""Characters beyond which an answer is not read."""

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
_LEADS = 3
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
"""`a. red`, `A is red`, `(A) = red`; the option's own text tells the letter from an article."""
_SEPARATOR = re.compile(rf"\A(?:[{_DASHES}=(]|(?:is|means|says)\b[:*_]*)\s*")
_SIGN = re.compile(rf"\A[{_DASHES}]\s+")
_SEPARATORS = 8
"""Separators between a letter and the option's text that are read over."""
_LONE_LETTER = re.compile(r"\b[A-Z]\b")


def _bare(said: str) -> str:
    return _WRAPPER.sub(r"\1", unicodedata.normalize("NFKC", said)).strip().strip(_EDGES)


def _words(text: str) -> str:
    """What two spellings of one option's text share; every dash is the same one."""
    return _DASH.sub("-", normalize_text(_bare(text)))


def _named(text: str, options: tuple[str, ...]) -> list[str]:
    words = _words(text)
    return [
        letter
        for letter, option in zip(LETTERS, options, strict=False)
        if words and _words(option) == words
    ]


def _by_text(text: str, options: tuple[str, ...]) -> str | None:
    named = _named(text, options)
    return named[0] if len(named) == 1 else None


def _named_behind(between: str, rest: str, options: tuple[str, ...]) -> list[str]:
    """The options whose text follows a letter, with as little taken off it as names any.

    So a minus or a bracket is the option's own before it is a separator: `C -5` is not 5. Behind
    another separator `- 5` is minus five too.
    """
    separated = any(mark in between for mark in ".:,")
    for _ in range(_SEPARATORS):
        for each in (rest, rest.removesuffix(")")):
            joined = _SIGN.sub("-", each) if separated else each
            if named := _named(each, options) or _named(joined, options):
                return named
        shorter = _SEPARATOR.sub("", rest)
        if shorter == rest:
            break
        rest, separated = shorter, True
    return []


def _both(text: str, options: tuple[str, ...]) -> str | None:
    """The letter of `B. blue`, `B is blue` or `blue (B)`, if that option has that text."""
    behind = _TEXT_AND_LETTER.fullmatch(text)
    if options:
        if found := _LETTER_FIRST.fullmatch(text):
            letter = found[1].upper()
            if named := _named_behind(found[2], found[3], options):
                return letter if named == [letter] else None
        return behind[2] if behind and _by_text(behind[1], options) == behind[2] else None
    if found := _LETTER_AND_TEXT.fullmatch(text):
        letter, rest = found[1] or found[2] or found[3], found[4]
    elif behind:
        letter, rest = behind[2], behind[1]
    else:
        return None
    return None if _LONE_LETTER.search(rest) else letter


def parse(said: str, options: tuple[str, ...]) -> str | None:
    """The letter that is said (it may lie outside the options), or None if it is not plainly one.

    `(B)`, `B.`, `**B**`, `Option B`, `b. blue`, `B is blue` and `blue` are B where B is blue;
    `A or B`, all options in a row, and a letter with another option's text are not an answer.
    """
    if len(said) > MAX_CHARS:
        return None
    text = _bare(said)
    for _ in range(_LEADS):
        if alone := _LETTER.fullmatch(text):
            return alone[1].upper()
        if letter := _by_text(text, options) or _both(text, options):
            return letter
        shorter = _bare(_TAIL.sub("", _LEAD.sub("", text, count=1), count=1))
        if shorter == text:
            break
        text = shorter
    return None


def grade(
    said: str, gold: str, options: tuple[str, ...] = (), rules: GradeConfig | None = None
) -> Verdict:
    """Right if the letter said is the gold's; a letter outside the options is wrong."""
    letter = parse(said, options)
    if letter is None:
        return Verdict.unparsable
    return Verdict.correct if letter == parse(gold, options) else Verdict.incorrect


def gold_problem(gold: str, options: tuple[str, ...] = ()) -> str | None:
    """Why this gold cannot be graded, or None."""
    letter = parse(gold, options)
    if letter is None:
        return f"{gold!r} names no option"
    if options and letter not in LETTERS[: len(options)]:
        return f"{gold!r} lies outside the {len(options)} options"
    return None
