"""MM-Vet: 218 open questions; a judge scores every response from 0.0 to 1.0."""

import math
from collections.abc import Sequence
from typing import Any

from difftrain.evaluate import harness
from difftrain.evaluate.harness import Benchmark, HarnessRules, Item, ItemGrade, Judge, Table
from difftrain.records import GradedBy, ItemResult


def judge_prompt(prediction: str, item: Item) -> str:
    """A table of graded examples, then this item; from GitHub's yuweihao/MM-Vet (Apache-2.0)."""
    gold = harness.text(item, "answer")
    gold = gold.replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")  # as VLMEvalKit does
    row = [harness.text(item, "question"), gold, prediction, ""]  # the judge adds the last cell
    return harness.judge_prompt("mmvet", " | ".join(row))


def _grade(prediction: str, item: Item, judge: Judge | None, rules: HarnessRules) -> ItemGrade:
    """The score is the judge's number from 0 to 1, or 0 if none of five replies is such a number.

    After a reply `nan` the item has no score. In VLMEvalKit this reply makes the mean score NaN.
    """
    if judge is None:
        return harness.UNDECIDED

    def parse(reply: str) -> ItemGrade | None:
        try:
            score = float(reply)
        except ValueError:
            return None
        if math.isnan(score):
            return ItemGrade(None, reply.strip(), error="the judge's score is nan")
        return ItemGrade(score, reply.strip(), GradedBy.judge) if 0 <= score <= 1 else None

    prompt = judge_prompt(prediction, item)
    grade, _ = harness.first_usable(judge, prompt, harness.RISING_TEMPERATURES, parse)
    return grade or harness.UNDECIDED


def _category(item: Item) -> str:
    """The capabilities, joined by commas."""
    return ",".join(map(str, harness.as_list(harness.first_filled(item, "category", "capability"))))


def _tables(results: Sequence[ItemResult]) -> dict[str, Table]:
    """Two tables: a row per capability, and a row per combination of capabilities."""
    combinations = harness.category_table(results, split_categories=False)
    return {  # VLMEvalKit also writes rec_ocr for the category rec,ocr
        "capabilities": harness.category_table(results),
        "combinations": {name.replace(",", "_"): row for name, row in combinations.items()},
    }


def _to_harness(row: dict[str, Any], number: int) -> dict[str, Any]:
    unchanged = {name: row[name] for name in ("question", "answer", "image")}
    return unchanged | {"index": row["question_id"], "category": _category(row)}


BENCHMARK = Benchmark(
    name="MMVet",
    grade=_grade,
    item_id=lambda item: harness.text(item, "index", "question_id", "id"),
    category=_category,
    tables=_tables,
    num_items=218,
    hub_split="test",
    hub_columns=("question_id", "question", "answer", "capability", "image"),
    tsv_columns=("index", "image", "question", "answer", "category"),
    tsv_md5s=("748aa6d4aa9d4de798306a63718455e3",),
    to_harness=_to_harness,
    judge_calls=(1, 1, 5),
)
