"""What the six scorers share: an item's columns, harness rules, judges, item grades, tables.

Columns are read as TSV rows, JSON rows or data-set rows spell them.
"""

import ast
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import httpx

from difftrain.config.evaluate import EvaluateConfig, HarnessOverrides
from difftrain.data.prompts import LETTERS
from difftrain.records import GradedBy, ItemResult

T = TypeVar("T")

Item = Mapping[str, Any]  # one row of a benchmark, in its official columns
Part = dict[str, Any]  # one part of a prompt: {"type": "image" or "text", "value": ...}
Judge = Callable[[str, float], str]  # (prompt, temperature) -> reply; may raise JudgeDown
TableRow = dict[str, float | int | None]  # one row of a results table: figure -> value
Table = dict[str, TableRow]  # name of a row -> row

OVERALL = "Overall"
IMAGE_COLUMNS = tuple(f"image_{number}" for number in range(1, 8))
NOT_TEXTS = {
    *("", "None", "NA", "N/A", "n/a", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "<NA>"),
    *("#N/A", "#NA", "#N/A N/A", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
}
"""Texts that the harness's tables lose: an option or a prediction of this text is empty."""
API_FAILURE = "Failed to obtain answer via API"  # the harness's text for a failed judge call
# Temperatures of the judge's successive tries.
RISING = (0.0, 0.5, 1.0, 1.5, 2.0)  # for MathVista, MM-Vet and HallusionBench
STEADY = (0.0, 0.0, 0.0)  # for multiple choice


@dataclass(frozen=True, slots=True)
class HarnessRules:
    """What the reference harness's matching did at a date, and what the settings override."""

    letter_near_end: bool  # a lone letter counts only among the last four tokens (2025-08-04)
    bounded_length: bool  # option texts are matched in short predictions only (2025-08-04)
    answer_is: bool  # "answer is X" is matched, without a word boundary (2026-06-17)
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


def configured_rules(config: EvaluateConfig) -> HarnessRules:
    """The rules of an evaluation: a date, the settings' overrides, and the harness's tables."""
    overrides = config.harness_overrides
    through_tables = not overrides.kept_texts
    return replace(RULES[config.rules], overrides=overrides, through_tables=through_tables)


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


class JudgeDown(RuntimeError):
    """The judge's server cannot be reached."""


def judge_prompt(name: str, *parts: str) -> str:
    """A judge's prompt: the text that its authors published (judge/prompts), then these parts."""
    path = Path(__file__).parent / "judge" / "prompts" / f"{name}.txt"
    return "".join([path.read_text("utf-8"), *parts])


def first_usable(
    judge: Judge, prompt: str, temperatures: tuple[float, ...], parse: Callable[[str], T | None]
) -> tuple[T | None, list[str]]:
    """The first reply that `parse` accepts, or None, and every reply. Raises JudgeDown."""
    replies: list[str] = []
    for temperature in temperatures:
        try:
            replies.append(judge(prompt, temperature))
        except (OSError, RuntimeError, httpx.HTTPError) as error:
            # RuntimeError too: client libraries wrap a lost connection in errors of their own.
            raise JudgeDown(f"the judge failed: {error}") from error
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


def category_table(results: Sequence[ItemResult], split: bool = True) -> Table:
    """The overall row (a mean over items), and those of the categories' words (or whole), sorted.

    An item counts fully under each of its words.
    """
    by_word: dict[str, list[ItemResult]] = defaultdict(list)
    for result in results:
        for word in set(result.category.split(",") if split else [result.category]):
            by_word[word].append(result)
    rows = {word: table_row(members) for word, members in sorted(by_word.items())}
    return {OVERALL: table_row(results), **rows}


def is_empty(value: Any) -> bool:
    """Whether a cell holds nothing: None, NaN or the empty text."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def first(item: Item, *columns: str) -> Any:
    """The first of these columns that is not empty. Raises ValueError if all are."""
    for column in columns:
        if not is_empty(item.get(column)):
            return item[column]
    raise ValueError(f"the item has none of {', '.join(columns)}; it has {', '.join(item)}")


def text(item: Item, *columns: str) -> str:
    """The first of these columns that is not empty, as text. Raises ValueError if all are."""
    return str(first(item, *columns))


def as_list(value: Any) -> list[Any]:
    """A list cell: a list, the text of a Python list (data-set columns only), or one value."""
    if isinstance(value, str) and value.strip().startswith("["):
        return list(ast.literal_eval(value.strip()))
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return list(value)
    return [] if is_empty(value) else [value]


def options(item: Item) -> dict[str, str]:
    """Letter -> text, from columns A, B, ... or an `options` mapping, list or list literal.

    Empty options are left out and the others keep their letters.
    """
    cells = item
    if not is_empty(given := item.get("options")):
        is_mapping = isinstance(given, dict)
        cells = given if is_mapping else dict(zip(LETTERS, as_list(given), strict=False))
    return {letter: str(cells[letter]) for letter in LETTERS if not is_empty(cells.get(letter))}


def images(item: Item) -> list[Any]:
    """The item's images, as they come: bytes, paths, decoded images; None where one is unused.

    `image` goes before `image_path`, because a path may be only a name inside the TSV's folder.
    """
    numbered = [item.get(column) for column in IMAGE_COLUMNS]
    if any(image is not None for image in numbered):
        return numbered
    cells = (item.get(column) for column in ("decoded_image", "image", "image_path"))
    return as_list(next((cell for cell in cells if not is_empty(cell)), None))


def images_then_text(item: Item, prompt: str | None = None) -> list[Part]:
    """A prompt: the item's images, then the text, by default the question as it stands."""
    parts = [{"type": "image", "value": image} for image in images(item) if image is not None]
    return [*parts, {"type": "text", "value": prompt or text(item, "question")}]


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A benchmark: a handful of functions of its items, its hub rows and the harness's TSV."""

    name: str
    prompt: Callable[[Item], list[Part]] = images_then_text
    grade: Callable[[str, Item, Judge | None, HarnessRules], ItemGrade]  # of a prediction
    item_id: Callable[[Item], str]
    category: Callable[[Item], str]
    tables: Callable[[Sequence[ItemResult]], dict[str, Table]]  # the harness's, by title
    count: int  # official number of items
    split: str
    columns: tuple[str, ...]  # that the hub's data set must have
    image_columns: tuple[str, ...] = ("image",)
    tsv_columns: tuple[str, ...]
    md5: tuple[str, ...]  # of the harness's TSV, the newest first
    to_harness: Callable[[dict[str, Any], int], dict[str, Any]]  # of a hub row and its number
    configs: tuple[str, ...] = ()
