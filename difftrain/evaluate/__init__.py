"""Six benchmarks in the reference harness's way: prompts, scores of predictions, results tables.

Nothing here reads files (loading.py) or runs a model (generate.py).
"""

from collections.abc import Iterable, Mapping
from typing import Any

from difftrain.evaluate import harness
from difftrain.evaluate.benchmarks import hallusionbench, mathvista, mmmu, mmstar, mmvet, ocrbench
from difftrain.evaluate.harness import Benchmark, HarnessRules, Item, ItemGrade, Judge
from difftrain.records import ItemResult, ItemStatus

__all__ = ["aggregate", "build_prompt", "score_item"]

BENCHMARKS: dict[str, Benchmark] = {
    module.BENCHMARK.name: module.BENCHMARK
    for module in (mathvista, mmvet, ocrbench, hallusionbench, mmmu, mmstar)
}
# The reference harness's names of data sets, where they differ from the tables'.
HARNESS_NAMES = {"MathVista_MINI": "MathVista", "MMMU_DEV_VAL": "MMMU"}
HARNESS_NAMES["MMMU_DEV_VAL(validation)"] = "MMMU"


def benchmark_named(name: str) -> Benchmark:
    """A benchmark by its name, the harness's, or one with `shapes/`. Raises ValueError."""
    short = name.removeprefix("shapes/")
    short = HARNESS_NAMES.get(short, short)
    if short not in BENCHMARKS:
        raise ValueError(f"benchmark={name!r}: must be one of {', '.join(BENCHMARKS)}")
    return BENCHMARKS[short]


def build_prompt(benchmark: str, item: Item) -> list[harness.Part]:
    """The item as parts {type: image or text, value}, in the order in which they are shown."""
    return benchmark_named(benchmark).prompt(item)


def grade_prediction(
    benchmark: str,
    prediction: str,
    item: Item,
    judge: Judge | None = None,
    rules: str | HarnessRules = "2025-11",
) -> ItemGrade:
    """Score, extraction and grader of one prediction; `error` if the judge cannot be reached.

    `rules` is a date or what harness.configured_rules returns. Raises ValueError for another date.
    """
    if isinstance(rules, str):
        if rules not in harness.RULES:
            raise ValueError(f"rules={rules!r}: must be one of {', '.join(harness.RULES)}")
        rules = harness.RULES[rules]
    if rules.through_tables and prediction in harness.NOT_TEXTS:
        prediction = "nan"
    try:
        return benchmark_named(benchmark).grade(prediction, item, judge, rules)
    except harness.JudgeDown as error:
        return ItemGrade(None, None, None, str(error))


def score_item(
    benchmark: str,
    prediction: str | None,
    item: Item,
    judge: Judge | None = None,
    rules: str | HarnessRules = "2025-11",
) -> float | None:
    """The score of one prediction, 0 to 1, as the reference harness gave it at the date `rules`.

    No prediction: None. Undecided without a judge: 0.0. A judge that cannot be reached (it
    raises): None. In MathVista, MM-Vet and HallusionBench the harness's own text for a failed call
    scores 0.0, as it does there; in MMMU and MMStar, where the harness then guesses, None.
    """
    if prediction is None:
        benchmark_named(benchmark)  # raises for an unknown name
        return None
    return grade_prediction(benchmark, prediction, item, judge, rules).score


def item_result(benchmark: str, item: Item, response: str | None, grade: ItemGrade) -> ItemResult:
    """The record of a graded item; `benchmark` is kept as given, `shapes/` included."""
    kind = benchmark_named(benchmark)
    return ItemResult(
        benchmark=benchmark,
        item_id=kind.item_id(item),
        response=response,
        extracted=grade.extracted,
        score=grade.score,
        graded_by=grade.graded_by,
        status=ItemStatus.failed if grade.score is None else ItemStatus.scored,
        error=grade.error,
        category=kind.category(item),
    )


def aggregate(benchmark: str, rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The harness's results table of scored items, as one flat dictionary: fractions of 1.

    A row holds the item's official columns under `item`, or directly, and its score under `score`,
    `hit` or `correct`; a row with a `prediction` alone is scored by rule. HallusionBench's items
    may have a `key`: category, subcategory, set, figure, question. Rows without a score are in
    no figure, and figures over nothing are left out. Keys are the harness's: Overall and
    categories; HallusionBench: `aAcc`, and `VD aAcc` of a group; MMMU: validation, and
    `dev Overall` of the other split; OCRBench: counts of correct items, as in the harness.
    """
    kind = benchmark_named(benchmark)
    results = []
    for number, row in enumerate(rows):
        item: Item = {"index": str(number), **row.get("item", row)}  # it may have no id
        if "key" in item:
            item = dict(zip(hallusionbench.ID_COLUMNS, item["key"], strict=True))
        score = next((row[name] for name in ("score", "hit", "correct") if name in row), None)
        if "prediction" in row and "score" not in row:
            score = score_item(benchmark, row["prediction"], item)
        grade = ItemGrade(None if score is None else float(score), None, None)
        results.append(item_result(benchmark, item, None, grade))
    tables = kind.tables(results)
    table = next(iter(tables.values()), {})
    if kind is mmmu.BENCHMARK:
        other = {f"dev {name}": row for name, row in tables.get("dev", {}).items()}
        table = tables.get("validation", {}) | other
    figures = {}
    for name, row in table.items():
        if kind is hallusionbench.BENCHMARK:
            prefix = "" if name == harness.OVERALL else f"{name} "
            figures |= {f"{prefix}{column}": row[column] for column in ("aAcc", "fAcc", "qAcc")}
        elif kind is ocrbench.BENCHMARK:
            figures |= {name: row["right"], f"{name} Norm": row.get("norm")}
        else:
            figures[name] = row["score"]
    return {name: float(value) for name, value in figures.items() if value is not None}
