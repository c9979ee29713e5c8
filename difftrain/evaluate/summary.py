"""Computes a checkpoint's scores with 95 % intervals, and paired differences of two checkpoints.

All scores are fractions of 1; the statistics are in difftrain/stats.py. A benchmark named
shapes/MMVet is a built-in imitation of MMVet, drawn by difftrain/shapes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from difftrain import stats
from difftrain.evaluate.benchmarks.hallusionbench import figure_of
from difftrain.evaluate.benchmarks.wemath import problem_results
from difftrain.records import ItemResult, ItemStatus

JUDGE_ONLY = ("MMVet", "MathVerse", "LogicVista")  # benchmarks that no rule can grade


@dataclass(frozen=True, slots=True)
class Summary:
    """A mean score with its 95 % interval over `n` scored items (of WeMath: problems).

    `failed` is the sum of `undecided`, `skipped`, `no_response` and the items on which the judge
    failed. Only `undecided` items are in the mean, with score 0 (or a random option's score if
    evaluate.harness_overrides.fallback=random).
    """

    score: float | None
    low: float | None
    high: float | None
    n: int
    failed: int
    undecided: int = 0  # items with a response that neither a rule nor the judge could grade
    reason: str | None = None  # why `score` is None
    skipped: int = 0  # items that could not be sent to the model
    no_response: int = 0  # items to which the engine gave no response


def cluster_of(benchmark: str, item_id: str) -> str:
    """The group that the bootstrap resamples together: HallusionBench's figure, MathVerse's problem
    (if its items name it), else the item."""
    if benchmark.endswith("MathVerse"):
        return item_id.rpartition("/")[0] or item_id
    return figure_of(item_id) if benchmark.endswith("HallusionBench") else item_id


def scored_units(results: Sequence[ItemResult]) -> list[ItemResult]:
    """The results whose mean is a benchmark's score: WeMath's problems, all others' items."""
    is_wemath = [result.benchmark.endswith("WeMath") for result in results]
    items = [result for result, joined in zip(results, is_wemath, strict=True) if not joined]
    steps = [result for result, joined in zip(results, is_wemath, strict=True) if joined]
    return items + problem_results(steps)


def summarize(benchmark: str, results: Sequence[ItemResult], resamples: int = 2000) -> Summary:
    """A benchmark's score; HallusionBench's is aAcc, WeMath's the strict score over problems.

    Raises ValueError if there are no results.
    """
    return _summary(results, no_score_reason(benchmark, results), resamples)


def summarize_mean(
    results_by_benchmark: Mapping[str, Sequence[ItemResult]], resamples: int = 2000
) -> Summary:
    """The unweighted mean over benchmarks; the bootstrap resamples within each benchmark.

    The score is None if a benchmark has no score. Raises ValueError if there are no results.
    """
    results = [result for group in results_by_benchmark.values() for result in group]
    return _summary(results, no_mean_reason(results_by_benchmark), resamples)


def _summary(results: Sequence[ItemResult], reason: str | None, resamples: int) -> Summary:
    failed = sum(result.score is None or result.graded_by is None for result in results)
    skipped = sum(result.status is ItemStatus.skipped for result in results)
    counts = (failed, count_undecided(results), reason, skipped, count_no_response(results))
    if reason:
        return Summary(None, None, None, 0, *counts)  # no score, no interval, no scored item
    tables = stats.score_tables([scored_units(results)], cluster_of)  # one list per seed
    estimate = stats.pool(tables, "bootstrap", resamples)[stats.MEAN]  # over benchmarks
    return Summary(estimate.mean, estimate.low, estimate.high, estimate.n, *counts)


def paired_difference(
    before: Sequence[ItemResult], after: Sequence[ItemResult], resamples: int = 2000
) -> stats.Estimate:
    """The mean difference `after - before` over items, averaged over benchmarks (unweighted).

    A paired bootstrap gives its interval. Raises ValueError if the items differ or there are none.
    """
    keys_before, keys_after = ({(r.benchmark, r.item_id) for r in side} for side in (before, after))
    if keys_before == keys_after:  # else stats raises an error about the items
        before, after = scored_units(before), scored_units(after)
    tables = stats.difference_tables([before], [after], cluster_of)
    return stats.pool(tables, "paired", resamples)[stats.MEAN]


def count_undecided(results: Sequence[ItemResult]) -> int:
    """Number of scored items that neither a rule nor the judge decided (Summary.undecided)."""
    return sum(result.status is ItemStatus.scored and not result.graded_by for result in results)


def count_no_response(results: Sequence[ItemResult]) -> int:
    """Number of items to which the engine gave no response."""
    return sum(result.status is ItemStatus.failed and result.response is None for result in results)


def no_score_reason(benchmark: str, results: Sequence[ItemResult]) -> str | None:
    """Why a benchmark with these results has no score; None if it has one."""
    if not results or any(r.score is not None and r.graded_by is not None for r in results):
        if results and all(unit.score is None for unit in scored_units(results)):
            return "no problem has a score on all its steps and on the whole"
        return None
    num_unscored = sum(result.score is None for result in results)
    if num_unscored:
        rest = ", and the others are undecided" if num_unscored < len(results) else ""
        return f"{num_unscored} of {len(results)} items got no score{rest}"
    if (name := benchmark.removeprefix("shapes/")) in JUDGE_ONLY:
        usable = "was a score" if name == "MMVet" else "could be used"
        return f"{name} needs a judge: none was called, or none of its replies {usable}"
    return f"neither a rule nor a judge decided any of the {len(results)} items"


def no_mean_reason(results_by_benchmark: Mapping[str, Sequence[ItemResult]]) -> str | None:
    """Why there is no mean over these benchmarks; None if there is one."""
    groups = results_by_benchmark.items()
    names = ", ".join(sorted(name for name, results in groups if no_score_reason(name, results)))
    reason = f"no mean over {len(groups)} benchmarks, because there is no score of {names}"
    return reason if names else None
