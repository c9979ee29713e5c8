"""Whether two mathematical expressions are equal, by math-verify in a process that can be killed.

Everything that math-verify is asked passes `is_expression` first: it must be short, made of a
small set of commands, and hold no words (math-verify takes words for products of letters), no
power towers and nothing else whose value takes for ever. What passes is asked of a worker process
(workers.py), so that sympy never sees a model's text in the process that trains; inside a worker
it is asked directly.
"""

import atexit
import os
import re
import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from difftrain.grade.workers import Ending, Workers

LONGEST = 200
"""Characters beyond which an answer is not read."""
SECONDS = 5.0
"""Patience with one comparison that is asked outside a worker."""

COMMANDS = frozenset(
    re.findall(
        r"\w+",
        "frac dfrac tfrac sqrt pi cdot times div pm mp left right circ degree infty le ge leq geq "
        "lt gt ne neq in cup cap sin cos tan cot sec csc arcsin arccos arctan log ln alpha beta "
        "gamma theta lambda mu phi omega sigma delta",
    )
)
_COMMAND = re.compile(r"\\([a-zA-Z]+)")
_WORD = re.compile(r"(?<![a-zA-Z0-9])[a-zA-Z]{2,}|[a-zA-Z]{4,}")
_SYMBOLS = re.compile(r"[\sa-zA-Z0-9+\-*/^_=<>(){}\[\]|.,:;\\$%°']*")
_LONG_POWER = re.compile(r"\^\s*\{?\s*[+-]?[0-9]{4,}")
_LONG_NUMBER = re.compile(r"[0-9]{21,}")
_POWER_OF_GROUP = re.compile(r"[)\]}]\s*\^")
_EXPANSION = re.compile(r"[)\]}]\s*\^\s*\{?\s*[0-9]{2,}")
_GROUPS_WITH_LETTERS, _GROUPS = 4, 12
"""Brackets allowed: products of sums grow with the power of their number when expanded."""
_OVER_ZERO = re.compile(r"/\s*0+(?![.0-9])")


def has_power_tower(text: str) -> bool:
    """Whether an exponent holds or is followed by another exponent."""
    for found in re.finditer(r"\^\s*", text):
        end, depth = found.end(), 0
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
    if not text or len(text) > LONGEST or not _SYMBOLS.fullmatch(text):
        return False
    bare = _COMMAND.sub(" ", text)
    letters = re.search(r"[a-zA-Z]", bare) is not None
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
        and not (letters and _EXPANSION.search(text))
        and groups <= (_GROUPS_WITH_LETTERS if letters else _GROUPS)
    )


class MathVerifyNotLoaded(RuntimeError):
    """This worker process has not imported math-verify yet, which takes seconds."""


_direct: dict[str, Callable[..., Any]] | None = None
"""Inside a worker: math-verify's two functions, empty until they are loaded. Elsewhere None."""
_own: tuple[int, Workers] | None = None
_turn = threading.Lock()


def inside_a_worker() -> None:
    """Say that this process may be killed, so that math-verify is asked here and not elsewhere."""
    global _direct
    _direct = {}


def use(equal: Callable[..., Any], parses: Callable[..., Any]) -> None:
    """Give a worker process math-verify's functions (algebra.py)."""
    global _direct
    _direct = {"equal": equal, "parses": parses}


def _worker() -> Workers:
    """This process's one worker for single questions; a forked child does not use its parent's."""
    global _own
    if _own is None or _own[0] != os.getpid():
        _own = os.getpid(), Workers(1, SECONDS)
        atexit.register(_own[1].close)
    return _own[1]


def _asked(what: str, *texts: str) -> bool | None:
    if _direct is not None:
        if not _direct:
            raise MathVerifyNotLoaded
        return _direct[what](*texts)
    with _turn:
        reply = _worker().ask([{what: texts}])[0]
    return None if isinstance(reply, Ending) else reply[what]


def parses(text: str) -> bool:
    """Whether math-verify makes anything of the text (in time)."""
    return is_expression(text) and bool(_asked("parses", text))


def holds_together(text: str) -> bool:
    """Whether no two numbers are set equal that are not: math-verify reads `8 = 7` as 7.

    Sides with a letter are left alone: `x = 7` and `x + y = 7` are answers.
    """
    for one, two in pairwise(text.split("=")):
        letters = re.search(r"[a-zA-Z]", _COMMAND.sub(" ", one + two))
        if one.strip() and two.strip() and not letters and _asked("equal", one, two) is not True:
            return False
    return True


def equal(gold: str, said: str) -> bool | None:
    """Whether two expressions are equal; None if one cannot be read, or time ran out."""
    if not is_expression(gold) or not is_expression(said) or not holds_together(said):
        return None
    return _asked("equal", gold, said)
