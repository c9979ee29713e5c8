"""What a scorer is given and what it returns: items, harness rules, judges, item grades, tables.

Not here: how an item's columns are read (columns.py).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import httpx

from difftrain.config.evaluate import EvaluateConfig, HarnessOverrides
from difftrain.records import GradedBy, ItemResult

T = TypeVar("T")

Item = Mapping[str, Any]
"""One row of a benchmark, in its official columns."""
Part = dict[str, Any]
"""One part of a prompt: {"type": "image" or "text", "value": ...}."""
Judge = Callable[[str, float], str]
"""judge(prompt, temperature) -> reply; raises JudgeDown when the server cannot be reached."""
TableRow = dict[str, float | int | None]
"""One row of a results table: figure -> value."""
Table = dict[str, TableRow]
"""TableRow name -> row."""

OVERALL = "Overall"
NOT_TEXTS = frozenset(
    [
        *("", "None", "NA", "N/A", "n/a", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "<NA>"),
        *("#N/A", "#NA", "#N/A N/A", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
    ]
)
"""Texts that the harness's tables lose: an option or a prediction of this text is empty."""
API_FAILURE = "Failed to obtain answer via API"
"""The harness's own text for a judge call that never succeeded."""
RISING = (0.0, 0.5, 1.0, 1.5, 2.0)
"""Temperatures of the judge's successive tries for MathVista, MM-Vet and HallusionBench."""
STEADY = (0.0, 0.0, 0.0)
"""Temperatures of the judge's successive tries for multiple choice."""


@dataclass(frozen=True, slots=True)
class HarnessRules:
    """What the reference harness's matching did at a date, and what the settings override."""

    letter_near_end: bool
    """A lone letter counts only among the last four tokens (since 2025-08-04)."""
    bounded_length: bool
    """Option texts are looked for only in predictions of bounded length (since 2025-08-04)."""
    answer_is: bool
    """"answer is X" is looked for, without a word boundary (since 2026-06-17)."""
    overrides: HarnessOverrides = field(default_factory=HarnessOverrides)
    """All off, but for the random fallback, which counts as wrong."""
    through_tables: bool = False
    """Predictions have been through the harness's tables, which turn NOT_TEXTS into `nan`."""


RULES = {
    "2025-07": HarnessRules(letter_near_end=False, bounded_length=False, answer_is=False),
    "2025-11": HarnessRules(letter_near_end=True, bounded_length=True, answer_is=False),
    "2026-08": HarnessRules(letter_near_end=True, bounded_length=True, answer_is=True),
}
"""By the date of the harness: commits 44d698f8, 19c0e386 (the paper's) and e8e78f05."""


def harness_rules(rules: str | HarnessRules) -> HarnessRules:
    """The rules of a date. Raises ValueError for a date that is not known."""
    if isinstance(rules, str) and rules not in RULES:
        raise ValueError(f"rules={rules!r}: must be one of {', '.join(RULES)}")
    return RULES[rules] if isinstance(rules, str) else rules


def configured_rules(config: EvaluateConfig) -> HarnessRules:
    """The rules of an evaluation: a date, the settings' overrides, and the harness's tables."""
    tables = not config.harness_overrides.kept_texts
    rules = harness_rules(config.rules)
    return replace(rules, overrides=config.harness_overrides, through_tables=tables)


@dataclass(frozen=True, slots=True)
class ItemGrade:
    """A score of 0 to 1, what was taken for the answer, and who decided.

    `score` is None if the judge failed; `error` says how. `graded_by` is None where neither a rule
    nor a judge decided: the score is then 0, or that of an option drawn at random.
    """

    score: float | None
    extracted: str | None
    graded_by: GradedBy | None
    error: str | None = None


UNDECIDED = ItemGrade(0.0, None, None)
"""No rule applied and there is no judge, or its replies were of no use: counts as wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfficialSet:
    """A benchmark as published: its hub rows, the harness's TSV, and how many items it has."""

    count: int
    split: str
    columns: tuple[str, ...]
    """Columns of the hub's data set that must be there."""
    image_columns: tuple[str, ...]
    tsv_columns: tuple[str, ...]
    md5: tuple[str, ...]
    """Of the harness's TSV, the newest first."""
    to_harness: Callable[[dict[str, Any], int], dict[str, Any]]
    """(hub row, its number) -> the harness's columns."""
    configs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A benchmark is a handful of functions of its items, and the published data set."""

    name: str
    prompt: Callable[[Item], list[Part]]
    grade: Callable[[str, Item, Judge | None, HarnessRules], ItemGrade]
    """(prediction, item, judge, rules)"""
    item_id: Callable[[Item], str]
    category: Callable[[Item], str]
    tables: Callable[[Sequence[ItemResult]], dict[str, Table]]
    """The reference harness's tables, by title."""
    official: OfficialSet


class JudgeDown(RuntimeError):
    """The judge's server cannot be reached."""


def ask_judge(judge: Judge, prompt: str, temperature: float) -> str:
    """One reply. Raises JudgeDown for whatever a judge raises when its server cannot be reached."""
    try:
        return judge(prompt, temperature)
    except (OSError, RuntimeError, httpx.HTTPError) as error:
        # RuntimeError too: client libraries wrap a lost connection in errors of their own.
        raise JudgeDown(f"the judge failed: {error}") from error


def first_usable(
    judge: Judge,
    prompt: str,
    temperatures: tuple[float, ...],
    parse: Callable[[str], T | None],
) -> tuple[T | None, list[str]]:
    """The first reply that `parse` accepts (None if it accepts none), and every reply."""
    replies: list[str] = []
    for temperature in temperatures:
        replies.append(ask_judge(judge, prompt, temperature))
        if (parsed := parse(replies[-1])) is not None:
            return parsed, replies
    return None, replies


def table_row(results: Iterable[ItemResult]) -> TableRow:
    """`n` scored items, their `right` (sum of scores), `by_rule` (no judge needed), the mean."""
    scored = [result for result in results if result.score is not None]
    right = sum(result.score or 0.0 for result in scored)
    return {
        "n": len(scored),
        "right": round(right, 9),
        "by_rule": sum(result.graded_by is GradedBy.rule for result in scored),
        "score": right / len(scored) if scored else None,
    }


def category_table(results: Sequence[ItemResult]) -> Table:
    """The overall row (a mean over items), and those of rows_by_category."""
    return {OVERALL: table_row(results), **rows_by_category(results)}


def rows_by_category(results: Sequence[ItemResult]) -> Table:
    """One row for each word of the categories; an item counts fully under each of its words."""
    words = sorted({word for result in results for word in result.category.split(",")})
    return {
        word: table_row(result for result in results if word in result.category.split(","))
        for word in words
    }
