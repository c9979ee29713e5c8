"""Grades a count: one whole number, exactly. Two numbers are no answer, nor is a hedge."""

import re
from fractions import Fraction

from difftrain.grade.characters import numeric_text
from difftrain.grade.config import GradeConfig
from difftrain.records import Verdict

LONGEST = 200
"""Characters beyond which an answer is not read."""

_NUMBER = re.compile(
    r"(?<![\w.,/^])[+-]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?(?![\w%/^]|[.,][0-9])"
)
_DIGITS = re.compile(r"[0-9]+")
_HEDGE = re.compile(
    r"\b(?:not|no|none|never|neither|or|nor|than|least|most|more|less|fewer|over|under|above|below"
    r"|about|around|approximately|approx|roughly|nearly|almost|between|up to|maybe|perhaps|either"
    r"|half|dozens?|hundreds?|thousands?|millions?|percent|minus|plus|times"
    r"|zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)\b|n['’]t\b",
    re.IGNORECASE,
)
"""Words that make another claim of the number beside them."""
_OTHERS = re.compile(r"[^\w\s.,:;!?'\"()\[\]{}*_`$\\=\-+]|[+\-]")
"""Signs that are no decoration: comparisons, ranges, a plus or minus that is not the number's."""
_SPELT = {
    **{"zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6"},
    **{"seven": "7", "eight": "8", "nine": "9", "ten": "10", "eleven": "11", "twelve": "12"},
}


def read(said: str) -> Fraction | None:
    """The one number that is said, with thousands commas allowed; None for none or several.

    Words may stand around it ("There are 7 shapes.", "7 (seven)"), but none that make it another
    claim: "not 7", "more than 7", "7 or 8", "7+" are no answer.
    """
    text = numeric_text(said)
    if len(text) > LONGEST:
        return None
    numbers = list(_NUMBER.finditer(text))
    whole = sum(len(_DIGITS.findall(found.group())) for found in numbers)
    if not numbers or whole != len(_DIGITS.findall(text)):
        # Digits outside the numbers (7/2, H2O, 7,8) leave open which number is meant.
        return None
    values = {Fraction(found.group().replace(",", "")) for found in numbers}
    if len(values) > 1:
        return None
    value = values.pop()
    around = _NUMBER.sub(" ", text)
    spelt_out = [word for word in _HEDGE.findall(around) if _SPELT.get(word.lower()) != str(value)]
    return None if spelt_out or _OTHERS.search(around) else value


def grade(
    said: str, gold: str, options: tuple[str, ...] = (), rules: GradeConfig | None = None
) -> Verdict:
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
