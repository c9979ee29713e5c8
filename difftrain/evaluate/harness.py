"""Code that the benchmarks share: columns of items, rules, judge calls, grades and tables.

"The harness" and "the reference" both mean VLMEvalKit, the reference evaluation harness.
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

Item = Mapping[str, Any]  # one row of a benchmark: official column -> value
Part = dict[str, Any]  # one part of a prompt: {"type": "image" or "text", "value": ...}
Judge = Callable[[str, float], str]  # (prompt, temperature) -> reply; may raise JudgeDown
TableRow = dict[str, float | int | None]  # one row of a results table: column -> value
Table = dict[str, TableRow]  # a results table: name of a row -> row

OVERALL = "Overall"
IMAGE_COLUMNS = tuple(f"image_{number}" for number in range(1, 8))  # of MMMU
NAN_TEXTS = {
    *("", "None", "NA", "N/A", "n/a", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "<NA>"),
    *("#N/A", "#NA", "#N/A N/A", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
}
"""The harness reads its files with pandas, which reads these texts as missing values (NaN)."""
MAX_CELL = 32_767  # characters in a cell of the harness's tables (XLSX files)
API_FAILURE = "Failed to obtain answer via API"  # the harness's text for a failed call, no period
# The judge is called again at the next temperature until a reply is usable.
RISING_TEMPERATURES = (0.0, 0.5, 1.0, 1.5, 2.0)
EQUAL_TEMPERATURES = (0.0, 0.0, 0.0)  # for multiple choice


@dataclass(frozen=True, slots=True)
class HarnessRules:
    """How the harness matched answers at a date, and what the settings override."""

    letter_near_end: bool  # a lone letter counts only among the last four tokens (since 2025-08-04)
    bounded_length: bool  # option texts are matched only in short predictions (since 2025-08-04)
    answer_is: bool  # "answer is X" is matched, even if X begins a word (since 2026-06-17)
    formulas: bool = False  # a text that begins with = comes back as 0 (until 2026-07-22)
    overrides: HarnessOverrides = field(default_factory=HarnessOverrides)
    """The default changes one rule: if the harness guesses a random option, the score is 0."""
    texts_become_nan: bool = False
    """Whether table_text changes a prediction before it is graded. False outside of an evaluation,
    where only benchmarks with `reads_tables` do that."""


RULES = {  # score_item accepts all three dates, the setting evaluate.rules only the last two
    "2025-07": HarnessRules(False, False, answer_is=False, formulas=True),
    "2025-11": HarnessRules(True, True, answer_is=False, formulas=True),
    "2026-08": HarnessRules(True, True, answer_is=True, formulas=False),
}
"""Date -> rules of the harness's commits 44d698f8, 19c0e386 (Qi et al. 2026 use it), e8e78f05."""


def configured_rules(config: EvaluateConfig) -> HarnessRules:
    """The rules that an evaluation's settings select."""
    overrides = config.harness_overrides
    texts_become_nan = not overrides.kept_texts  # pandas reads the predictions of an evaluation
    return replace(RULES[config.rules], overrides=overrides, texts_become_nan=texts_become_nan)


def table_text(value: Any, rules: HarnessRules) -> str:
    """A text as the harness reads it back from its tables, XLSX files that pandas reads.

    Texts in NAN_TEXTS become `nan`, long ones are cut, a carriage return becomes `_x000D_`. By old
    rules a text that begins with = is a formula, and its value is 0. With overrides.kept_texts all
    texts stay.
    """
    text = "nan" if is_empty(value) else str(value)
    if rules.overrides.kept_texts:
        return "" if is_empty(value) else text
    if text in NAN_TEXTS:
        return "nan"
    if rules.formulas and text.startswith("="):
        return "0"
    return text[:MAX_CELL].replace("\r", "_x000D_")


@dataclass(frozen=True, slots=True)
class ItemGrade:
    """The score (0 to 1) of a prediction, the answer extracted from it, and who decided.

    If the judge failed, `score` is None and `error` is the reason. If neither a rule nor a judge
    decided, `graded_by` is None. The score is then 0, or a random option's if overrides say so.
    `usable_replies` counts the judge's replies that were used; None: one if it decided, else none.
    """

    score: float | None
    extracted: str | None = None
    graded_by: GradedBy | None = None
    error: str | None = None
    usable_replies: int | None = None


UNDECIDED = ItemGrade(0.0)
"""The item counts as wrong: no rule applied, and no judge gave a reply that could be used."""


class JudgeDown(RuntimeError):
    """The judge gave no reply, after all attempts."""


def judge_prompt(name: str, *item_parts: str) -> str:
    """A judge's prompt: the text of judge/prompts/NAME.txt, then the parts of this item."""
    path = Path(__file__).parent / "judge" / "prompts" / f"{name}.txt"
    return "".join([path.read_text("utf-8"), *item_parts])


def first_usable(
    judge: Judge, prompt: str, temperatures: tuple[float, ...], parse: Callable[[str], T | None]
) -> tuple[T | None, list[str]]:
    """Call the judge at each temperature until `parse` returns a value. Raises JudgeDown.

    Returns this value, or None if no reply could be parsed, and all replies.
    """
    replies: list[str] = []
    for temperature in temperatures:
        try:
            replies.append(judge(prompt, temperature))
        except (OSError, RuntimeError, httpx.HTTPError) as error:
            # Client libraries raise RuntimeError if a connection breaks.
            raise JudgeDown(f"the judge failed: {error}") from error
        if (parsed := parse(replies[-1])) is not None:
            return parsed, replies
    return None, replies


def usable_text(reply: str) -> str | None:
    """A reply without blanks around it, or None for a failed call, which an empty reply is too."""
    stripped = reply.strip()
    return None if not stripped or f"{API_FAILURE}." in stripped else stripped


def table_row(results: Iterable[ItemResult]) -> TableRow:
    """Number, sum (`right`) and mean (`score`) of the scores, and how many a rule decided."""
    scored = [result for result in results if result.score is not None]
    right = sum(result.score or 0.0 for result in scored)
    return {
        "n": len(scored),
        "right": round(right, 9),  # drops the rounding error of the sum
        "by_rule": sum(result.graded_by is GradedBy.rule for result in scored),
        "score": right / len(scored) if scored else None,
    }


def category_table(results: Sequence[ItemResult], split_categories: bool = True) -> Table:
    """A row over all items, then one per category; `split_categories` makes `rec,ocr` two."""
    by_category: dict[str, list[ItemResult]] = defaultdict(list)
    for result in results:
        for name in set(result.category.split(",") if split_categories else [result.category]):
            by_category[name].append(result)
    rows = {name: table_row(members) for name, members in sorted(by_category.items())}
    return {OVERALL: table_row(results), **rows}


def is_empty(value: Any) -> bool:
    """Whether a cell is None, NaN or an empty string."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def first_filled(item: Item, *columns: str) -> Any:
    """The value of the first of these columns that is not empty; ValueError if all are empty."""
    for column in columns:
        if not is_empty(item.get(column)):
            return item[column]
    raise ValueError(f"the item has none of {', '.join(columns)}; it has {', '.join(item)}")


def text(item: Item, *columns: str) -> str:
    """The value of the first column that is not empty, as text; ValueError if all are empty."""
    return str(first_filled(item, *columns))


def as_list(value: Any) -> list[Any]:
    """A cell as a list; it may have a list, the text of a Python list, one value, or nothing."""
    if isinstance(value, str) and value.strip().startswith("["):
        return list(ast.literal_eval(value.strip()))
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return list(value)
    return [] if is_empty(value) else [value]


def options(item: Item) -> dict[str, str]:
    """Letter -> option that is not empty, from `options` (dictionary or list) or A, B, ..."""
    texts = item  # the columns A, B, ...
    if not is_empty(cell := item.get("options")):
        is_mapping = isinstance(cell, dict)
        texts = cell if is_mapping else dict(zip(LETTERS, as_list(cell), strict=False))
    return {letter: str(texts[letter]) for letter in LETTERS if not is_empty(texts.get(letter))}


def images(item: Item) -> list[Any]:
    """The item's images as bytes, paths or decoded images; an empty column image_N gives None."""
    numbered = [item.get(column) for column in IMAGE_COLUMNS]
    if any(image is not None for image in numbered):
        return numbered
    # image_path comes last, because it may be relative to an unknown folder.
    cells = (item.get(column) for column in ("decoded_image", "image", "image_path"))
    return as_list(next((cell for cell in cells if not is_empty(cell)), None))


def images_then_text(item: Item, prompt: str | None = None) -> list[Part]:
    """A prompt: the item's images, then `prompt` or else the question."""
    parts = [{"type": "image", "value": image} for image in images(item) if image is not None]
    return [*parts, {"type": "text", "value": prompt or text(item, "question")}]


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """How a benchmark's items are prompted and graded, and what its published files contain."""

    name: str
    prompt: Callable[[Item], list[Part]] = images_then_text
    grade: Callable[[str, Item, Judge | None, HarnessRules], ItemGrade]  # (prediction, ...)
    item_id: Callable[[Item], str]
    category: Callable[[Item], str]
    tables: Callable[[Sequence[ItemResult]], dict[str, Table]]  # the harness's tables, by title
    num_items: int  # the official number of items
    hub_split: str  # split of the data set on the Hugging Face hub
    hub_columns: tuple[str, ...]  # columns that the hub's data set must have
    hub_image_columns: tuple[str, ...] = ("image",)
    tsv_columns: tuple[str, ...]  # columns that the harness's TSV file must have
    tsv_md5s: tuple[str, ...]  # of all versions of the harness's TSV file, the newest first
    to_harness: Callable[[dict[str, Any], int], dict[str, Any]]  # (hub row, its number) -> TSV row
    complete_rows: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = lambda rows: rows
    """From all rows of `to_harness`, the benchmark's items."""
    hub_configs: tuple[str, ...] = ()  # the data set's configs; empty if it has only one
    problem: Callable[[Item], str | None] = lambda item: None
    """The problem to which the item belongs, if evaluate.limit must not separate its items."""
    reads_tables: bool = False
    """Whether a prediction passes table_text outside of an evaluation too."""
    judge_calls: tuple[int, int, int] = (0, 0, 0)
    """Replies of the judge for one item: at least, if the judge is needed, and at most."""
