"""Reads short values exactly: numbers with their units, square roots, and dates.

Only for the graders of choices and texts, which compare words first. `number.py` grades numbers.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from difftrain.grade.layout import strip_latex, strip_wrappers
from difftrain.grade.normalize import normalize_number
from difftrain.grade.number_words import english_to_digits

MAX_CHARS = 80  # longer texts are no values

_SPELLINGS = {  # unit -> its other spellings
    "%": "percent",
    "°": "degree degrees deg",
    "$": "dollar dollars usd",
    "€": "euro euros eur",
    "£": "pound_sterling gbp",
    "¥": "yuan yen rmb 元",
    "cent": "cents",
    "mm": "millimeter millimeters millimetre millimetres 毫米",
    "cm": "centimeter centimeters centimetre centimetres 厘米",
    "m": "meter meters metre metres 米",
    "km": "kilometer kilometers kilometre kilometres 千米 公里",
    "in": "inch inches",
    "ft": "foot feet",
    "yd": "yard yards",
    "mi": "mile miles",
    "g": "gram grams 克",
    "kg": "kilogram kilograms 千克 公斤",
    "lb": "lbs pound pounds",
    "oz": "ounce ounces",
    "l": "liter liters litre litres 升",
    "ml": "milliliter milliliters millilitre millilitres 毫升",
    "s": "sec second seconds 秒",
    "min": "minute minutes 分钟",
    "h": "hr hour hours 小时",
    "day": "days 天",
    "week": "weeks",
    "month": "months",
    "year": "years 岁",
    "mph": "",
    "km/h": "kmh kph",
    "m/s": "",
    "unit": "units",
}
UNITS = {
    spelling: unit for unit, others in _SPELLINGS.items() for spelling in (unit, *others.split())
}
"""Units that an answer may leave out: spelling -> the spelling used for comparison."""

_NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
_VALUE = re.compile(
    rf"(?P<sign>[+-]?)\s*(?P<currency>[$€£¥]?)\s*(?P<factor>{_NUMBER})?"
    rf"\s*[*·×]?\s*(?:√\s*\(?(?P<root>[0-9]{{1,9}})\)?)?\s*(?P<pi>π)?"
    r"\s*(?:/\s*(?P<under>0*[1-9][0-9]{0,8}))?\s*(?P<unit>[^\W\d_][^\d_]*(?:\^?[23])?|[%°])?"
)
_ROOT = re.compile(r"\\sqrt\s*(?:\{\s*([0-9]+)\s*\}|([0-9]))")
_FRAC_WITH_ROOT = re.compile(r"\\frac\s*\{([^{}]*)\}\s*\{\s*([0-9]+)\s*\}")
_POWER_WORD = re.compile(r"\b(square|cubic|sq)\.?\s+([a-z]+)")
_POWER = re.compile(r"\^?\{?([23])\}?\Z")

_MONTHS = "january february march april may june july august september october november december"
_MONTH_BY_NAME = {name[:3]: month for month, name in enumerate(_MONTHS.split(), 1)}
_MONTH = rf"(?P<month>{'|'.join(f'{name[:3]}(?:{name[3:]})?' for name in _MONTHS.split())})\.?"
_DAY, _YEAR = r"(?P<day>[0-3]?[0-9])(?:st|nd|rd|th)?", r"(?P<year>[0-9]{4})"
_DATES = (
    re.compile(rf"(?i){_MONTH}\s+{_DAY}(?:,?\s+{_YEAR})?"),
    re.compile(rf"(?i)(?:the\s+)?{_DAY}\s+(?:of\s+)?{_MONTH}(?:,?\s+{_YEAR})?"),
    re.compile(r"(?P<year>[0-9]{4})[-/](?P<number>[01]?[0-9])[-/](?P<day>[0-3]?[0-9])"),
    re.compile(r"(?P<year>[0-9]{4})年(?P<number>[01]?[0-9])月(?P<day>[0-3]?[0-9])[日号]"),
)


@dataclass(frozen=True, slots=True)
class Value:
    """A number as its signed square, so that roots are exact, times pi or not, and its unit."""

    signed_square: Fraction
    has_pi: bool
    unit: str

    def equals_without_unit(self, other: "Value") -> bool:
        """Whether the numbers are equal and this value names no unit."""
        same_number = self.signed_square == other.signed_square and self.has_pi == other.has_pi
        return same_number and not self.unit


def _canonical_unit(text: str) -> str:
    """The unit in one spelling: `square miles`, `miles^2` and `mi²` are `mi^2`."""
    text = _POWER_WORD.sub(
        lambda match: f"{match[2]}^{3 if match[1] == 'cubic' else 2}", text.lower().strip()
    )
    text = re.sub(r"\s*/\s*|\s+per\s+", "/", text).rstrip(".")
    if power := _POWER.search(text):
        base = text[: power.start()].strip()
        return f"{UNITS.get(base, base)}^{power[1]}"
    return UNITS.get(text, "/".join(UNITS.get(part, part) for part in text.split("/")))


def parse(text: str) -> Value | None:
    r"""The value of a text such as `7.0`, `seven`, `12\text{ cm}`, `$1,299.00`, `2\sqrt{3}`."""
    if len(text) > MAX_CHARS:
        return None
    text = strip_wrappers(strip_latex(strip_wrappers(normalize_number(text))))
    text = _ROOT.sub(lambda match: f"√{match[1] or match[2]}", text.replace("\\pi", "π"))
    text = english_to_digits(_FRAC_WITH_ROOT.sub(r"\1/\2", text))
    match = _VALUE.fullmatch(text)
    if match is None or not (match["factor"] or match["root"] or match["pi"]):
        return None
    if match["currency"] and match["unit"]:
        return None
    factor = Fraction((match["factor"] or "1").replace(",", "")) / int(match["under"] or 1)
    square = factor * factor * int(match["root"] or 1)
    unit = _canonical_unit(match["unit"] or match["currency"] or "")
    return Value(-square if match["sign"] == "-" else square, bool(match["pi"]), unit)


def is_known_unit(unit: str) -> bool:
    """Whether a canonical unit is one that an answer may leave out."""
    base = unit.partition("^")[0]
    return base in UNITS or base.partition("/")[0] in UNITS


def parse_date(text: str) -> tuple[int | None, int, int] | None:
    """Year (None if left out), month and day of `March 5th, 2021`, `5 March 2021`, `2021-03-05`."""
    if len(text) > MAX_CHARS:
        return None
    for pattern in _DATES:
        if match := pattern.fullmatch(text.strip()):
            groups = match.groupdict()
            month = int(groups.get("number") or _MONTH_BY_NAME[groups["month"][:3].lower()])
            day, year = int(groups["day"]), groups["year"]
            return (int(year) if year else None, month, day) if 1 <= month <= 12 else None
    return None
