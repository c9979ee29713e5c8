r"""Reads one number with its unit: `1,234.5 km/h`, `2 1/2`, `3:4`, `3 \times 10^8`, `5 million`.

Everything is exact (fractions). A text with two numbers that are not one of these forms is no
quantity: `3 4`, `2007-2008`, `1920x1080`.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from difftrain.grade import units

PERCENT = "%"

_GROUPED = r"[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,3}(?: [0-9]{3})+"  # thousands
_PLAIN = rf"(?:(?:{_GROUPED}|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)"
_COMMA = r"(?:[0-9]{1,3}(?:\.[0-9]{3})+|[0-9]+),(?:[0-9]{1,2}|[0-9]{4,})(?![0-9,])"
"""A decimal comma; with three digits behind it, it would be one of thousands."""
_FRACTION = (
    r"(?:(?P<top>[0-9]+)\s*/\s*(?P<bottom>[0-9]+)"
    r"|\\frac\s*\{\s*(?P<frac_top>-?[0-9]+)\s*\}\s*\{\s*(?P<frac_bottom>[0-9]+)\s*\})"
)
_MIXED_FRACTION = _FRACTION.replace("?P<", "?P<mixed_")
_REPEATING = (
    r"(?P<fixed>[0-9]+\.[0-9]*)(?:\\overline\s*\{(?P<over>[0-9]+)\}|\\dot\s*\{(?P<dot>[0-9])\}"
    r"|\((?P<round>[0-9]+)\))"
)
_POWER = (
    r"(?:[eE](?P<e>[+-]?[0-9]{1,2})"
    r"|\s*(?:\\times|\\cdot|[x*])\s*10\s*\^\s*\{?\s*(?P<ten>[+-]?[0-9]{1,2})\s*\}?)"
)
_SCALES = {
    "hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12,
    "百": 2, "千": 3, "万": 4, "百万": 6, "千万": 7, "亿": 8,
}  # fmt: skip
_LETTERS = {"k": 3, "K": 3, "M": 6, "B": 9}  # `10K`, directly behind the digits
_SCALE = rf"\s*(?P<scale>{'|'.join(sorted(_SCALES, key=len, reverse=True))})(?![a-z克米瓦])"
_NUMBER = re.compile(
    rf"(?P<sign>[+-]?|minus |negative )\s*(?:"
    rf"{_REPEATING}"
    r"|(?P<start>[0-9]+\.[0-9]*?)(?P<same>[0-9])(?P=same){2,}\s*(?:\.{3}|\\[lc]?dots|…)"
    rf"|(?P<whole>[0-9]+)(?:\s+(?:and\s+)?(?=[0-9\\])|(?=\\)){_MIXED_FRACTION}"
    rf"|{_FRACTION}"
    rf"|(?P<out>[0-9]+) (?:out of|in) (?P<of>[0-9]+)"
    rf"|(?P<left>[0-9]+(?:\.[0-9]+)?)\s*(?::|\bto\b)\s*(?P<right>[0-9]+(?:\.[0-9]+)?)(?![0-9.:])"
    rf"|(?P<comma>{_COMMA})"
    rf"|(?P<plain>{_PLAIN})(?:{_POWER})?"
    rf")(?:(?-i:(?P<letter>[kKMB])(?![a-zA-Z/]))|{_SCALE})?",
    re.IGNORECASE,
)
_CURRENCY_FIRST = re.compile(r"(USD|US\$|EUR|€|GBP|£|¥|CNY|RMB|INR|JPY)\s*(?=[0-9.+-])")
_PERCENT = re.compile(r"%|percent|per cent|百分之")
_CHINESE_PERCENT = re.compile(r"百分之\s*(?=[0-9])")


@dataclass(frozen=True, slots=True)
class Quantity:
    """A value and its unit: pint's name, "" if there is none, PERCENT.

    `is_ratio` for `3:4`, `is_fraction` for `3/4` and `3 out of 4`.
    """

    value: Fraction
    unit: str = ""
    is_ratio: bool = False
    is_fraction: bool = False

    def __str__(self) -> str:
        return f"{self.value} {self.unit}".strip()


@lru_cache(maxsize=8192)  # the gold answer of a group's responses is parsed once
def parse(text: str, decimal_comma: bool = True) -> Quantity | None:
    """The quantity that a text in notation.py's notation consists of, else None.

    Without `decimal_comma`, `1,2` is no quantity.
    """
    text, unit = text.strip(), ""
    while text.startswith("(") and text.endswith(")") and "," not in text and ")" not in text[1:-1]:
        text = text[1:-1].strip()
    if match := _CHINESE_PERCENT.match(text):
        text = f"{text[match.end() :]}%"
    sign = ""
    if text[:1] in "+-" and _CURRENCY_FIRST.match(text[1:].lstrip()):
        sign, text = text[0], text[1:].lstrip()
    if match := _CURRENCY_FIRST.match(text):
        text, unit = f"{sign}{text[match.end() :]}", match[1]
    match = _NUMBER.match(text)
    value = _value(match) if match else None
    if match is None or value is None:
        return None
    if match["comma"] and not decimal_comma:
        return None
    rest = text[match.end() :].strip()
    rest = rest[1:-1] if rest.startswith("(") and rest.endswith(")") else rest
    is_ratio = match["left"] is not None
    is_fraction = bool(match["top"] or match["frac_top"] or match["out"])
    if _PERCENT.fullmatch(rest):
        return None if unit or is_ratio else Quantity(value, PERCENT)
    if rest and unit:
        return None
    if not rest and not unit:
        return Quantity(value, "", is_ratio, is_fraction)
    name = units.parse(rest or unit)
    return None if name is None or is_ratio else Quantity(value, name)


def _value(match: re.Match[str]) -> Fraction | None:
    """The exact value of a match of _NUMBER; None if it would divide by zero."""
    sign = -1 if match["sign"].strip().lower() in ("-", "minus", "negative") else 1
    if match["fixed"]:
        value = _repeating(match["fixed"], match["over"] or match["dot"] or match["round"])
    elif match["start"]:
        value = _repeating(match["start"], match["same"])
    elif match["whole"]:
        part = _fraction(match, "mixed_")
        value = None if part is None or not 0 < part < 1 else int(match["whole"]) + part
    elif match["top"] or match["frac_top"]:
        value = _fraction(match)
    elif match["out"]:
        value = _ratio(match["out"], match["of"]) if int(match["out"]) <= int(match["of"]) else None
    elif match["left"]:
        value = _ratio(match["left"], match["right"])
    elif match["comma"]:
        value = Fraction(match["comma"].replace(".", "").replace(",", "."))
    else:
        value = Fraction(match["plain"].replace(",", "").replace(" ", "").rstrip("."))
        value *= Fraction(10) ** int(match["e"] or match["ten"] or 0)
    if value is None:
        return None
    exponent = _SCALES.get((match["scale"] or "").lower(), 0) + _LETTERS.get(match["letter"], 0)
    return sign * value * 10**exponent


def _fraction(match: re.Match[str], prefix: str = "") -> Fraction | None:
    top = match[f"{prefix}top"] or match[f"{prefix}frac_top"]
    return _ratio(top, match[f"{prefix}bottom"] or match[f"{prefix}frac_bottom"])


def _ratio(top: str, bottom: str) -> Fraction | None:
    return Fraction(top) / Fraction(bottom) if Fraction(bottom) else None


def _repeating(fixed: str, digits: str) -> Fraction:
    """0.1 and the digits 36 without end: 0.1363636..."""
    decimals = len(fixed.partition(".")[2])
    period = Fraction(int(digits), (10 ** len(digits) - 1) * 10**decimals)
    return Fraction(fixed.rstrip(".")) + period


def equal(
    answer: Quantity, gold: Quantity, tolerance: Fraction = Fraction(0), converts: bool = False
) -> bool:
    """Whether an answer has the gold's value, within a relative tolerance, and no other unit.

    A missing unit is equal to any; a missing `%` only if the number is more than 1, so that 25% is
    not 0.25% (nor 0.25, because a question that asks for percent may mean either). `converts` also
    accepts another unit of the same kind (2 hours for 120 minutes).
    """

    def near(value: Fraction) -> bool:
        return abs(value - gold.value) <= tolerance * abs(gold.value)

    if answer.is_ratio != gold.is_ratio:  # 0.5 is no ratio, and `1 to 2` may be a range
        other = gold if answer.is_ratio else answer
        return other.is_fraction and near(answer.value)
    if PERCENT in (answer.unit, gold.unit) and answer.unit != gold.unit:
        return "" in (answer.unit, gold.unit) and near(answer.value) and abs(gold.value) > 1
    if not answer.unit or not gold.unit or _same_unit(answer.unit, gold.unit):
        return near(answer.value)
    factor = units.factor(answer.unit, gold.unit) if converts else None
    return factor is not None and near(answer.value * Fraction(str(factor)))


def _same_unit(a: str, b: str) -> bool:
    """Whether two units are one; `¥` is yuan or yen, `pounds` may be British money."""
    return a == b or {a, b} in ({"¥", "CNY"}, {"¥", "JPY"}, {"pound", "GBP"})
