"""Reads short values exactly: numbers with their units, square roots, and dates.

Only for the graders of choices and texts, which compare words first. `number.py` grades numbers.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from difftrain.grade import units
from difftrain.grade.layout import strip_latex, strip_wrappers
from difftrain.grade.normalize import normalize_number
from difftrain.grade.number_words import english_to_digits

MAX_CHARS = 80  # longer texts are no values

_SIGNS = {"$": "USD", "¥": "¥", "%": "%", "percent": "%", "per cent": "%"}
_YEN_OR_YUAN = ({"¥", "JPY"}, {"¥", "CNY"})  # ¥ is the sign of both
_UNIT = re.compile(  # without a name, as in `20 square units`
    r"(?:(?P<square>sq(?:uare)?\.?)|(?P<cubic>cu(?:bic)?\.?))?\s*units?\s*(?:\^(?P<power>[23]))?"
    r"(?P<squared> squared)?(?P<cubed> cubed)?"
)
_AMBIGUOUS_UNITS = re.compile("[A-KM-Za-fijkn-rt-z]|[月日分时]")  # as in `seat 7 A`, `5月`
_COUNTED = ("", units.COUNT)

_NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
_VALUE = re.compile(
    rf"(?P<sign>[+-]?)\s*(?P<currency>[$€£¥]?)\s*(?P<factor>{_NUMBER})?"
    rf"\s*[*·×]?\s*(?:√\s*\(?(?P<root>[0-9]{{1,9}})\)?)?\s*(?P<pi>π)?"
    r"\s*(?:/\s*(?P<under>0*[1-9][0-9]{0,8}))?\s*(?P<unit>[^\W\d_][^\d_]*(?:\^?[23])?|°\s*[CF]?|[%€£])?"
)
_ROOT = re.compile(r"\\sqrt\s*(?:\{\s*([0-9]+)\s*\}|([0-9]))")
_FRAC_WITH_ROOT = re.compile(r"\\frac\s*\{([^{}]*)\}\s*\{\s*([0-9]+)\s*\}")
_POWER = re.compile(r"(?<=[^\W\d_])\s*\^?([23])\Z")

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
    is_known_unit: bool  # whether an answer may leave the unit out

    def equals(self, other: "Value") -> bool:
        """Whether the numbers and the units are equal; the sign ¥ equals both yen and yuan."""
        same_unit = self.unit == other.unit or {self.unit, other.unit} in _YEN_OR_YUAN
        return self._same_number(other) and same_unit

    def equals_without_unit(self, other: "Value") -> bool:
        """Whether the numbers are equal and this value names no unit."""
        return self._same_number(other) and not self.unit

    def equals_or_lacks_unit(self, other: "Value") -> bool:
        """Whether the numbers are equal, and the units unless this value names none."""
        return self.equals(other) or self.equals_without_unit(other)

    def _same_number(self, other: "Value") -> bool:
        return self.signed_square == other.signed_square and self.has_pi == other.has_pi


def _nameless_unit(text: str) -> str | None:
    """The unit of `20 square units` or `20 units^2`; None if the text is another one."""
    match = _UNIT.fullmatch(text.lower())
    if match is None:
        return None
    if match["square"] or match["squared"] or match["power"] == "2":
        return "unit ** 2"
    return "unit ** 3" if match["cubic"] or match["cubed"] or match["power"] else "unit"


def _canonical_unit(text: str) -> tuple[str, bool]:
    """The unit in one spelling, and whether it is known.

    `square miles` and `mi²` are `mile ** 2`. Units are read as written, then in lower case, then a
    currency's code in upper case. The names of counted things stay: 7 boys are not 7 girls.
    """
    text = " ".join(_POWER.sub(r"^\1", text.strip()).split()).removesuffix(".")
    lower = text.lower()
    if not text:
        return "", False
    if unit := _SIGNS.get(lower) or _nameless_unit(text):
        return unit, True
    words = re.split(r"[\s/]+", lower)
    if _AMBIGUOUS_UNITS.fullmatch(text) or any(units.parse(word) in _COUNTED for word in words):
        return lower, False
    codes = (text.upper(),) if len(text) == 3 else ()
    for spelling in (text, lower, *codes):
        if unit := units.parse(spelling):
            return unit, True
    return lower, False


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
    unit, is_known = _canonical_unit(match["unit"] or match["currency"] or "")
    return Value(-square if match["sign"] == "-" else square, bool(match["pi"]), unit, is_known)


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
