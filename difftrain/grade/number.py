"""Grades a number: exact arithmetic where both sides are plain numbers, else math-verify.

Expressions must be short, made of a small set of commands, and hold no words (math-verify takes
words for products of letters), no power towers and nothing else that takes for ever to evaluate.
math-verify and sympy run in worker processes only (pool.py), never in the process that trains.
"""

import atexit
import logging
import os
import re
import threading
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from itertools import pairwise
from typing import Any

from difftrain.config.difficulty import GradeConfig
from difftrain.grade.pool import GradeFailure, GraderPool, in_worker
from difftrain.grade.text import normalize_number, strip_wrappers

MAX_CHARS = 200  # longer answers are not parsed
TIMEOUT_S = 5.0  # of one comparison that is not made inside a grader's worker

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

_SIGN = r"(?:[a-zA-Z]\s*=\s*)?(?P<sign>[+-]?)\s*"
_WHOLE = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_DECIMAL = rf"(?P<decimal>(?:{_WHOLE}(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{{1,2}})?)"
_RATIO = r"(?P<over>[0-9]+)\s*/\s*(?P<under>0*[1-9][0-9]*)"
_FRAC = r"\\[dt]?frac\s*\{\s*(?P<top>[+-]?[0-9]+)\s*\}\s*\{\s*(?P<bottom>0*[1-9][0-9]*)\s*\}"
_UNIT = rf"\s*(?:(?P<unit>(?ai:{'|'.join(map(re.escape, UNITS))}))(?:\^\{{?(?P<power>[23])\}}?)?)?"
_QUANTITY = re.compile(rf"{_SIGN}(?:{_RATIO}|{_FRAC}|{_DECIMAL}){_UNIT}\.?")
_WRAPPER = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\{([^{}]*)\}")
_NOISE = re.compile(r"\$|\\[()\[\],;! ]")
_DEGREE = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)")

_LATEX = (
    "frac dfrac tfrac sqrt pi cdot times div pm mp left right circ degree infty le ge leq geq lt "
    "gt ne neq in cup cap sin cos tan cot sec csc arcsin arccos arctan log ln alpha beta gamma "
    "theta lambda mu phi omega sigma delta"
)
COMMANDS = frozenset(_LATEX.split())  # that an expression may hold
_COMMAND = re.compile(r"\\([a-zA-Z]+)")
_WORD = re.compile(r"(?<![a-zA-Z0-9])[a-zA-Z]{2,}|[a-zA-Z]{4,}")
_SYMBOLS = re.compile(r"[\sa-zA-Z0-9+\-*/^_=<>(){}\[\]|.,:;\\$%°']*")
_LONG_OR_OVER_ZERO = re.compile(r"\^\s*\{?\s*[+-]?[0-9]{4,}|[0-9]{21,}|/\s*0+(?![.0-9])")
"""An exponent of four digits, a number of 21, a division by zero."""
_POWER_OF_GROUP = re.compile(r"[)\]}]\s*\^")
_EXPANSION = re.compile(r"[)\]}]\s*\^\s*\{?\s*[0-9]{2,}")
# Brackets allowed: expanding a product of sums grows with the power of their number.
_MAX_GROUPS_WITH_LETTERS, _MAX_GROUPS = 4, 12


def strip_latex(text: str) -> str:
    """The text without LaTeX's dollar signs, text wrappers and thin spaces."""
    text = _WRAPPER.sub(r" \1 ", strip_wrappers(normalize_number(text)))
    text = _DEGREE.sub("°", text).replace("\\%", "%").replace("\\$", "")
    return _NOISE.sub("", text).strip()


def parse(answer: str) -> tuple[Fraction, str] | None:
    """The exact value of an integer, decimal or fraction, and its unit or ""; after `x =` too."""
    match = _QUANTITY.fullmatch(strip_latex(answer)) if len(answer) <= MAX_CHARS else None
    if match is None:
        return None
    if match["decimal"]:
        value = Fraction(match["decimal"].replace(",", "").rstrip("."))
    else:
        value = Fraction(int(match["over"] or match["top"]), int(match["under"] or match["bottom"]))
    unit = UNITS[match["unit"].lower()] + (match["power"] or "") if match["unit"] else ""
    return (-value if match["sign"] == "-" else value), unit


def _to_latex(text: str, quantity: tuple[Fraction, str] | None) -> str:
    if quantity is None:
        return strip_latex(text)
    top, bottom = quantity[0].as_integer_ratio()
    return str(top) if bottom == 1 else rf"\frac{{{top}}}{{{bottom}}}"


def credit(answer: str, gold: str, options: tuple[str, ...], rules: GradeConfig) -> float | None:
    """1 if the values are equal; a unit counts only where both sides have one.

    Unparsable: words, more than MAX_CHARS characters, power towers, and whatever else math-verify
    cannot parse in time.
    """
    quantity, gold_quantity = parse(answer), parse(gold)
    if quantity and gold_quantity:
        (value, unit), (gold_value, gold_unit) = quantity, gold_quantity
        tolerance = Fraction(rules.number_tolerance) * abs(gold_value)
        return float(len({unit, gold_unit} - {""}) < 2 and abs(value - gold_value) <= tolerance)
    equal = expressions_equal(_to_latex(gold, gold_quantity), _to_latex(answer, quantity))
    return None if equal is None and not quantity else float(bool(equal))


def gold_problem(gold: str, options: tuple[str, ...]) -> str | None:
    """Why the gold answer is not a number or an expression, or None."""
    text = strip_latex(gold)
    if parse(gold) or (_is_expression(text) and _call_in_worker(_math_verify_parses, text)):
        return None
    return f"{gold[:80]!r} is neither a number nor a readable expression"


def _has_power_tower(text: str) -> bool:
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


def _is_expression(text: str) -> bool:
    """Whether the text is mathematics that is safe and sensible to hand to math-verify."""
    if not text or len(text) > MAX_CHARS or not _SYMBOLS.fullmatch(text):
        return False
    bare = _COMMAND.sub(" ", text)
    has_letters = re.search(r"[a-zA-Z]", bare) is not None
    groups = text.count("(") + text.count("[")
    return (
        COMMANDS.issuperset(_COMMAND.findall(text))
        and not _WORD.search(bare)
        and re.search(r"[a-zA-Z0-9]", text) is not None
        and not _has_power_tower(text)
        and not _LONG_OR_OVER_ZERO.search(text)
        and len(_POWER_OF_GROUP.findall(text)) <= 1
        and not (has_letters and _EXPANSION.search(text))
        and groups <= (_MAX_GROUPS_WITH_LETTERS if has_letters else _MAX_GROUPS)
    )


def expressions_equal(gold: str, answer: str) -> bool | None:
    """Whether two expressions are equal; None if one cannot be parsed, or time ran out.

    None too for an answer that sets two numbers equal that are not: math-verify reads `8 = 7` as 7.
    Sides with a letter are not checked: `x = 7` and `x + y = 7` are answers.
    """
    if not _is_expression(gold) or not _is_expression(answer):
        return None
    for left, right in pairwise(answer.split("=")):
        has_letters = re.search(r"[a-zA-Z]", _COMMAND.sub(" ", left + right))
        is_checked = left.strip() and right.strip() and not has_letters
        if is_checked and not _call_in_worker(_math_verify_equal, left, right):
            return None
    return _call_in_worker(_math_verify_equal, gold, answer)


_own_pool_lock = threading.Lock()


@cache
def _own_pool(pid: int) -> GraderPool:
    """The one worker for single comparisons of process `pid`; a forked child needs another."""
    pool = GraderPool(1, TIMEOUT_S)
    atexit.register(pool.close)
    return pool


def _call_in_worker(function: Callable[..., bool | None], *texts: str) -> bool | None:
    """Call a math-verify function here if this process is a grader's worker, else in a worker.

    None if time ran out.
    """
    if in_worker():
        return function(*texts)
    with _own_pool_lock:
        (result,) = _own_pool(os.getpid()).run(function, [texts], load_math_verify)
    return None if isinstance(result, GradeFailure) else result


@cache
def load_math_verify() -> None:
    """Import math-verify, which takes seconds, and build its parsers. In a worker only."""
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its timers are off
    _math_verify_equal(r"\frac{1}{2}", r"\sqrt{3}")


def _parse_latex(text: str) -> list[Any]:
    from math_verify import LatexExtractionConfig, parse

    # math-verify's own timers are Python signals, which stop no C code; the pool kills instead.
    return parse(
        f"${text.strip().strip('$')}$",
        [LatexExtractionConfig()],
        fallback_mode="no_fallback",
        parsing_timeout=None,  # pyright: ignore[reportArgumentType]  (None is documented)
    )


def _math_verify_equal(gold: str, answer: str) -> bool | None:
    from math_verify import verify

    parsed = _parse_latex(gold), _parse_latex(answer)
    return verify(*parsed, timeout_seconds=None) if all(parsed) else None


def _math_verify_parses(text: str) -> bool:
    return bool(_parse_latex(text))
