"""Spellings of the same characters made one: for texts by NFKC, for numbers more carefully."""

import unicodedata

_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_NUMERIC = {**_FULL_WIDTH, 0x2212: "-", 0x00B2: "^2", 0x00B3: "^3", 0x00A0: " ", 0x3000: " "}


def normal_text(text: str) -> str:
    """NFKC, case-folded, white space collapsed to single blanks and stripped."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def numeric_text(text: str) -> str:
    """Full-width characters, minus signs and superscripts in their ASCII spelling; stripped.

    Not NFKC, which would make 102 of ten squared and 11/2 of one and a half.
    """
    return text.translate(_NUMERIC).strip()
