"""Grades a choice: one letter, however decorated, or the exact text of one option."""

import re

from difftrain.grade.characters import normal_text
from difftrain.records import Verdict

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_WRAPPER = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\{([^{}]*)\}")
_EDGES = "*_`\"'$ \t\n.,:;"
_LEAD = re.compile(r"\A(?:the )?(?:correct )?(?:answer|option|choice)(?: is)?\b:? *", re.IGNORECASE)
_LETTER = re.compile(r"[(\[]?([A-Za-z])[)\].:]*")
_LETTER_AND_TEXT = re.compile(r"(?:[(\[]([A-Z])[)\]]|([A-Z])[).:])[*_.:]*\s+(\S.*)", re.DOTALL)
_LONE_LETTER = re.compile(r"\b[A-Z]\b")


def _bare(said: str) -> str:
    return _WRAPPER.sub(r"\1", said).strip().strip(_EDGES)


def _by_text(text: str, options: tuple[str, ...]) -> str | None:
    words = normal_text(text).strip(_EDGES)
    same = [
        letter
        for letter, option in zip(LETTERS, options, strict=False)
        if normal_text(option).strip(_EDGES) == words
    ]
    return same[0] if len(same) == 1 and words else None


def read(said: str, options: tuple[str, ...]) -> str | None:
    """The letter that is said (it may lie outside the options), or None if it is not plainly one.

    `(B)`, `B.`, `**B**`, `Option B`, `B. blue` and `blue` are B where option B is blue; `A or B`,
    all options in a row, and a letter followed by another option's text are not an answer.
    """
    for text in (_bare(said), _bare(_LEAD.sub("", _bare(said), count=1))):
        if alone := _LETTER.fullmatch(text):
            return alone[1].upper()
        if letter := _by_text(text, options):
            return letter
        if both := _LETTER_AND_TEXT.fullmatch(text):
            letter, rest = both[1] or both[2], both[3]
            if options and _by_text(rest, options) == letter:
                return letter
            if not options and not _LONE_LETTER.search(rest):
                return letter
    return None


def grade(said: str, gold: str, options: tuple[str, ...] = ()) -> Verdict:
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
