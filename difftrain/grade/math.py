"""Compares mathematical expressions with math-verify, in worker processes only.

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
from functools import cache, lru_cache
from math import isfinite
from typing import Any

from difftrain.grade.pool import GradeFailure, GraderPool, in_worker

MAX_CHARS = 200  # longer answers are not parsed
TIMEOUT_S = 5.0  # for one call of math-verify, if this process is not a worker itself

_LATEX = (
    "frac dfrac tfrac sqrt pi cdot times div pm mp left right circ degree infty le ge leq geq lt "
    "gt ne neq in cup cap sin cos tan cot sec csc arcsin arccos arctan log ln alpha beta gamma "
    "theta lambda mu phi omega sigma delta begin end matrix pmatrix bmatrix vmatrix"
)
COMMANDS = frozenset(_LATEX.split())  # allowed in an expression
_COMMAND = re.compile(r"\\([a-zA-Z]+)")
_WORD = re.compile(r"(?<![a-zA-Z0-9])[a-zA-Z]{2,}|[a-zA-Z]{4,}")  # not the `xyz` in `2xyz`
_ALLOWED_TEXT = re.compile(r"[\sa-zA-Z0-9+\-*/^_=<>(){}\[\]|.,:;\\$%°'&]*")
_BLANK_BETWEEN_NUMBERS = re.compile(r"[0-9]\s+[0-9]")  # math-verify would add or multiply them
_MATRIX = re.compile(r"\\(?:begin|end)\s*\{[pbv]?matrix\}")
_TOO_LARGE_OR_OVER_ZERO = re.compile(r"\^\s*\{?\s*[+-]?[0-9]{4,}|[0-9]{21,}|/\s*0+(?![.0-9])")
"""An exponent of four or more digits, a number of 21 or more digits, a division by zero."""
_LARGE_WITH_LOGARITHM = re.compile(r"[0-9]{7,}|\^\s*\{?\s*[+-]?[0-9]{2,}")
"""Beside a logarithm: n ln(a) would become ln(a^n)."""
_POWER_OF_GROUP = re.compile(r"[)\]}]\s*\^")  # as in `(x + 1)^2`
_LARGE_POWER_OF_GROUP = re.compile(r"[)\]}]\s*\^\s*\{?\s*[0-9]{2,}")  # as in `(x + 1)^12`
# Maximum number of "(" and "[". The time to expand a product grows exponentially with it.
_MAX_BRACKETS_WITH_LETTERS, _MAX_BRACKETS = 4, 12


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


def is_expression(text: str) -> bool:
    """Whether the text is a mathematical expression that math-verify can evaluate safely."""
    if not text or len(text) > MAX_CHARS or not _ALLOWED_TEXT.fullmatch(text):
        return False
    without_commands = _COMMAND.sub(" ", _MATRIX.sub(" ", text))
    has_letters = re.search(r"[a-zA-Z]", without_commands) is not None
    num_brackets = text.count("(") + text.count("[")
    return (
        COMMANDS.issuperset(_COMMAND.findall(text))
        and not _WORD.search(without_commands)
        and re.search(r"[a-zA-Z0-9]", text) is not None
        and not _BLANK_BETWEEN_NUMBERS.search(text)
        and not _has_power_tower(text)
        and not _TOO_LARGE_OR_OVER_ZERO.search(text)
        and len(_POWER_OF_GROUP.findall(text)) <= 1
        and not ((has_letters or r"\sqrt" in text) and _LARGE_POWER_OF_GROUP.search(text))
        and not (re.search(r"\\(?:ln|log)", text) and _LARGE_WITH_LOGARITHM.search(text))
        and num_brackets <= (_MAX_BRACKETS_WITH_LETTERS if has_letters else _MAX_BRACKETS)
    )


def expressions_equal(gold: str, answer: str) -> bool | None:
    """Whether two expressions are equal; None if one cannot be parsed or time runs out."""
    if not is_expression(gold) or not is_expression(answer):
        return None
    return _call_in_worker(_math_verify_equal, gold, answer)


def is_readable(text: str) -> bool:
    """Whether math-verify can parse an expression."""
    return is_expression(text) and bool(_call_in_worker(_math_verify_parses, text))


def approximates(expression: str, decimal: str) -> bool | None:
    """Whether a decimal number is the expression's value, rounded or cut at its last digit.

    None if the expression has no value, or time runs out.
    """
    if not is_expression(expression):
        return None
    return _call_in_worker(_is_rounded, expression, decimal)


def has_letters(text: str) -> bool:
    """Whether an expression has a letter that is not part of a command."""
    return re.search(r"[a-zA-Z]", _COMMAND.sub(" ", text)) is not None


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


@lru_cache(maxsize=1024)  # the gold answer of a group's responses is parsed once
def _parsed(text: str) -> list[Any]:
    return _parse_latex(text)


def _math_verify_equal(gold: str, answer: str) -> bool | None:
    from math_verify import verify

    parsed = _parsed(gold), _parsed(answer)
    return verify(*parsed, timeout_seconds=None) if all(parsed) else None


def _math_verify_parses(text: str) -> bool:
    return bool(_parsed(text))


def _is_rounded(expression: str, decimal: str) -> bool | None:
    shown, last_digit = Fraction(decimal), Fraction(1, 10 ** len(decimal.partition(".")[2]))
    for parsed in _parsed(expression):
        try:
            number = float(parsed)
        except (TypeError, OverflowError, ValueError):  # a complex or too large number, a set
            continue
        if isfinite(number):
            value = Fraction(number)
            below = abs(value) - abs(shown)
            is_cut = last_digit < 1 and value * shown > 0 and 0 <= below < last_digit
            return abs(value - shown) <= last_digit / 2 or is_cut
    return None
