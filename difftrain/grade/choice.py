"""Grades a choice: one letter, however decorated, or the exact text of one option."""

import re
import unicodedata

from difftrain.grade.characters import normal_text
from difftrain.grade.config import GradeConfig
from difftrain.records import Verdict

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LONGEST = 2_000
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
_SAID_OF_A_LETTER = re.compile(
    r"[(\[]?([A-Za-z])[)\].:,*_]*"
    r"(?:\s+(?:is|means|says)\b[:*_\s]*|\s*[-–—=(]+\s*|(?<=[)\].:,])\s*)(\S.*?)\)?",
    re.DOTALL,
)
"""`a. red`, `A is red`, `(A) = red`; the option's own text tells the letter from an article."""
_LONE_LETTER = re.compile(r"\b[A-Z]\b")


def _bare(said: str) -> str:
    return _WRAPPER.sub(r"\1", unicodedata.normalize("NFKC", said)).strip().strip(_EDGES)


def _by_text(text: str, options: tuple[str, ...]) -> str | None:
    words = normal_text(_bare(text))
    same = [
        letter
        for letter, option in zip(LETTERS, options, strict=False)
        if normal_text(_bare(option)) == words
    ]
    return same[0] if len(same) == 1 and words else None


def _both(text: str, options: tuple[str, ...]) -> str | None:
    """The letter of `B. blue`, `B is blue` or `blue (B)`, if that option has that text."""
    if options and (found := _SAID_OF_A_LETTER.fullmatch(text)):
        letter = found[1].upper()
        if _by_text(found[2], options) == letter:
            return letter
    if found := _LETTER_AND_TEXT.fullmatch(text):
        letter, rest = found[1] or found[2] or found[3], found[4]
    elif found := _TEXT_AND_LETTER.fullmatch(text):
        letter, rest = found[2], found[1]
    else:
        return None
    if options:
        return letter if _by_text(rest, options) == letter else None
    return None if _LONE_LETTER.search(rest) else letter


def read(said: str, options: tuple[str, ...]) -> str | None:
    """The letter that is said (it may lie outside the options), or None if it is not plainly one.

    `(B)`, `B.`, `**B**`, `Option B`, `b. blue`, `B is blue` and `blue` are B where B is blue;
    `A or B`, all options in a row, and a letter with another option's text are not an answer.
    """
    if len(said) > LONGEST:
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
    letter = read(said, options)
    if letter is None:
        return Verdict.unreadable
    return Verdict.right if letter == read(gold, options) else Verdict.wrong


def gold_problem(gold: str, options: tuple[str, ...] = ()) -> str | None:
    """Why this gold cannot be graded, or None."""
    letter = read(gold, options)
    if letter is None:
        return f"{gold!r} names no option"
    if options and letter not in LETTERS[: len(options)]:
        return f"{gold!r} lies outside the {len(options)} options"
    return None
