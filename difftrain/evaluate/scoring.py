"""What an item asks and what an answer is worth: the scorers by name, and the Mark of an answer.

The settings are in config.py and the loop over items in run.py; nothing here loads a model.
"""

from difftrain.evaluate import (
    hallusionbench,
    mathvista,
    mmmu,
    mmstar,
    mmvet,
    ocrbench,
    undecided,
)
from difftrain.evaluate.graded import Benchmark, Graded, Item, Judge, Part
from difftrain.evaluate.judge_prompts import JudgeDown
from difftrain.evaluate.rules import NOT_TEXTS, Rules, switches
from difftrain.grade import extract
from difftrain.records import GradedBy, ItemResult

BENCHMARKS: dict[str, Benchmark] = {
    "MathVista": mathvista.BENCHMARK,
    "MMVet": mmvet.BENCHMARK,
    "OCRBench": ocrbench.BENCHMARK,
    "HallusionBench": hallusionbench.BENCHMARK,
    "MMMU": mmmu.BENCHMARK,
    "MMStar": mmstar.BENCHMARK,
}
HARNESS_NAMES = {
    "MathVista_MINI": "MathVista",
    "MMMU_DEV_VAL": "MMMU",
    "MMMU_DEV_VAL(validation)": "MMMU",
}
"""The reference harness's names of data sets, where they differ from the tables'."""
MINIATURE = "shapes/"
_NOTHING = "\0"
"""No tokenizer's text begins so."""


def benchmark_named(name: str) -> Benchmark:
    """A benchmark by its name in the tables or in the harness, with or without `shapes/`.

    Raises ValueError for a name that is none of these.
    """
    short = name.removeprefix(MINIATURE)
    short = HARNESS_NAMES.get(short, short)
    if short not in BENCHMARKS:
        raise ValueError(f"benchmark={name!r}: must be one of {', '.join(BENCHMARKS)}")
    return BENCHMARKS[short]


def build_prompt(benchmark: str, item: Item) -> list[Part]:
    """The item as parts {type: image or text, value}, in the order they are shown."""
    return benchmark_named(benchmark).prompt(item)


def mark(
    benchmark: str,
    prediction: str,
    item: Item,
    judge: Judge | None = None,
    rules: Rules = "2025-11",
) -> Graded:
    """Score, extraction and path of one prediction; score None if the judge cannot be reached.

    `score_item` is the score alone; `as_mark` makes the record of it. `rules` with deviations come
    from rules.switches.
    """
    how = switches(rules)
    if (why := why_nothing(prediction)) is not None:
        return Graded(None, why, GradedBy.failed)
    if how.through_tables and prediction in NOT_TEXTS:
        prediction = "nan"
    try:
        return benchmark_named(benchmark).grade(prediction, item, judge, how)
    except JudgeDown:
        return Graded(None, None, GradedBy.failed)


def score_item(
    benchmark: str,
    prediction: str,
    item: Item,
    judge: Judge | None = None,
    rules: Rules = "2025-11",
) -> float | None:
    """The score of one prediction, 0 to 1, as the reference harness gave it at the date `rules`.

    Undecided without a judge: 0.0. A judge that cannot be reached (it raises): None. In MathVista,
    MM-Vet and HallusionBench the harness's own text for a failed call scores 0.0, as it does
    there; in MMMU and MMStar, where the harness then guesses, None.
    """
    return mark(benchmark, prediction, item, judge, rules).score


def not_asked(reason: str) -> str:
    """The response of an item that could not be put to the model, such as one without a picture."""
    return _NOTHING + undecided.UNASKED + reason


def no_answer(reason: str) -> str:
    """The response of an item that the engine had no answer for."""
    return _NOTHING + undecided.UNANSWERED + reason


def is_no_answer(response: str) -> bool:
    """Whether this is the response of an item that the engine had no answer for."""
    return response.startswith(_NOTHING + undecided.UNANSWERED)


def why_nothing(response: str) -> str | None:
    """`not asked: ...` or `no answer: ...` where the model said nothing, else None."""
    known = tuple(_NOTHING + word for word in (undecided.UNASKED, undecided.UNANSWERED))
    return response.removeprefix(_NOTHING) if response.startswith(known) else None


def open_tags(response: str) -> str:
    """What stands between the last <answer> tags, stripped; without tags the response unchanged."""
    inside = extract.tag_content(response)
    return response if inside is None else inside.strip()


def as_mark(benchmark: str, response: str, item: Item, graded: Graded) -> ItemResult:
    """The Mark of a graded item; `benchmark` is kept as given, `shapes/` included."""
    kind = benchmark_named(benchmark)
    return ItemResult(
        benchmark=benchmark,
        item_id=kind.item_id(item),
        response=response,
        extracted=graded.extracted,
        score=graded.score,
        graded_by=graded.path,
        category=kind.subset(item),
    )
