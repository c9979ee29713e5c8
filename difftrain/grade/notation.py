r"""Brings a mathematical text into one notation: LaTeX commands without decoration, ASCII digits.

`２½`, `\dfrac12` and `√3` become `2 1/2`, `\frac{1}{2}` and `\sqrt{3}`. Nothing is evaluated here.
"""

import re
import unicodedata

from difftrain.grade.text import normalize_number, strip_wrappers

_SYMBOLS = {
    "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "÷": "/", "π": r"\pi ",
    "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\neq ", "≈": r"\approx ", "≃": r"\approx ",
    "±": r"\pm ", "∈": r"\in ", "∪": r"\cup ", "∩": r"\cap ", "∠": r"\angle ", "θ": r"\theta ",
    "º": "°", "˚": "°", "∶": ":", "、": ",", "。": ".", "Ω": "Ω", "μ": "µ", "₹": "INR ",
    "⁰": "^0", "¹": "^1", "⁴": "^4", "⁵": "^5", "⁶": "^6", "⁷": "^7", "⁸": "^8", "⁹": "^9",
}  # fmt: skip
_VULGAR = {  # one-character fractions; a whole number may stand before them
    chr(code): " " + unicodedata.normalize("NFKC", chr(code)).replace("\u2044", "/")
    for code in (*range(0xBC, 0xBF), *range(0x2150, 0x215F))
}
_CHARACTERS = str.maketrans(_SYMBOLS | _VULGAR)
_DOLLAR = "USD "  # a dollar sign that LaTeX prints, in contrast to one that delimits a formula
_COMMANDS = (
    (re.compile(r"\\[dtc]frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r",\s*\\!\s*|\{,\}"), ","),  # thousands, as LaTeX writes them
    (re.compile(r"\\!"), ""),
    (re.compile(r"(?<!\\)\\[,;:> ]|\\q?quad(?![a-zA-Z])|~(?=\S)(?<!^~)"), " "),
    (re.compile(r"\\(?:left|right|displaystyle|limits|big|Big)(?![a-zA-Z])"), ""),
    (
        re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|operatorname)\s*\{([^{}]*)\}"),
        r" \1 ",
    ),
    (re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))|\\degree(?![a-zA-Z])"), "°"),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\\\$"), _DOLLAR),
    (re.compile(r"\\div(?![a-zA-Z])"), "/"),
    (re.compile(r"\\(?:colon|ratio)(?![a-zA-Z])"), ":"),
    (re.compile(r"\\(?:leq|leqslant)(?![a-zA-Z])|<="), r"\\le "),
    (re.compile(r"\\(?:geq|geqslant)(?![a-zA-Z])|>="), r"\\ge "),
    (re.compile(r"\\ne(?![a-zA-Z])|!="), r"\\neq "),
    (re.compile(r"\\lt(?![a-zA-Z])"), "<"),
    (re.compile(r"\\gt(?![a-zA-Z])"), ">"),
    (re.compile(r"\\Omega(?![a-zA-Z])"), "Ω"),
    (re.compile(r"\$|\\[()\[\]](?![a-zA-Z])"), ""),
    (re.compile(r"\\frac\s*(\d)\s*(\d)"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\frac\s*(\d)\s*\{"), r"\\frac{\1}{"),
    (re.compile(r"(\\frac\s*\{[^{}]*\})\s*(\d)"), r"\1{\2}"),
    (re.compile(r"√\s*(\d+(?:\.\d+)?|[a-zA-Z])"), r"\\sqrt{\1}"),
    (re.compile(r"(?<![a-zA-Z\\])sqrt\s*(?=[({])"), r"\\sqrt"),
    (re.compile(r"(?:√|\\sqrt)\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"(?<![a-zA-Z\\])pi(?![a-zA-Z])"), r"\\pi "),
    (re.compile(r"^\s*~\s*"), r"\\approx "),
)
"""Each pattern and what replaces it, in order."""
_OUTSIDE = " \t\r\n`\"“”'‘’*"  # decoration around a whole answer
_END = re.compile(r"(?<![.\s])\s*[.;,](?:\s*)$")


def normalize(text: str) -> str:
    """The text in the notation of this module, without decoration and final punctuation."""
    text = normalize_number(text.strip(_OUTSIDE).translate(_CHARACTERS))
    text = strip_wrappers(text)
    for pattern, replacement in _COMMANDS:
        text = pattern.sub(replacement, text)
    text = " ".join(text.replace("**", "").split())
    return _END.sub("", text.strip(_OUTSIDE)).strip(_OUTSIDE)


def split_top_level(text: str, separator: re.Pattern[str]) -> list[str]:
    """The parts of a text between separators that stand outside of all brackets."""
    parts, depth, start, i = [], 0, 0, 0
    while i < len(text):
        if text[i] in "([{":
            depth += 1
        elif text[i] in ")]}":
            depth -= 1
        elif not depth and (match := separator.match(text, i)) and match.end() > i:
            parts.append(text[start:i])
            start = i = match.end()
            continue
        i += 1
    return [part.strip() for part in [*parts, text[start:]]]
