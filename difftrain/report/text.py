"""A report's numbers, sentences (from the templates) and tables, for markdown and HTML alike."""

import re
from collections.abc import Iterable
from functools import cache
from typing import Any

import jinja2

from difftrain.config.train import DROP_REASONS
from difftrain.grade.reward_hacking import ALARM_LIMITS, ALARM_MEANINGS, ALARM_WINDOW
from difftrain.records import Measure

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
DIVERGENCE = "reward_rises_held_out_falls"  # the one alarm that does not look at responses


def percent(fraction: float | None) -> str:
    """A fraction in percent with one decimal; `none` without a number."""
    return "none" if fraction is None else f"{100 * fraction:.1f}".replace("-", MINUS)


def share(part: float, whole: float = 1.0) -> str:
    """`12.0 %`: a part of the whole; `none` if there is no whole."""
    return f"{percent(part / whole)} %" if whole else "none"


def points(fraction: float) -> str:
    """A difference in percent points with its sign; zero is +0.0."""
    return f"{round(100 * fraction, 1) + 0.0:+.1f}".replace("-", MINUS)


def number_word(number: int) -> str:
    """Small numbers as words."""
    return NUMBER_WORDS[number] if number < len(NUMBER_WORDS) else f"{number:,}"


def join_words(words: Iterable[Any]) -> str:
    """`hard`, `medium and hard`, `easy, medium and hard`."""
    *most, last = map(str, words)
    return f"{', '.join(most)} and {last}" if most else last


def duration(seconds: float) -> str:
    """Seconds in the unit a person would use."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as {full.key: value}."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def format_value(value: Any) -> str:
    """A settings value as a reader would write it."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {format_value(item)}" for name, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(format_value, value)) or "none"
    return "none" if value is None else str(value)


def escape_cell(text: str) -> str:
    """A cell without what would break a markdown table or be taken for HTML."""
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def verdict(difference: dict[str, Any]) -> str:
    """better, worse, or `no difference shown` if the interval contains zero."""
    if difference["low"] <= 0 <= difference["high"]:
        return NO_DIFFERENCE
    return "better" if difference["mean"] > 0 else "worse"


def items_by_arm(report: dict[str, Any], name: str, *less: str) -> str:
    """`3 of base, 1 of tuned`: a count of the arms' scores minus other counts, without zeros."""

    def total(arm: str, key: str) -> int:
        return sum(score.get(key, 0) for score in report[arm].values())

    counts = {
        arm: total(arm, name) - sum(total(arm, other) for other in less) for arm in report["means"]
    }
    return ", ".join(f"{count:,} of {arm}" for arm, count in counts.items() if count)


@cache
def templates() -> jinja2.Environment:
    """The report's templates with their filters; values are escaped in HTML only."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("difftrain", "report"),
        autoescape=lambda name: bool(name and name.endswith(".html.jinja")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "cell": escape_cell,
        "duration": duration,
        "join_words": join_words,
        "number": "{:,.0f}".format,
        "number_word": number_word,
        "percent": percent,
        "points": points,
        "setting": format_value,
        "share": share,
        "tex": lambda text: text.translate(TEX_SPECIAL),
    }
    environment.globals |= {
        "alarm_limits": ALARM_LIMITS,
        "alarm_meanings": ALARM_MEANINGS,
        "alarm_window": ALARM_WINDOW,
        "divergence": DIVERGENCE,
        "drop_reasons": DROP_REASONS,
        "items_by_arm": items_by_arm,
        "markdown_table": markdown_table,
        "measures": list(Measure),
        "no_difference": NO_DIFFERENCE,
        "sentence": sentence,
        "sentences": sentences,
        "table": table,
        "verdict_of": verdict,
    }
    return environment


def render_markdown_file(template: str, **values: Any) -> str:
    """A markdown file from its template, with at most one blank line in succession."""
    content = templates().get_template(template).render(**values)
    return re.sub(r"\n{3,}", "\n\n", content).strip() + "\n"


def sentences(topic: str, *values: Any, template: str = "sentences.jinja") -> list[str]:
    """The sentences that a macro of the template writes on a report, in order."""
    macro = getattr(templates().get_template(template).module, topic)
    return [line.strip() for line in macro(*values).split("\n") if line.strip()]


def sentence(topic: str, *values: Any, template: str = "sentences.jinja") -> str:
    """The one sentence that a macro of the template writes; empty if there is nothing to say."""
    return "".join(sentences(topic, *values, template=template))


def table(topic: str, *values: Any) -> list[list[str]]:
    """The table that a macro of tables.jinja writes: the cells of its head and of each row."""
    lines = sentences(topic, *values, template="tables.jinja")
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    return [[cell.strip().replace("\\|", "|").replace("&lt;", "<") for cell in row] for row in rows]


def markdown_table(topic: str, *values: Any) -> str:
    """The table in markdown; the first column is aligned left, the others right."""
    head, *rows = table(topic, *values)
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(escape_cell, line)) + " |" for line in lines)
