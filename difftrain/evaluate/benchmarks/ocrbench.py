"""OCRBench: 1000 text-reading items, correct if the prediction contains a gold answer."""

from collections.abc import Sequence
from typing import Any

from difftrain.evaluate import harness
from difftrain.evaluate.harness import Benchmark, HarnessRules, Item, ItemGrade, Judge, Table
from difftrain.records import GradedBy, ItemResult

FORMULA_TYPE = "Handwritten Mathematical Expression Recognition"
GROUPS = {  # group -> its question types
    "Text Recognition": (
        *("Regular Text Recognition", "Irregular Text Recognition", "Artistic Text Recognition"),
        *("Handwriting Recognition", "Digit String Recognition", "Non-Semantic Text Recognition"),
    ),
    "Scene Text-centric VQA": ("Scene Text-centric VQA",),
    "Doc-oriented VQA": ("Doc-oriented VQA",),
    "Key Information Extraction": ("Key Information Extraction",),
    FORMULA_TYPE: (FORMULA_TYPE,),
}


def _normalized(text: str, is_formula: bool) -> str:
    line = text.strip().replace("\n", " ")
    return line.replace(" ", "") if is_formula else line.lower()


def _grade(prediction: str, item: Item, judge: Judge | None, rules: HarnessRules) -> ItemGrade:
    """1 if the prediction contains a gold answer. For formulas case matters, blanks do not."""
    is_formula = _category(item) == FORMULA_TYPE
    normalized = _normalized(prediction, is_formula)
    for gold in map(str, harness.as_list(harness.first_filled(item, "answer", "answers"))):
        if _normalized(gold, is_formula) in normalized:
            return ItemGrade(1.0, gold.strip(), GradedBy.rule)
    return ItemGrade(0.0, graded_by=GradedBy.rule)


def _category(item: Item) -> str:
    return harness.text(item, "category", "type", "question_type")


def _tables(results: Sequence[ItemResult]) -> dict[str, Table]:
    """Two tables: the five groups with the final score (a count), and the ten question types."""
    groups = {
        name: harness.table_row(result for result in results if result.category in types)
        for name, types in GROUPS.items()
    }
    types = harness.category_table(results)
    final = types.pop(harness.OVERALL)
    # VLMEvalKit's "Final Score Norm" is a percentage only for all 1000 items: correct items / 10.
    final |= {"norm": (final["right"] or 0) / 10}
    return {"groups": {**groups, "Final Score": final}, "types": types}


def _to_harness(row: dict[str, Any], number: int) -> dict[str, Any]:
    """The row of VLMEvalKit's TSV file for a row of the hub's data set, which has no id."""
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
    num_items=1000,
    hub_split="test",
    hub_columns=("dataset", "question", "question_type", "answer", "image"),
    tsv_columns=("index", "image", "question", "answer", "category"),
    tsv_md5s=("e953d98a987cc6e26ef717b61260b778",),
    to_harness=_to_harness,
)
