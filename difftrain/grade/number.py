"""Grades a number: exact arithmetic where both sides are plain numbers, else math-verify."""

import re
from dataclasses import dataclass
from fractions import Fraction

from difftrain.config.grade import GradeConfig
from difftrain.grade import expressions
from difftrain.grade.text import normalize_number, strip_wrappers
from difftrain.records import Verdict

_SPELLINGS = {
    "%": ("percent",),
    "°": ("degree", "degrees", "deg"),
    "$": ("dollar", "dollars"),
    "m": ("meter", "meters", "metre", "metres"),
    "in": ("inch", "inches"),
    "ft": ("foot", "feet"),
    "s": ("sec", "second", "seconds"),
    "min": ("minute", "minutes"),
    "h": ("hour", "hours", "hr"),
    "unit": ("units",),
    **dict.fromkeys(("mm", "cm", "km", "g", "kg", "mg", "l", "ml", "a", "v", "w", "n", "j"), ()),
}
UNITS = {spelling: unit for unit, others in _SPELLINGS.items() for spelling in (unit, *others)}
"""Units that may follow a number, each with the spelling it is compared by."""

_SIGN = r"(?P<sign>[+-]?)\s*"
_WHOLE = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_DECIMAL = rf"(?P<decimal>(?:{_WHOLE}(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{{1,2}})?)"
_RATIO = r"(?P<over>[0-9]+)\s*/\s*(?P<under>[0-9]+)"
_FRAC = r"\\[dt]?frac\s*\{\s*(?P<top>[+-]?[0-9]+)\s*\}\s*\{\s*(?P<bottom>[0-9]+)\s*\}"
_UNIT = r"\s*(?P<unit>[a-zA-Z%°]*(?:\^\{?[23]\}?)?)"
_QUANTITY = re.compile(rf"{_SIGN}(?:{_RATIO}|{_FRAC}|{_DECIMAL}){_UNIT}\.?")
_WRAPPER = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\{([^{}]*)\}")
_NOISE = re.compile(r"\$|\\[()\[\],;! ]")
_DEGREE = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)")
_NAME = re.compile(r"[a-zA-Z]\s*=\s*")


@dataclass(frozen=True, slots=True)
class Quantity:
    """An exact value and the unit said with it, if any."""

    value: Fraction
    unit: str


def tidy(said: str) -> str:
    """The text without LaTeX's dollar signs, text wrappers and thin spaces."""
    text = _WRAPPER.sub(r" \1 ", strip_wrappers(normalize_number(said)))
    text = _DEGREE.sub("°", text).replace("\\%", "%").replace("\\$", "")
    return _NOISE.sub("", text).strip()


def _unit(found: str) -> str | None:
    name, _, power = found.partition("^")
    if not name:
        return None if power else ""
    known = UNITS.get(name.lower())
    return known if known is None else known + power.strip("{}")


def parse(said: str) -> Quantity | None:
    """An integer, decimal or fraction, exactly, perhaps after `x =` and before a unit."""
    if len(said) > expressions.LONGEST:
        return None
    text = tidy(said)
    if name := _NAME.match(text):
        text = text[name.end() :]
    found = _QUANTITY.fullmatch(text)
    unit = _unit(found["unit"]) if found else None
    if found is None or unit is None:
        return None
    if found["decimal"]:
        value = Fraction(found["decimal"].replace(",", "").rstrip("."))
    else:
        top, bottom = found["over"] or found["top"], found["under"] or found["bottom"]
        if int(bottom) == 0:
            return None
        value = Fraction(int(top), int(bottom))
    return Quantity(-value if found["sign"] == "-" else value, unit)


def _latex(text: str, quantity: Quantity | None) -> str:
    if quantity is None:
        return tidy(text)
    value = quantity.value
    return (
        str(value)
        if value.denominator == 1
        else rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
    )


def is_close(found: Fraction, wanted: Fraction, tolerance: float) -> bool:
    """Whether two values are equal, or differ by no more than this share of the wanted one."""
    return found == wanted or abs(found - wanted) <= Fraction(tolerance) * abs(wanted)


def grade(
    said: str, gold: str, options: tuple[str, ...] = (), rules: GradeConfig | None = None
) -> Verdict:
    """Right if the values are equal; a unit counts only where both sides say one.

    Unreadable: words, more than 200 characters, power towers, anything math-verify cannot read.
    """
    found, wanted = parse(said), parse(gold)
    if found and wanted:
        same_unit = not found.unit or not wanted.unit or found.unit == wanted.unit
        tolerance = rules.number_tolerance if rules else 0.0
        same = same_unit and is_close(found.value, wanted.value, tolerance)
        return Verdict.correct if same else Verdict.incorrect
    same = expressions.equal(_latex(gold, wanted), _latex(said, found))
    if same is None:
        return Verdict.incorrect if found else Verdict.unparsable
    return Verdict.correct if same else Verdict.incorrect


def gold_problem(gold: str, options: tuple[str, ...] = ()) -> str | None:
    """Why this gold cannot be graded, or None."""
    if parse(gold) or expressions.parses(tidy(gold)):
        return None
    return f"{gold[:80]!r} is neither a number nor a readable expression"
