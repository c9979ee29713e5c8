"""Spellings of the same characters made one: for texts by NFKC, for numbers more carefully."""

import re
import unicodedata

_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_DASHES = dict.fromkeys((*range(0x2010, 0x2016), 0x2212, 0xFE58, 0xFE63), "-")
_NUMERIC = {**_FULL_WIDTH, **_DASHES, 0x00B2: "^2", 0x00B3: "^3", 0x00A0: " ", 0x3000: " "}
_WRAPPED = re.compile(
    r"\s*(?:\\(?:text|textbf|textit|mathrm|mathbf|mathit|textrm)\s*\{([^{}]*)\}"
    r"|\$([^$]*)\$|\*\*([^*]*)\*\*)\s*"
)
_WRAPPERS = 4
"""Wrappers one within the other that are opened."""


def normal_text(text: str) -> str:
    """NFKC, case-folded, white space collapsed to single blanks and stripped."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def numeric_text(text: str) -> str:
    """Full-width characters, dashes and superscripts in their ASCII spelling; stripped.

    Not NFKC, which would make 102 of ten squared and 11/2 of one and a half.
    """
    return text.translate(_NUMERIC).strip()


def unwrapped(text: str) -> str:
    r"""The text without `\text{}` and its kin, `$ $` or `** **` around all of it."""
    for _ in range(_WRAPPERS):
        found = _WRAPPED.fullmatch(text)
        if found is None:
            break
        text = next(inside for inside in found.groups() if inside is not None)
    return text
