"""Grades a number: by exact arithmetic if answer and gold are plain numbers, else with math-verify.

math-verify gets only short expressions with a few LaTeX commands. It gets no words, which it reads
as products of letters, and no power towers such as 9^9^9^9, which it never finishes. math-verify
and sympy run in worker processes only (pool.py), never in the training process.
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
from difftrain.grade.decision import Decision
from difftrain.grade.pool import GradeFailure, GraderPool, in_worker
from difftrain.grade.text import normalize_number, strip_wrappers

MAX_CHARS = 200  # longer answers are not parsed
TIMEOUT_S = 5.0  # for one call of math-verify, if this process is not a worker itself

_SPELLINGS = {  # unit -> its other spellings
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
"""Units allowed after a number: spelling -> the spelling used for comparison."""

_SIGN = r"(?:[a-zA-Z]\s*=\s*)?(?P<sign>[+-]?)\s*"  # `x = -`, or a part of it
_WHOLE = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_DECIMAL = rf"(?P<decimal>(?:{_WHOLE}(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{{1,2}})?)"
_RATIO = r"(?P<over>[0-9]+)\s*/\s*(?P<under>0*[1-9][0-9]*)"
_FRAC = r"\\[dt]?frac\s*\{\s*(?P<top>[+-]?[0-9]+)\s*\}\s*\{\s*(?P<bottom>0*[1-9][0-9]*)\s*\}"
_UNIT = rf"\s*(?:(?P<unit>(?ai:{'|'.join(map(re.escape, UNITS))}))(?:\^\{{?(?P<power>[23])\}}?)?)?"
_QUANTITY = re.compile(rf"{_SIGN}(?:{_RATIO}|{_FRAC}|{_DECIMAL}){_UNIT}\.?")
_WRAPPER = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\{([^{}]*)\}")
_DELIMITER_OR_SPACE = re.compile(r"\$|\\[()\[\],;! ]")
_DEGREE = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)")

_LATEX = (
    "frac dfrac tfrac sqrt pi cdot times div pm mp left right circ degree infty le ge leq geq lt "
    "gt ne neq in cup cap sin cos tan cot sec csc arcsin arccos arctan log ln alpha beta gamma "
    "theta lambda mu phi omega sigma delta"
)
COMMANDS = frozenset(_LATEX.split())  # allowed in an expression
_COMMAND = re.compile(r"\\([a-zA-Z]+)")
_WORD = re.compile(r"(?<![a-zA-Z0-9])[a-zA-Z]{2,}|[a-zA-Z]{4,}")  # not the `xyz` in `2xyz`
_ALLOWED_TEXT = re.compile(r"[\sa-zA-Z0-9+\-*/^_=<>(){}\[\]|.,:;\\$%°']*")
_TOO_LARGE_OR_OVER_ZERO = re.compile(r"\^\s*\{?\s*[+-]?[0-9]{4,}|[0-9]{21,}|/\s*0+(?![.0-9])")
"""An exponent of four or more digits, a number of 21 or more digits, a division by zero."""
_POWER_OF_GROUP = re.compile(r"[)\]}]\s*\^")  # as in `(x + 1)^2`
_LARGE_POWER_OF_GROUP = re.compile(r"[)\]}]\s*\^\s*\{?\s*[0-9]{2,}")  # as in `(x + 1)^12`
# Maximum number of "(" and "[". The time to expand a product grows exponentially with it.
_MAX_BRACKETS_WITH_LETTERS, _MAX_BRACKETS = 4, 12


def strip_latex(text: str) -> str:
    """The text without LaTeX dollar signs, text wrappers and spacing commands."""
    text = _WRAPPER.sub(r" \1 ", strip_wrappers(normalize_number(text)))
    text = _DEGREE.sub("°", text).replace("\\%", "%").replace("\\$", "")
    return _DELIMITER_OR_SPACE.sub("", text).strip()


def parse(answer: str) -> tuple[Fraction, str] | None:
    """The exact value and the unit ("" if none) of a number or fraction, else None."""
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
    """The value of `quantity` (the result of `parse`) without its unit; if None, the text."""
    if quantity is None:
        return strip_latex(text)
    top, bottom = quantity[0].as_integer_ratio()
    return str(top) if bottom == 1 else rf"\frac{{{top}}}{{{bottom}}}"


def decide(answer: str, gold: str, options: tuple[str, ...], rules: GradeConfig) -> Decision:
    """1 if the values are equal, else 0; units are compared only if answer and gold have one.

    None (unparsable) for words, more than MAX_CHARS characters, power towers, and anything that
    math-verify cannot parse in time. `options` is unused: all graders have these parameters.
    """
    quantity, gold_quantity = parse(answer), parse(gold)
    if quantity and gold_quantity:
        (value, unit), (gold_value, gold_unit) = quantity, gold_quantity
        tolerance = Fraction(rules.number_tolerance) * abs(gold_value)
        equal = len({unit, gold_unit} - {""}) < 2 and abs(value - gold_value) <= tolerance
        texts = f"{value} {unit}".strip(), f"{gold_value} {gold_unit}".strip()
        return Decision(float(equal), *texts, "number")
    texts = _to_latex(answer, quantity), _to_latex(gold, gold_quantity)
    equal = expressions_equal(texts[1], texts[0])
    # A number that cannot be compared with the gold expression is incorrect, not unparsable.
    if equal is None and not quantity:
        return Decision(None, None, texts[1], "no readable expression")
    return Decision(float(bool(equal)), *texts, "expression")


def gold_problem(gold: str, options: tuple[str, ...]) -> str | None:
    """Why the gold answer is not a number or an expression, or None. `options` is unused."""
    text = strip_latex(gold)
    if parse(gold) or (_is_expression(text) and _call_in_worker(_math_verify_parses, text)):
        return None
    return f"{gold[:80]!r} is neither a number nor a readable expression"


def _has_power_tower(text: str) -> bool:
    """Whether an exponent contains another exponent or is followed by one."""
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
    """Whether the text is a mathematical expression that math-verify can evaluate safely."""
    if not text or len(text) > MAX_CHARS or not _ALLOWED_TEXT.fullmatch(text):
        return False
    without_commands = _COMMAND.sub(" ", text)
    has_letters = re.search(r"[a-zA-Z]", without_commands) is not None
    num_brackets = text.count("(") + text.count("[")
    return (
        COMMANDS.issuperset(_COMMAND.findall(text))
        and not _WORD.search(without_commands)
        and re.search(r"[a-zA-Z0-9]", text) is not None
        and not _has_power_tower(text)
        and not _TOO_LARGE_OR_OVER_ZERO.search(text)
        and len(_POWER_OF_GROUP.findall(text)) <= 1
        and not (has_letters and _LARGE_POWER_OF_GROUP.search(text))
        and num_brackets <= (_MAX_BRACKETS_WITH_LETTERS if has_letters else _MAX_BRACKETS)
    )


def expressions_equal(gold: str, answer: str) -> bool | None:
    """Whether two expressions are equal; None if one cannot be parsed or time runs out.

    Also None for an answer with a false equation such as `8 = 7`, which math-verify reads as 7.
    Equations with a letter are not checked: `x = 7` and `x + y = 7` are answers.
    """
    if not _is_expression(gold) or not _is_expression(answer):
        return None
    for left, right in pairwise(answer.split("=")):
        has_letters = re.search(r"[a-zA-Z]", _COMMAND.sub(" ", left + right))
        is_checked = left.strip() and right.strip() and not has_letters
        if is_checked and not _call_in_worker(_math_verify_equal, left, right):
            return None
    return _call_in_worker(_math_verify_equal, gold, answer)


_single_worker_lock = threading.Lock()


@cache
def _single_worker_pool(pid: int) -> GraderPool:
    """A pool with one worker, for process `pid`: a forked child needs its own."""
    pool = GraderPool(1, TIMEOUT_S)
    atexit.register(pool.close)
    return pool


def _call_in_worker(function: Callable[..., bool | None], *texts: str) -> bool | None:
    """Call a math-verify function here if this process is a grader's worker, else in a worker.

    None if the call times out or its worker dies.
    """
    if in_worker():
        return function(*texts)
    with _single_worker_lock:
        (result,) = _single_worker_pool(os.getpid()).run(function, [texts], load_math_verify)
    return None if isinstance(result, GradeFailure) else result


@cache
def load_math_verify() -> None:
    """Import math-verify, which takes seconds, and build its parsers; call it in workers only."""
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns about its disabled timeouts
    _math_verify_equal(r"\frac{1}{2}", r"\sqrt{3}")


def _parse_latex(text: str) -> list[Any]:
    from math_verify import LatexExtractionConfig, parse

    # math-verify's timeouts are Python signals, which cannot stop C code; the pool's limits can.
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
