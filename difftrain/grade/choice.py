"""Grades a choice: the answer is an option's letter, as in `**(B)**`, or an option's exact text."""

import re
import unicodedata
from itertools import compress
from string import ascii_uppercase as LETTERS

from difftrain.config.difficulty import GradeConfig
from difftrain.grade.decision import Decision
from difftrain.grade.text import normalize_text

MAX_CHARS = 2_000  # longer answers are not parsed

_WRAPPER = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit)\s*\{([^{}]*)\}")
_DECORATION = "*_`\"'“”‘’$#> \t\n.,:;!?"
_LEAD = re.compile(  # as in `So the answer is B`
    r"(?i)\A(?:(?:so|thus|therefore|hence),? )?(?:the |my |i choose |i pick |it is |it's )?"
    r"(?:(?:final|correct|right|best) )?(?:(?:answer|option|choice|letter)\b(?: is\b)?)?[:\s]*"
)
_TAIL = re.compile(  # as in `B is the correct answer`
    r"(?i)\s+is\s+(?:the\s+)?(?:correct|right|best|answer)(?:\s+(?:answer|option|choice))?\Z"
)
_MAX_ROUNDS = 3  # a lead and a tail are stripped once in each round
_LETTER = re.compile(r"[(\[{<]{0,3}\s*([A-Za-z])\s*[)\]}>.:]{0,4}")
_MARKED_LETTER_AND_TEXT = re.compile(  # `(A) red`; used only if the options are unknown
    r"(?s)(?:[(\[]([A-Z])[)\]]|([A-Z])[).:,]|([A-Z])(?=\s*[-–—=(]))"
    r"[*_.:,]*\s*[-–—=(]*\s*(\S.*?)\)?"
)
_TEXT_AND_LETTER = re.compile(r"(?s)(\S.*?)\s*[(\[]([A-Z])[)\]]")
_DASHES = r"\-\u2010-\u2015\u2212"
_DASH = re.compile(f"[{_DASHES}]")
_LETTER_AND_OPTION_TEXT = re.compile(
    r"(?s)[(\[]?([A-Za-z])([*_]*(?:[)\].:,][)\].:,*_]*\s*"
    rf"|\s*(?=[{_DASHES}=+(\[{{])|\s+(?=(?:is|means|says)\b)))(\S.*)"
)
"""`a. red`, `A is red`, `(A) = red`. The rest shows whether `A` is a letter or an article."""
_SEPARATOR = re.compile(rf"\A(?:[{_DASHES}=(]|(?:is|means|says)\b[:*_]*)\s*")
_SPACED_MINUS = re.compile(rf"\A[{_DASHES}]\s+")
_MAX_SEPARATORS = 8  # skipped at most between a letter and the option's text
_LONE_LETTER = re.compile(r"\b[A-Z]\b")


def _strip_decoration(answer: str) -> str:
    return _WRAPPER.sub(r"\1", unicodedata.normalize("NFKC", answer)).strip().strip(_DECORATION)


def _option_text(text: str) -> str:
    """An option's text, normalized for comparison; all dashes become `-`."""
    return _DASH.sub("-", normalize_text(_strip_decoration(text)))


def _letters_with_text(text: str, options: tuple[str, ...]) -> list[str]:
    """The letters of the options that are equal to the text after normalization."""
    normalized = _option_text(text)
    has_text = [bool(normalized) and normalized == _option_text(option) for option in options]
    return list(compress(LETTERS, has_text))


def _letters_after_separator(separator: str, rest: str, options: tuple[str, ...]) -> list[str]:
    """The letters of the options equal to `rest`, the text after a letter and `separator`.

    If no option is equal, the separators at the start of `rest` are removed one by one. A minus
    sign is first tried as a part of the option: `C -5` and `C: - 5` mean the option -5, not 5.
    """
    after_separator = any(character in ".:," for character in separator)
    for _ in range(_MAX_SEPARATORS):
        for text in (rest, rest.removesuffix(")")):
            signed = _SPACED_MINUS.sub("-", text) if after_separator else text
            if letters := _letters_with_text(text, options) or _letters_with_text(signed, options):
                return letters
        shorter = _SEPARATOR.sub("", rest)
        if shorter == rest:
            break
        rest, after_separator = shorter, True
    return []


def _letter_beside_text(text: str, options: tuple[str, ...]) -> str | None:
    """The letter of `B. blue`, `B is blue` or `blue (B)` if the text of option B is `blue`."""
    text_first = _TEXT_AND_LETTER.fullmatch(text)
    if options:
        if match := _LETTER_AND_OPTION_TEXT.fullmatch(text):
            letter = match[1].upper()
            if letters := _letters_after_separator(match[2], match[3], options):
                return letter if letters == [letter] else None
        if text_first and _letters_with_text(text_first[1], options) == [text_first[2]]:
            return text_first[2]
        return None
    if match := _MARKED_LETTER_AND_TEXT.fullmatch(text):
        letter, rest = match[1] or match[2] or match[3], match[4]
    elif text_first:
        rest, letter = text_first.groups()
    else:
        return None
    return None if _LONE_LETTER.search(rest) else letter  # another letter makes it ambiguous


def parse(answer: str, options: tuple[str, ...]) -> str | None:
    """The letter of an answer, even if there is no such option; None if it is ambiguous.

    If option B is `blue`, then `(B)`, `B.`, `**B**`, `Option B`, `b. blue`, `B is blue` and `blue`
    are B. `A or B`, all options in a row, and a letter with another option's text give None.
    """
    if len(answer) > MAX_CHARS:
        return None
    text = _strip_decoration(answer)
    for _ in range(_MAX_ROUNDS):
        if match := _LETTER.fullmatch(text):
            return match[1].upper()
        if len(letters := _letters_with_text(text, options)) == 1:
            return letters[0]
        if letter := _letter_beside_text(text, options):
            return letter
        shorter = _strip_decoration(_TAIL.sub("", _LEAD.sub("", text, count=1), count=1))
        if shorter == text:
            break
        text = shorter
    return None


def decide(answer: str, gold: str, options: tuple[str, ...], rules: GradeConfig) -> Decision:
    """1 for the letter of the gold answer, 0 for any other, even outside the options."""
    letter, gold_letter = parse(answer, options), parse(gold, options)
    if letter is None:
        return Decision(None, None, gold_letter or gold, "names no single option")
    return Decision(float(letter == gold_letter), letter, gold_letter or gold, "letter")


def gold_problem(gold: str, options: tuple[str, ...]) -> str | None:
    """Why the gold answer is not an option, or None."""
    letter = parse(gold, options)
    if letter is None:
        return f"{gold!r} names no option"
    if options and letter not in LETTERS[: len(options)]:
        return f"{gold!r} is outside the {len(options)} options"
    return None
