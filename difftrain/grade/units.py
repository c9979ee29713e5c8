"""Reads units of measurement: `km/h`, `square meters`, `平方厘米`, `€`; pint converts them.

Only the names in units.txt are read as units. pint knows thousands more, some of which change a
number (dozen) or are everyday words (point), so a text would mean what its writer did not say.
"""

import re
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

MAX_CHARS = 40  # a longer text is no unit
COUNT = "count"
_LINES = Path(__file__).with_name("units.txt").read_text(encoding="utf-8").splitlines()
_WORDS = [line.split() for line in _LINES if not line.startswith("#")]
_NAMES = {spelling: words[0] for words in _WORDS for spelling in words}
_PREFIXES = {
    "k": "kilo",
    "c": "centi",
    "m": "milli",
    "µ": "micro",
    "n": "nano",
    "M": "mega",
    "G": "giga",
}
_PREFIXED = {
    symbol: _NAMES[symbol]
    for symbol in ["m", "g", "s", "L", "l", "N", "J", "W", "V", "Hz", "Pa", "Ω", "mol", "cal"]
}
_PREFIXED |= {"A": "ampere", "F": "farad", "C": "coulomb"}
_SYMBOLS = {p + s: _PREFIXES[p] + _PREFIXED[s] for p in _PREFIXES for s in _PREFIXED} | _NAMES
_LONG = {long + _PREFIXED[s]: long + _PREFIXED[s] for long in _PREFIXES.values() for s in _PREFIXED}
_POWERS = {"square": 2, "sq": 2, "sq.": 2, "平方": 2, "cubic": 3, "cu": 3, "立方": 3}
_REWRITES = (
    (re.compile(r"\bmph\b"), "mile/hour"),
    (re.compile(r"\b(?:kph|kmh)\b"), "km/h"),
    (re.compile(r"(?:°|\bdegrees?)\s*(?:C|[Cc]elsius)\b"), "celsius"),
    (re.compile(r"(?:°|\bdegrees?)\s*(?:F|[Ff]ahrenheit)\b"), "fahrenheit"),
    (re.compile(r"\s+squared\b"), "^2"),
    (re.compile(r"\s+cubed\b"), "^3"),
    (re.compile(r"\byears old\b"), "years"),
)
_TOKEN = re.compile(r"\s*(\^\{?-?[1-3]\}?|per(?![a-z])|[/每*]|\\cdot|平方|立方|[^\s/*^\d\\]+)")


def _name(word: str) -> str | None:
    """pint's name of one word, in singular or plural; symbols keep their case."""
    if word in _SYMBOLS:
        return _SYMBOLS[word]
    lower = word.lower()
    candidates = [lower, lower.removesuffix("s")]
    if lower.endswith("metre") or lower.endswith("metres"):
        candidates.append(lower.removesuffix("s").removesuffix("re") + "er")
    known = _NAMES | _LONG
    short = {name: unit for name, unit in known.items() if len(name) > 1 or not name.isascii()}
    return next((short[candidate] for candidate in candidates if candidate in short), None)


@lru_cache(maxsize=4096)
def parse(text: str) -> str | None:
    """The unit in one spelling (`kilometer / hour`); COUNT for people, units; None if no unit.

    Reads products, quotients and powers 2 and 3 of the names in this module.
    """
    text = text.strip()
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    if not text or len(text) > MAX_CHARS:
        return None
    powers: dict[str, int] = {}
    last, end, power, sign = None, 0, 1, 1
    while end < len(text):
        match = _TOKEN.match(text, end)
        if match is None:
            return None
        token, end = match[1], match.end()
        if token.lower() in _POWERS:
            power = _POWERS[token.lower()]
        elif token.startswith("^") and last:
            powers[last] *= int(token.strip("^{}"))
        elif token in ("/", "per", "每"):
            if sign == -1:
                return None
            sign = -1
        elif token in ("*", r"\cdot"):
            pass
        elif name := _name(token.rstrip(".")):
            powers[name] = powers.get(name, 0) + sign * power
            last, power = name, 1
        else:
            return None
    if {*powers} == {COUNT}:
        return COUNT
    powers.pop(COUNT, None)
    is_complete = last is not None and power == 1 and not text.endswith(("/", "per", "每"))
    return _canonical(tuple(sorted(powers.items()))) if is_complete else None


def _canonical(powers: tuple[tuple[str, int], ...]) -> str:
    """The unit in pint's notation, `kilometer / hour`, independent of the order of its parts."""

    def product(sign: int) -> str:
        parts = [(name, sign * power) for name, power in powers if sign * power > 0]
        return " * ".join(f"{name} ** {power}" if power > 1 else name for name, power in parts)

    top, bottom = product(1), product(-1)
    return f"{top or 1} / {bottom}" if bottom else top


@cache
def _registry() -> Any:
    import pint  # its import and registry take a second

    return pint.UnitRegistry(cache_folder=None)


def factor(unit: str, target: str) -> float | None:
    """How many `target` one `unit` is; None if they do not measure the same, or with an offset."""
    import pint

    try:
        return float(_registry().Quantity(1, unit).to(target).magnitude)
    except (pint.errors.PintError, ValueError):
        return None
