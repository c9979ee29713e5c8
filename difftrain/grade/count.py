"""Grades a count: one whole number, exactly. Two different numbers are no answer."""

import re
from fractions import Fraction

from difftrain.grade.characters import numeric_text
from difftrain.records import Verdict

LONGEST = 200
"""Characters beyond which an answer is not read."""

_NUMBER = re.compile(
    r"(?<![\w.,/^])[+-]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?(?![\w%/^]|[.,][0-9])"
)
_DIGITS = re.compile(r"[0-9]+")


def read(said: str) -> Fraction | None:
    """The one number that is said, with thousands commas allowed; None for none or several."""
    text = numeric_text(said)
    if len(text) > LONGEST:
        return None
    numbers = list(_NUMBER.finditer(text))
    whole = sum(len(_DIGITS.findall(found.group())) for found in numbers)
    if not numbers or whole != len(_DIGITS.findall(text)):
        # Digits outside the numbers (7/2, H2O, 7,8) leave open which number is meant.
        return None
    values = {Fraction(found.group().replace(",", "")) for found in numbers}
    return values.pop() if len(values) == 1 else None


def grade(said: str, gold: str, options: tuple[str, ...] = ()) -> Verdict:
    """Right if the one number said equals the gold."""
    number = read(said)
    if number is None:
        return Verdict.unreadable
    return Verdict.right if number == read(gold) else Verdict.wrong


def gold_problem(gold: str, options: tuple[str, ...] = ()) -> str | None:
    """Why this gold cannot be graded, or None."""
    number = read(gold)
    if number is None:
        return f"{gold!r} is not one number"
    return None if number.denominator == 1 else f"{gold!r} is not a whole number"
