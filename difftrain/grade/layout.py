r"""Removes what only lays an answer out: LaTeX, Markdown, quotes, end punctuation, lead-ins.

Never removes a word that could change an answer: `not`, `or` and `about` stay.
"""

import re

_MAX_ROUNDS = 6  # nested wrappers removed at most

_TEXT_COMMAND = re.compile(
    r"\\(?:text|textbf|textit|textrm|textnormal|textsf|mbox|hbox|mathrm|mathbf|mathit|mathsf|boxed"
    r"|operatorname|emph)\s*\{([^{}]*)\}"
)
_NEGATIVE_SPACE = re.compile(r"\\!\s*")
_SPACE = re.compile(r"(?<!\\)\\(?:[,;: ]|q?quad(?![a-zA-Z]))|~")
_SIZE_COMMAND = re.compile(r"\\(?:left|right|displaystyle|big|Big)(?![a-zA-Z])")
_FRAC = re.compile(
    r"(?<![\w)}])\\[dtc]?frac\s*(?:\{\s*(-?\w+)\s*\}|(\d))\s*(?:\{\s*(\w+)\s*\}|(\d))(?![\w({\\^])"
)
_FRAC_COMMAND = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
_DEGREE = re.compile(r"\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))|\\(?:degree|circ)\b")
_ESCAPED = re.compile(r"\\([%$#&_{}])")
_MATRIX_BEGIN = re.compile(
    r"(?:\\left\s?[\[(]\s?)?\\begin\{(?:array\}\s?\{[^{}]*|bmatrix|pmatrix|matrix)\}"
)
_MATRIX_END = re.compile(
    r"(?:\\\\\s?)?\\end\{(?:array|bmatrix|pmatrix|matrix)\}(?:\s?\\right\s?[\])])?"
)

_WRAPPED = re.compile(
    r"(?s)\$\$((?:[^$\\]|\\.)*)\$\$|\$((?:[^$\\]|\\.)*)\$|\\\(((?:(?!\\[()]).)*)\\\)"
    r"|\\\[((?:(?!\\[\[\]]).)*)\\\]|\*\*([^*]*)\*\*|\*([^*]*)\*|__([^_]*)__|_([^_]*)_|`+([^`]*)`+"
    r"|\"([^\"]*)\"|'([^']*)'|“([^“”]*)”|‘([^‘’]*)’|「([^「」]*)」|『([^『』]*)』|《([^《》]*)》"
)
_SIMPLY_WRAPPED = re.compile(
    r"\s*(?:\\(?:text|textbf|textit|mathrm|mathbf|mathit|textrm)\s*\{([^{}]*)\}"
    r"|\$([^$]*)\$|\*\*([^*]*)\*\*)\s*"
)
_END_MARKS = " \t\n\r.;:,。；：，、．"
_LOUD_WORD = re.compile(r"(?s).*[^\W\d_]{2}[!！]+")  # `STOP!`, not the factorials `5!` and `n!`
_EMPHASIS = re.compile(r"\*\*([^*]*)\*\*|(?<![\w*])\*([^*\s][^*]*)\*(?![\w*])|`([^`]*)`")
_EXPLANATION = re.compile(
    r"(?i)\n[ \t]*\**(?:explanation|reason|reasoning|rationale|note|解释|解析|理由)\**[ \t]*[:：]"
)
_LEAD = re.compile(
    r"(?i)\A(?:(?:so|thus|therefore|hence),?\s+)?(?:the\s+|my\s+)?(?:(?:final|correct|right)\s+)?"
    r"answer\s*(?:is\b(?!\s+not\b)\s*:?|:)\s*|\A(?:正确)?答案(?:是|为)?\s*[:：]?\s*"
    r"|\A(?:it|this) is (?!not\b)|\Ait['’]s (?!not\b)"
)


def strip_latex(text: str) -> str:
    r"""The text with LaTeX layout as plain characters: `125\text{ miles}` becomes `125 miles`.

    Spacing commands become blanks, `\dfrac{1}{2}` becomes `1/2`, `^\circ` becomes `°`, and all
    matrix environments become `pmatrix`.
    """
    if "\\" not in text and "~" not in text:
        return text
    text = _NEGATIVE_SPACE.sub("", text)
    for _ in range(_MAX_ROUNDS):
        shorter = _TEXT_COMMAND.sub(r"\1", text)
        if shorter == text:
            break
        text = shorter
    text = _MATRIX_BEGIN.sub(r"\\begin{pmatrix}", text)
    text = _MATRIX_END.sub(r"\\end{pmatrix}", text)
    text = _SIZE_COMMAND.sub("", _DEGREE.sub("°", text))
    text = _FRAC.sub(lambda m: f"{m[1] or m[2]}/{m[3] or m[4]}", text)
    return _ESCAPED.sub(r"\1", _FRAC_COMMAND.sub(r"\\frac", _SPACE.sub(" ", text)))


def _strip_end(text: str) -> str:
    """The text without end punctuation; `Paris?` keeps its mark, because it asks."""
    end = text.rstrip(_END_MARKS)
    if end.endswith("\\") and end != text:
        end = text[: len(end) + 1]  # `\,` is a LaTeX command
    return end.rstrip("!！") if _LOUD_WORD.fullmatch(end) else end


def strip_wrappers(text: str) -> str:
    """The text without marks around all of it: `$…$`, `**…**`, quotes, and end punctuation.

    A mark that is the whole text stays.
    """
    for _ in range(_MAX_ROUNDS):
        shorter = text.strip()
        if match := _WRAPPED.fullmatch(shorter):
            shorter = next(content for content in match.groups() if content is not None)
        shorter = _strip_end(shorter).strip()
        if shorter == text or not shorter:
            break
        text = shorter
    return text


def strip_simple_wrappers(text: str) -> str:
    r"""The text without `\text{}` (or `\mathrm{}`, ...), `$ $` or `** **` around all of it.

    Unlike `strip_wrappers`, keeps quotes and punctuation, as strict comparisons need.
    """
    for _ in range(_MAX_ROUNDS):
        match = _SIMPLY_WRAPPED.fullmatch(text)
        if match is None:
            break
        text = next(content for content in match.groups() if content is not None)
    return text


def strip_explanation(text: str) -> str:
    """The text before a line that begins with `Explanation:` or the like."""
    match = _EXPLANATION.search(text)
    return text[: match.start()].rstrip() if match else text


def strip_emphasis(text: str) -> str:
    """The text without Markdown emphasis and code marks, anywhere in it."""
    return _EMPHASIS.sub(lambda match: match[1] or match[2] or match[3] or "", text)


def strip_lead(text: str) -> str:
    """The text without `The answer is` or `**Answer:**` before it."""
    return _LEAD.sub("", strip_emphasis(text), count=1)
