r"""Brings a mathematical text into one notation: LaTeX commands without decoration, ASCII digits.

`２½`, `\dfrac12` and `√3` become `2 1/2`, `\frac{1}{2}` and `\sqrt{3}`. Nothing is evaluated here.
"""

import re
import unicodedata

from difftrain.grade.layout import strip_simple_wrappers
from difftrain.grade.normalize import normalize_number

_SYMBOLS = {
    "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "÷": "/", "π": r"\pi ",
    "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\neq ", "≈": r"\approx ", "≃": r"\approx ",
    "±": r"\pm ", "∈": r"\in ", "∪": r"\cup ",
    "∴": r"\therefore ", "∩": r"\cap ", "∠": r"\angle ", "θ": r"\theta ",
    "º": "°", "˚": "°", "∶": ":", "、": ",", "。": ".", "Ω": "Ω", "μ": "µ", "₹": "INR ",
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
    (re.compile(r"(?<=\d)(\s*)\\mu\s*(?=[FmgsCALlVWHJ](?![a-zA-Z]))"), r"\1µ"),
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
_OUTSIDE = " \t\r\n`*"  # decoration around a whole answer
_QUOTES = {'"': '"', "“": "”", "'": "'", "‘": "’"}  # removed in pairs: 5" are inches
_INVISIBLE: dict[int, None] = dict.fromkeys((0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF))
_SUPERSCRIPT = re.compile("[⁺⁻⁰¹²³⁴-⁹]+")
_SUBSCRIPT = re.compile("[₀-₉]+")
_PLAIN_DIGITS = str.maketrans("⁺⁻⁰¹²³⁴⁵⁶⁷⁸⁹₀₁₂₃₄₅₆₇₈₉", "+-01234567890123456789")
_ONE_DOLLAR = re.compile(r"\A\s*(-?)\s*(?<!\\)\$\s*(?=-?[\d.])|(?<=\d)\s*(?<!\\)\$\s*\Z")
_END = re.compile(r"(?<![.\s])\s*[.;,](?:\s*)$")


def normalize(text: str) -> str:
    """The text in the notation of this module, without decoration and final punctuation."""
    text = _strip_outside(text.translate(_INVISIBLE))
    if text.count("$") == 1:  # else dollar signs delimit a formula
        text = _ONE_DOLLAR.sub(lambda m: f"{m[1] or ''}USD " if m[1] is not None else " USD", text)
    text = _SUPERSCRIPT.sub(lambda match: f"^{{{match[0].translate(_PLAIN_DIGITS)}}}", text)
    text = _SUBSCRIPT.sub(lambda match: f"_{{{match[0].translate(_PLAIN_DIGITS)}}}", text)
    text = strip_simple_wrappers(normalize_number(text.translate(_CHARACTERS)))
    for pattern, replacement in _COMMANDS:
        text = pattern.sub(replacement, text)
    text = _strip_outside(" ".join(text.replace("**", "").split()))
    return _strip_outside(_END.sub("", text))


def _strip_outside(text: str) -> str:
    text = text.strip(_OUTSIDE)
    while len(text) > 1 and _QUOTES.get(text[0]) == text[-1]:
        text = text[1:-1].strip(_OUTSIDE)
    return text


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
