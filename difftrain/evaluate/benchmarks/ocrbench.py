"""OCRBench: 1000 reading items, correct if a gold answer occurs anywhere in the prediction."""

from collections.abc import Sequence
from typing import Any

from difftrain.evaluate import harness
from difftrain.evaluate.harness import Benchmark, HarnessRules, Item, ItemGrade, Judge, Table
from difftrain.records import GradedBy, ItemResult

FORMULAS = "Handwritten Mathematical Expression Recognition"
GROUPS = {
    "Text Recognition": (
        *("Regular Text Recognition", "Irregular Text Recognition", "Artistic Text Recognition"),
        *("Handwriting Recognition", "Digit String Recognition", "Non-Semantic Text Recognition"),
    ),
    "Scene Text-centric VQA": ("Scene Text-centric VQA",),
    "Doc-oriented VQA": ("Doc-oriented VQA",),
    "Key Information Extraction": ("Key Information Extraction",),
    FORMULAS: (FORMULAS,),
}


def _normalized(text: str, formula: bool) -> str:
    line = text.strip().replace("\n", " ")
    return line.replace(" ", "") if formula else line.lower()


def _grade(prediction: str, item: Item, judge: Judge | None, rules: HarnessRules) -> ItemGrade:
    """1 if a gold is a part of the prediction; formulas keep their case and lose their blanks."""
    formula = _category(item) == FORMULAS
    normalized = _normalized(prediction, formula)
    for gold in map(str, harness.as_list(harness.first(item, "answer", "answers"))):
        if _normalized(gold, formula) in normalized:
            return ItemGrade(1.0, gold.strip(), GradedBy.rule)
    return ItemGrade(0.0, None, GradedBy.rule)


def _category(item: Item) -> str:
    return harness.text(item, "category", "type", "question_type")


def _tables(results: Sequence[ItemResult]) -> dict[str, Table]:
    """Five groups and the final score, which is a count; the ten types beside them."""
    groups = {
        name: harness.table_row(result for result in results if result.category in types)
        for name, types in GROUPS.items()
    }
    types = harness.category_table(results)
    final = types.pop(harness.OVERALL)
    # The Final Score Norm is the number of correct items over ten, on a subset too.
    final |= {"norm": (final["right"] or 0) / 10}
    return {"groups": {**groups, "Final Score": final}, "types": types}


def _to_harness(row: dict[str, Any], number: int) -> dict[str, Any]:
    """Rows have no id: their number is the harness's index."""
    return {
        **{name: row[name] for name in ("question", "dataset", "image")},
        "index": str(number),
        "answer": str(harness.as_list(row["answer"])),
        "category": row["question_type"],
    }


BENCHMARK = Benchmark(
    name="OCRBench",
    grade=_grade,
    item_id=lambda item: harness.text(item, "index", "id"),
    category=_category,
    tables=_tables,
    count=1000,
    split="test",
    columns=("dataset", "question", "question_type", "answer", "image"),
    tsv_columns=("index", "image", "question", "answer", "category"),
    md5=("e953d98a987cc6e26ef717b61260b778",),
    to_harness=_to_harness,
)
