"""Equality of expressions by math-verify. Imported by worker processes only, never elsewhere.

math-verify's own timers are off: they are signals, which reach the main thread only and no C
code. The worker as a whole is killed when it takes too long.
"""

import logging

from math_verify import LatexExtractionConfig, parse, verify

logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its timers are off


def _parse(text: str) -> list:
    inside = text.strip().strip("$")
    return parse(
        f"${inside}$",
        [LatexExtractionConfig()],
        fallback_mode="no_fallback",
        parsing_timeout=None,  # pyright: ignore[reportArgumentType]  (None is documented)
    )


def parses(text: str) -> bool:
    """Whether math-verify makes anything of the text."""
    return bool(_parse(text))


def equal(gold: str, said: str) -> bool | None:
    """Whether two expressions are equal; None if one of them cannot be read."""
    wanted, found = _parse(gold), _parse(said)
    if not wanted or not found:
        return None
    return verify(wanted, found, timeout_seconds=None)
