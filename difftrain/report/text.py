"""Format a report's numbers, sentences and tables, for report.md and report.html alike."""

import re
from collections.abc import Iterable
from functools import cache
from typing import Any

import jinja2

from difftrain.config.train import DROP_REASONS
from difftrain.difficulty.definition import definition
from difftrain.grade.reward_hacking import ALARM_LIMITS, ALARM_MEANINGS, ALARM_WINDOW
from difftrain.records import Measure
from difftrain.report import study

MINUS = "\u2212"
TEX_SPECIAL = str.maketrans(
    {char: f"\\{char}" for char in "&%$#_{}"}
    | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        MINUS: "$-$",
    }
)
NUMBER_WORDS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
NO_DIFFERENCE = "no difference shown"
DIVERGENCE = "reward_rises_held_out_falls"  # an alarm (sign of reward hacking) without a share


def percent(fraction: float | None) -> str:
    """A fraction in percent with one decimal, such as `12.0`; `none` for None.

    Adding 0.0 turns -0.0 into 0.0.
    """
    if fraction is None:
        return "none"
    return f"{round(100 * fraction, 1) + 0.0:.1f}".replace("-", MINUS)


def share(part: float, whole: float = 1.0) -> str:
    """A part of the whole as `12.0 %`; `none` if the whole is 0."""
    return f"{percent(part / whole)} %" if whole else "none"


def points(fraction: float) -> str:
    """A difference of fractions in percent points, as `+7.1`; never `-0.0`."""
    return f"{round(100 * fraction, 1) + 0.0:+.1f}".replace("-", MINUS)


def number_word(number: int) -> str:
    """The number as a word up to ten, else in digits."""
    return NUMBER_WORDS[number] if number < len(NUMBER_WORDS) else f"{number:,}"


def join_words(words: Iterable[Any]) -> str:
    """Words as an enumeration: `hard`, `medium and hard`, `easy, medium and hard`."""
    *most, last = map(str, words)
    return f"{', '.join(most)} and {last}" if most else last


def duration(seconds: float) -> str:
    """Seconds as text with a fitting unit: `4.2 s`, `95 s`, `12 min`, `2.5 h`."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def flatten(node: dict[str, Any], separator: str = ".") -> dict[str, Any]:
    """Nested dictionaries as one dictionary with full names: {"outer.inner": value}."""
    flat: dict[str, Any] = {}
    for name, value in node.items():
        if isinstance(value, dict) and value:
            inner = flatten(value, separator)
            flat |= {f"{name}{separator}{key}": inner_value for key, inner_value in inner.items()}
        else:
            flat[str(name)] = value
    return flat


def format_value(value: Any) -> str:
    """A value of a setting as plain text: lists with commas, None as `none`."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {format_value(item)}" for name, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(format_value, value)) or "none"
    return "none" if value is None else str(value)


def escape_cell(text: str) -> str:
    """A cell's text, escaped so that it cannot break a markdown table or become HTML."""
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def verdict(difference: dict[str, Any]) -> str:
    """`better`, `worse`, or `no difference shown` if the interval contains zero."""
    if difference["low"] <= 0 <= difference["high"]:
        return NO_DIFFERENCE
    return "better" if difference["mean"] > 0 else "worse"


@cache
def templates() -> jinja2.Environment:
    """The environment that loads the report's templates; it escapes values in HTML only."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("difftrain", "report"),
        autoescape=lambda name: bool(name and name.endswith(".html.jinja")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    functions = (duration, join_words, number_word, percent, points, share)
    environment.filters |= {function.__name__: function for function in functions} | {
        "cell": escape_cell,
        "number": "{:,.0f}".format,
        "setting": format_value,
        "tex": lambda text: text.translate(TEX_SPECIAL),
    }
    environment.globals |= {
        "alarm_limits": ALARM_LIMITS,
        "alarm_meanings": ALARM_MEANINGS,
        "alarm_window": ALARM_WINDOW,
        "divergence": DIVERGENCE,
        "drop_reasons": DROP_REASONS,
        "markdown_table": markdown_table,
        "meanings": {measure.value: definition(measure).meaning for measure in Measure},
        "measures": list(Measure),
        "no_difference": NO_DIFFERENCE,
        "sentence": sentence,
        "sentences": sentences,
        "study_sentences": study.sentences,
        "table": table,
        "verdict_of": verdict,
    }
    return environment


def render_markdown(template: str, **values: Any) -> str:
    """Render a markdown template; several blank lines in a row become one."""
    content = templates().get_template(template).render(**values)
    return re.sub(r"\n{3,}", "\n\n", content).strip() + "\n"


def sentences(topic: str, *values: Any, template: str = "sentences.jinja") -> list[str]:
    """The sentences that the template's macro `topic` writes, one from each of its lines."""
    macro = getattr(templates().get_template(template).module, topic)
    return [line.strip() for line in macro(*values).split("\n") if line.strip()]


def sentence(topic: str, *values: Any, template: str = "sentences.jinja") -> str:
    """The one sentence that the template's macro `topic` writes; may be empty."""
    return "".join(sentences(topic, *values, template=template))


def table(topic: str, *values: Any, template: str = "tables.jinja") -> list[list[str]]:
    """The cells of the table that the template's macro `topic` writes; row 0 is the head."""
    lines = sentences(topic, *values, template=template)
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]  # at unescaped pipes
    return [[cell.strip().replace("\\|", "|").replace("&lt;", "<") for cell in row] for row in rows]


def markdown_table(topic: str, *values: Any, template: str = "tables.jinja") -> str:
    """`table(topic, ...)` in markdown; the first column is aligned left, all others right."""
    head, *rows = table(topic, *values, template=template)
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(escape_cell, line)) + " |" for line in lines)
