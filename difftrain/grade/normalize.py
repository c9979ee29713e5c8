"""Normalizes characters for all graders: case, width, dashes, superscripts, white space."""

import unicodedata

_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}  # such as ７ -> 7
DASHES = dict.fromkeys((*range(0x2010, 0x2016), 0x2212, 0xFE58, 0xFE63), "-")
"""Translation of all dashes and the minus sign to `-`."""
_NUMERIC = {**_FULL_WIDTH, **DASHES, ord("²"): "^2", ord("³"): "^3", 0x00A0: " ", 0x3000: " "}


def normalize_text(text: str) -> str:
    """The text in NFKC and case-folded, with single blanks for white space, stripped."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())  # casefold can undo NFKC


def normalize_number(text: str) -> str:
    """The text with ASCII for full-width characters, dashes and superscripts, stripped.

    NFKC cannot be used: it turns 10² into 102 and 1½ into 11/2.
    """
    return text.translate(_NUMERIC).strip()
