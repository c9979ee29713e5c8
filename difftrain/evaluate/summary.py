"""From item results to a checkpoint's scores with 95 % intervals, and to paired differences.

All scores are fractions of 1. Not here: the statistics (difftrain.stats).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from difftrain import stats
from difftrain.evaluate.benchmarks.hallusionbench import figure_of
from difftrain.records import ItemResult, ItemStatus

ALWAYS_JUDGED = "MMVet"  # the benchmark that has no rules of its own


@dataclass(frozen=True, slots=True)
class Summary:
    """A mean score with its 95 % interval over `n` scored items.

    Of items without a score that were not skipped or without a response, the judge failed.
    """

    score: float | None
    low: float | None
    high: float | None
    n: int
    failed: int  # without a score (left out of the mean), or undecided
    undecided: int = 0  # by rule or judge: 0 in the mean, as in the reference
    reason: str | None = None  # why there is no score, where nothing was decided
    skipped: int = 0  # could not be sent to the model
    no_response: int = 0  # of the engine


def cluster_of(benchmark: str, item_id: str) -> str:
    """What is resampled together with an item: HallusionBench's figure, elsewhere the item."""
    return figure_of(item_id) if benchmark.endswith("HallusionBench") else item_id


def summarize(benchmark: str, results: Sequence[ItemResult], resamples: int = 2000) -> Summary:
    """The printed score (HallusionBench: aAcc), bootstrapped. Raises ValueError without results."""
    return _summary(results, no_score_reason(benchmark, results), resamples)


def summarize_mean(
    results_by_benchmark: Mapping[str, Sequence[ItemResult]], resamples: int = 2000
) -> Summary:
    """The unweighted mean over benchmarks; each benchmark's items are resampled on their own.

    There is no score if one of them has nothing decided. Raises ValueError without results.
    """
    results = [result for group in results_by_benchmark.values() for result in group]
    return _summary(results, no_mean_reason(results_by_benchmark), resamples)


def _summary(results: Sequence[ItemResult], reason: str | None, resamples: int) -> Summary:
    failed = sum(result.score is None or result.graded_by is None for result in results)
    skipped = sum(result.status is ItemStatus.skipped for result in results)
    counts = (failed, count_undecided(results), reason, skipped, count_no_response(results))
    if reason:
        return Summary(None, None, None, 0, *counts)
    tables = stats.score_tables([results], cluster_of)
    mean = stats.pool(tables, "bootstrap", resamples)[stats.MEAN]
    return Summary(mean.mean, mean.low, mean.high, mean.n, *counts)


def paired_difference(
    before: Sequence[ItemResult], after: Sequence[ItemResult], resamples: int = 2000
) -> stats.Estimate:
    """How much better `after` is than `before` on the same items of one benchmark or several.

    The unweighted mean over benchmarks of the mean item difference, by a paired bootstrap. Raises
    ValueError if the two sides do not hold the same items, or hold none.
    """
    tables = stats.difference_tables([before], [after], cluster_of)
    return stats.pool(tables, "paired", resamples)[stats.MEAN]


def count_undecided(results: Sequence[ItemResult]) -> int:
    """Results that no rule or reply decided; they count 0, or as their drawn option does."""
    return sum(result.status is ItemStatus.scored and not result.graded_by for result in results)


def count_no_response(results: Sequence[ItemResult]) -> int:
    """Items for which the engine gave no response; they have no score."""
    return sum(result.status is ItemStatus.failed and result.response is None for result in results)


def no_score_reason(benchmark: str, results: Sequence[ItemResult]) -> str | None:
    """Why a benchmark with these results has no score; None if it has one."""
    if not results or any(r.score is not None and r.graded_by is not None for r in results):
        return None
    without = sum(result.score is None for result in results)
    if without:
        rest = ", and nothing decided the others" if without < len(results) else ""
        return f"{without} of {len(results)} items got no score{rest}"
    if benchmark.removeprefix("shapes/") == ALWAYS_JUDGED:
        return f"{ALWAYS_JUDGED} needs a judge: none was asked, or none of its replies was a score"
    return f"neither a rule nor a judge decided any of the {len(results)} items"


def no_mean_reason(results_by_benchmark: Mapping[str, Sequence[ItemResult]]) -> str | None:
    """Why there is no mean over these benchmarks; None if there is one."""
    groups = results_by_benchmark.items()
    names = ", ".join(sorted(name for name, results in groups if no_score_reason(name, results)))
    return f"no mean over {len(groups)}, without a score of {names}" if names else None
