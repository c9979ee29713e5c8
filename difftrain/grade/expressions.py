"""Whether two mathematical expressions are equal, by math-verify. The only file that imports it.

Everything that math-verify is asked passes `is_expression` first: it must be short, made of a
small set of commands, and hold no words (math-verify takes words for products of letters), no
power towers and nothing else whose value takes for ever. In the main thread math-verify's own
timers run; elsewhere they cannot (SIGALRM), and these bounds alone protect us. A worker process
that can be killed would replace `equal` and `parses`, and nothing else.
"""

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from math_verify import LatexExtractionConfig, parse, verify
from math_verify.errors import TimeoutException

LONGEST = 200
"""Characters beyond which an answer is not read."""
SECONDS = 3
"""Patience with one parse or comparison, in the main thread."""

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


@contextmanager
def _timers() -> Iterator[int | None]:
    """The patience math-verify may have here; another user's alarm is put back afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield None
        return
    left, interval = signal.getitimer(signal.ITIMER_REAL)
    try:
        yield SECONDS
    finally:
        if left:
            signal.setitimer(signal.ITIMER_REAL, left, interval)


def _parse(text: str, seconds: int | None) -> list:
    inside = text.strip().strip("$")
    return parse(
        f"${inside}$",
        [LatexExtractionConfig()],
        fallback_mode="no_fallback",
        parsing_timeout=seconds,  # pyright: ignore[reportArgumentType]  (None is documented)
    )


def parses(text: str) -> bool:
    """Whether math-verify makes anything of the text (in time)."""
    if not is_expression(text):
        return False
    with _timers() as seconds:
        try:
            return bool(_parse(text, seconds))
        except TimeoutException:
            return False


def equal(gold: str, said: str) -> bool | None:
    """Whether two expressions are equal; None if one cannot be read, or time ran out."""
    if not is_expression(gold) or not is_expression(said):
        return None
    with _timers() as seconds:
        try:
            wanted, found = _parse(gold, seconds), _parse(said, seconds)
            if not wanted or not found:
                return None
            return verify(wanted, found, timeout_seconds=seconds)
        except TimeoutException:
            return None
