"""Grades a number: exact arithmetic where both sides are plain numbers, else math-verify.

Every expression passes `is_expression` before math-verify sees it: it must be short, made of a
small set of commands, and hold no words (math-verify takes words for products of letters), no
power towers and nothing else that takes for ever to evaluate. math-verify and sympy run in worker
processes only (pool.py), never in the process that trains.
"""

import atexit
import logging
import os
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import pairwise
from typing import Any

from difftrain.config.difficulty import GradeConfig
from difftrain.grade.pool import GradeFailure, GraderPool, NotPrepared, in_worker
from difftrain.grade.text import normalize_number, strip_wrappers
from difftrain.records import Verdict

MAX_CHARS = 200
"""Longer answers are not parsed."""
TIMEOUT_S = 5.0
"""Limit of one comparison that is not made inside a grader's worker."""

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

COMMANDS = frozenset(
    re.findall(
        r"\w+",
        "frac dfrac tfrac sqrt pi cdot times div pm mp left right circ degree infty le ge leq geq "
        "lt gt ne neq in cup cap sin cos tan cot sec csc arcsin arccos arctan log ln alpha beta "
        "gamma theta lambda mu phi omega sigma delta",
    )
)
"""LaTeX commands that an expression may hold."""
_COMMAND = re.compile(r"\\([a-zA-Z]+)")
_WORD = re.compile(r"(?<![a-zA-Z0-9])[a-zA-Z]{2,}|[a-zA-Z]{4,}")
_SYMBOLS = re.compile(r"[\sa-zA-Z0-9+\-*/^_=<>(){}\[\]|.,:;\\$%°']*")
_LONG_POWER = re.compile(r"\^\s*\{?\s*[+-]?[0-9]{4,}")
_LONG_NUMBER = re.compile(r"[0-9]{21,}")
_POWER_OF_GROUP = re.compile(r"[)\]}]\s*\^")
_EXPANSION = re.compile(r"[)\]}]\s*\^\s*\{?\s*[0-9]{2,}")
_MAX_GROUPS_WITH_LETTERS, _MAX_GROUPS = 4, 12
"""Brackets allowed: expanding a product of sums grows with the power of their number."""
_OVER_ZERO = re.compile(r"/\s*0+(?![.0-9])")


@dataclass(frozen=True, slots=True)
class Quantity:
    """An exact value and the unit behind it, if any."""

    value: Fraction
    unit: str


def strip_latex(text: str) -> str:
    """The text without LaTeX's dollar signs, text wrappers and thin spaces."""
    text = _WRAPPER.sub(r" \1 ", strip_wrappers(normalize_number(text)))
    text = _DEGREE.sub("°", text).replace("\\%", "%").replace("\\$", "")
    return _NOISE.sub("", text).strip()


def _canonical_unit(text: str) -> str | None:
    """The unit's one spelling, "" for none; None for what is not a unit."""
    name, _, power = text.partition("^")
    if not name:
        return None if power else ""
    unit = UNITS.get(name.lower())
    return unit if unit is None else unit + power.strip("{}")


def parse(answer: str) -> Quantity | None:
    """An integer, decimal or fraction, exactly, perhaps after `x =` and before a unit."""
    if len(answer) > MAX_CHARS:
        return None
    text = strip_latex(answer)
    if name := _NAME.match(text):
        text = text[name.end() :]
    match = _QUANTITY.fullmatch(text)
    unit = _canonical_unit(match["unit"]) if match else None
    if match is None or unit is None:
        return None
    if match["decimal"]:
        value = Fraction(match["decimal"].replace(",", "").rstrip("."))
    else:
        top, bottom = match["over"] or match["top"], match["under"] or match["bottom"]
        if int(bottom) == 0:
            return None
        value = Fraction(int(top), int(bottom))
    return Quantity(-value if match["sign"] == "-" else value, unit)


def _to_latex(text: str, quantity: Quantity | None) -> str:
    if quantity is None:
        return strip_latex(text)
    value = quantity.value
    if value.denominator == 1:
        return str(value)
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def grade(
    answer: str, gold: str, options: tuple[str, ...] = (), rules: GradeConfig | None = None
) -> Verdict:
    """Correct if the values are equal; a unit counts only where both sides have one.

    Unparsable: words, more than MAX_CHARS characters, power towers, and whatever else math-verify
    cannot parse in time.
    """
    quantity, gold_quantity = parse(answer), parse(gold)
    if quantity and gold_quantity:
        units = {quantity.unit, gold_quantity.unit} - {""}
        tolerance = Fraction(rules.number_tolerance if rules else 0.0) * abs(gold_quantity.value)
        equal = len(units) < 2 and abs(quantity.value - gold_quantity.value) <= tolerance
        return Verdict.correct if equal else Verdict.incorrect
    equal = expressions_equal(_to_latex(gold, gold_quantity), _to_latex(answer, quantity))
    if equal is None:
        return Verdict.incorrect if quantity else Verdict.unparsable
    return Verdict.correct if equal else Verdict.incorrect


def gold_problem(gold: str, options: tuple[str, ...] = ()) -> str | None:
    """Why the gold answer is not a number or an expression, or None."""
    text = strip_latex(gold)
    if parse(gold) or (is_expression(text) and _in_worker(math_verify_parses, text)):
        return None
    return f"{gold[:80]!r} is neither a number nor a readable expression"


def has_power_tower(text: str) -> bool:
    """Whether an exponent holds or is followed by another exponent."""
    for match in re.finditer(r"\^\s*", text):
        end, depth = match.end(), 0
        while end < len(text):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if text[end] == "^":
                return True
            end += 1
            if depth <= 0:
                break
        if text[end:].lstrip().startswith("^"):
            return True
    return False


def is_expression(text: str) -> bool:
    """Whether the text is mathematics that is safe and sensible to hand to math-verify."""
    if not text or len(text) > MAX_CHARS or not _SYMBOLS.fullmatch(text):
        return False
    bare = _COMMAND.sub(" ", text)
    has_letters = re.search(r"[a-zA-Z]", bare) is not None
    groups = sum(text.count(bracket) for bracket in "([")
    return (
        all(command in COMMANDS for command in _COMMAND.findall(text))
        and not _WORD.search(bare)
        and re.search(r"[a-zA-Z0-9]", text) is not None
        and not has_power_tower(text)
        and not _LONG_POWER.search(text)
        and not _LONG_NUMBER.search(text)
        and not _OVER_ZERO.search(text)
        and len(_POWER_OF_GROUP.findall(text)) <= 1
        and not (has_letters and _EXPANSION.search(text))
        and groups <= (_MAX_GROUPS_WITH_LETTERS if has_letters else _MAX_GROUPS)
    )


def expressions_equal(gold: str, answer: str) -> bool | None:
    """Whether two expressions are equal; None if one cannot be parsed, or time ran out."""
    if not is_expression(gold) or not is_expression(answer) or not is_consistent(answer):
        return None
    return _in_worker(math_verify_equal, gold, answer)


def is_consistent(text: str) -> bool:
    """Whether no two numbers are set equal that are not: math-verify reads `8 = 7` as 7.

    Sides with a letter are not checked: `x = 7` and `x + y = 7` are answers.
    """
    for left, right in pairwise(text.split("=")):
        letters = re.search(r"[a-zA-Z]", _COMMAND.sub(" ", left + right))
        if not left.strip() or not right.strip() or letters:
            continue
        if _in_worker(math_verify_equal, left, right) is not True:
            return False
    return True


_own_pool_lock = threading.Lock()


@cache
def _own_pool(pid: int) -> GraderPool:
    """The one worker for single comparisons of process `pid`; a forked child needs another."""
    pool = GraderPool(1, TIMEOUT_S)
    atexit.register(pool.close)
    return pool


def _in_worker(function: Callable[..., bool | None], *texts: str) -> bool | None:
    """Call a math-verify function here if this process is a grader's worker, else in a worker.

    None if time ran out.
    """
    if in_worker():
        if "math_verify" not in sys.modules:
            raise NotPrepared(load_math_verify)
        return function(*texts)
    with _own_pool_lock:
        (result,) = _own_pool(os.getpid()).run(_in_worker, [(function, *texts)])
    return None if isinstance(result, GradeFailure) else result


def load_math_verify() -> None:
    """Import math-verify, which takes seconds, and build its parsers. In a worker only."""
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its timers are off
    math_verify_equal(r"\frac{1}{2}", r"\sqrt{3}")


def _parse_latex(text: str) -> list[Any]:
    from math_verify import LatexExtractionConfig, parse

    # math-verify's own timers are Python signals, which stop no C code; the pool kills instead.
    return parse(
        f"${text.strip().strip('$')}$",
        [LatexExtractionConfig()],
        fallback_mode="no_fallback",
        parsing_timeout=None,  # pyright: ignore[reportArgumentType]  (None is documented)
    )


def math_verify_equal(gold: str, answer: str) -> bool | None:
    """Whether two expressions are equal, in a worker; None if one of them cannot be parsed."""
    from math_verify import verify

    parsed_gold, parsed_answer = _parse_latex(gold), _parse_latex(answer)
    if not parsed_gold or not parsed_answer:
        return None
    return verify(parsed_gold, parsed_answer, timeout_seconds=None)


def math_verify_parses(text: str) -> bool:
    """Whether math-verify can parse the text, in a worker."""
    return bool(_parse_latex(text))
