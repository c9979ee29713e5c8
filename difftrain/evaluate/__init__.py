"""Nine benchmarks, prompted and scored as the reference evaluation harness (VLMEvalKit) does it.

This module neither loads items (loading.py does) nor runs a model (generate.py does). Built-in
benchmarks, named shapes/NAME and drawn by difftrain/shapes, have the prompts and scorers of NAME.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from difftrain.evaluate import harness
from difftrain.evaluate.benchmarks import (
    hallusionbench,
    logicvista,
    mathverse,
    mathvista,
    mmmu,
    mmstar,
    mmvet,
    ocrbench,
    wemath,
)
from difftrain.evaluate.harness import Benchmark, HarnessRules, Item, ItemGrade, Judge
from difftrain.records import ItemResult, ItemStatus

__all__ = ["aggregate", "build_prompt", "score_item"]

BENCHMARKS: dict[str, Benchmark] = {
    module.BENCHMARK.name: module.BENCHMARK
    for module in (
        *(mathvista, mmvet, ocrbench, hallusionbench, mmmu, mmstar),
        *(mathverse, wemath, logicvista),
    )
}
# The harness's name of a data set -> our name of the benchmark, if they differ.
HARNESS_NAMES = {"MathVista_MINI": "MathVista", "MMMU_DEV_VAL": "MMMU"}
HARNESS_NAMES["MMMU_DEV_VAL(validation)"] = "MMMU"
HARNESS_NAMES |= dict.fromkeys(mathverse.HARNESS_NAMES, "MathVerse")
COT_VARIANTS = {
    "MathVerse_MINI_Vision_Only_cot": mathverse.COT_VARIANT,
    "WeMath_COT": wemath.COT_VARIANT,
}
"""The harness's names of data sets with another prompt, which asks to reason first. They can be
prompted and scored, but the settings of an evaluation cannot name them."""


def benchmark_named(name: str) -> Benchmark:
    """The benchmark NAME, from NAME, shapes/NAME or the harness's name. Raises ValueError."""
    unprefixed = name.removeprefix("shapes/")
    if unprefixed in COT_VARIANTS:
        return COT_VARIANTS[unprefixed]
    our_name = HARNESS_NAMES.get(unprefixed, unprefixed)
    if our_name not in BENCHMARKS:
        raise ValueError(f"benchmark={name!r}: must be one of: {', '.join(BENCHMARKS)}")
    return BENCHMARKS[our_name]


def build_prompt(benchmark: str, item: Item) -> list[harness.Part]:
    """The item's prompt as parts {type: image or text, value}, in the order the model sees them."""
    return benchmark_named(benchmark).prompt(item)


def grade_prediction(
    benchmark: str,
    prediction: str | None,
    item: Item,
    judge: Judge | None = None,
    rules: str | HarnessRules = "2025-11",
) -> ItemGrade:
    """Grade one prediction. The grade has an error and no score if there is no prediction (None)
    or if the judge cannot be reached.

    `rules`: a date (key of harness.RULES), or harness.configured_rules(...). Raises ValueError.
    """
    definition = benchmark_named(benchmark)
    if isinstance(rules, str):
        if rules not in harness.RULES:
            raise ValueError(f"rules={rules!r}: must be one of: {', '.join(harness.RULES)}")
        rules = harness.RULES[rules]
    if prediction is None:
        return ItemGrade(score=None, error="there is no prediction")
    if rules.texts_become_nan or definition.reads_tables:
        prediction = harness.table_text(prediction, rules)
    try:
        return definition.grade(prediction, item, judge, rules)
    except harness.JudgeDown as error:
        return ItemGrade(score=None, error=str(error))


def score_item(
    benchmark: str,
    prediction: str | None,
    item: Item,
    judge: Judge | None = None,
    rules: str | HarnessRules = "2025-11",
) -> float | None:
    """The score of one prediction, 0 to 1. `rules` is a date, a key of harness.RULES.

    None if `prediction` is None or the judge raises an error. 0.0 if the rules cannot decide and
    there is no judge. A judge may return the text harness.API_FAILURE instead of raising. If it
    returns nothing else, the score is 0.0, as in the harness, or None for MMMU, MMStar and WeMath.
    Without a judge, WeMath gives None for a text that the harness reads as missing, such as "".
    """
    return grade_prediction(benchmark, prediction, item, judge, rules).score


def item_result(benchmark: str, item: Item, response: str | None, grade: ItemGrade) -> ItemResult:
    """The record of a graded item. `benchmark` may be NAME or shapes/NAME."""
    definition = benchmark_named(benchmark)
    return ItemResult(
        benchmark=benchmark,
        item_id=definition.item_id(item),
        response=response,
        extracted=grade.extracted,
        score=grade.score,
        graded_by=grade.graded_by,
        status=ItemStatus.failed if grade.score is None else ItemStatus.scored,
        error=grade.error,
        category=definition.category(item),
    )


def aggregate(benchmark: str, rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The harness's results table as one flat dictionary: name -> fraction of 1.

    A row has the item's official columns, either directly or under `item`, and the item's score
    under `score`, `hit` or `correct`. A row with a `prediction` but no `score` is graded by rule;
    for MMVet, MathVerse and LogicVista, which only a judge can score, it raises ValueError.
    An item of HallusionBench may have a tuple of its hallusionbench.ID_COLUMNS under `key` instead.
    Rows without a score are ignored. The names are the harness's: Overall and the categories.
    HallusionBench's are aAcc, fAcc and qAcc (the accuracies over items, figures and questions),
    alone and after a category: `VD aAcc`. MMMU's names begin with `dev ` for rows of the dev split.
    OCRBench's values are counts of correct items. MathVerse's names begin with the version
    (`Vision Only Angle`), and Overall is the mean over the versions. WeMath's are shares of its
    525 problems, of which a missing one counts as mastered, as in the harness.
    """
    definition = benchmark_named(benchmark)
    results = []
    for i, row in enumerate(rows):
        item: Item = {"index": str(i), **row.get("item", row)}  # an item without an id gets `i`
        if definition is hallusionbench.BENCHMARK and "key" in item:
            item = dict(zip(hallusionbench.ID_COLUMNS, item["key"], strict=True))
        score = next((row[name] for name in ("score", "hit", "correct") if name in row), None)
        if "prediction" in row and not {"score", "hit"} & row.keys():
            if definition.judge_calls[0]:
                raise ValueError(
                    f"{benchmark}: row {i} has a prediction but no score, and without a judge "
                    "nothing scores this benchmark: add the judge's result under `score`"
                )
            score = score_item(benchmark, row["prediction"], item)
        grade = ItemGrade(None if score is None else float(score))
        results.append(item_result(benchmark, item, response=None, grade=grade))
    tables = definition.tables(results)
    table = next(iter(tables.values()), {})  # the first one has the overall score
    if definition is mmmu.BENCHMARK:
        dev = {f"dev {name}": row for name, row in tables.get("dev", {}).items()}
        table = tables.get("validation", {}) | dev
    if definition.name == wemath.BENCHMARK.name:
        return wemath.harness_figures(results)
    if definition.name == mathverse.BENCHMARK.name:
        return mathverse.harness_figures(results)
    values = {}
    for name, row in table.items():
        if definition is hallusionbench.BENCHMARK:
            prefix = "" if name == harness.OVERALL else f"{name} "
            values |= {f"{prefix}{column}": row[column] for column in ("aAcc", "fAcc", "qAcc")}
        elif definition is ocrbench.BENCHMARK:
            values |= {name: row["right"], f"{name} Norm": row.get("norm")}
        else:
            values[name] = row["score"]
    return {name: float(value) for name, value in values.items() if value is not None}
