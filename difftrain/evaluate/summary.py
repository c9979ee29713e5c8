"""From item results to a checkpoint's scores with 95 % intervals, and to paired differences.

All scores are fractions of 1. Not here: the statistics (difftrain.stats).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from difftrain import seeds, stats
from difftrain.evaluate.benchmarks.hallusionbench import figure_of
from difftrain.records import ItemResult, ItemStatus

ALWAYS_JUDGED = "MMVet"
"""The benchmark that has no rules of its own."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A mean score with its 95 % interval over `n` scored items.

    `failed` counts items without a score (left out of the mean) and items that no rule or judge
    could decide (0 in the mean, as in the reference); `undecided` counts only the latter. Of those
    without a score, `skipped` could not be sent to the model and `no_response` got none from the
    engine; the others' judge failed. Where nothing was decided there is no score, and `reason`
    says why.
    """

    score: float | None
    low: float | None
    high: float | None
    n: int
    failed: int
    undecided: int = 0
    reason: str | None = None
    skipped: int = 0
    no_response: int = 0


def cluster_of(benchmark: str, item_id: str) -> str:
    """What is resampled together with an item: HallusionBench's figure, elsewhere the item."""
    return figure_of(item_id) if benchmark.endswith("HallusionBench") else item_id


def summarize(
    benchmark: str, results: Sequence[ItemResult], seed: int = 0, resamples: int = 2000
) -> Summary:
    """The benchmark's printed score (HallusionBench: aAcc) with a percentile bootstrap interval.

    Raises ValueError without results.
    """
    reason = no_score_reason(benchmark, results) if results else None
    return _summary({benchmark: results}, reason, seed, resamples)


def summarize_mean(
    results_by_benchmark: Mapping[str, Sequence[ItemResult]], seed: int = 0, resamples: int = 2000
) -> Summary:
    """The unweighted mean over benchmarks; each benchmark's items are resampled on their own.

    There is no score if one of them has nothing decided. Raises ValueError on no benchmarks, or
    on a benchmark without results.
    """
    if not results_by_benchmark:
        raise ValueError("no benchmarks, so there is no mean")
    groups = dict(sorted(results_by_benchmark.items()))
    return _summary(groups, no_mean_reason(groups), seed, resamples)


def _summary(
    groups: Mapping[str, Sequence[ItemResult]], reason: str | None, seed: int, resamples: int
) -> Summary:
    results = [result for group in groups.values() for result in group]
    failed = sum(result.score is None or result.graded_by is None for result in results)
    skipped = sum(each.status is ItemStatus.skipped for each in results)
    counts = (failed, count_undecided(results), reason, skipped, count_no_response(results))
    if reason:
        return Summary(None, None, None, 0, *counts)
    means, mean_R, n = [], [], 0
    for name, group in groups.items():
        pairs = [
            (cluster_of(name, result.item_id), result.score)
            for result in group
            if result.score is not None
        ]
        if not pairs:
            raise ValueError(f"{name}: no scored items among {len(group)}, so there is no mean")
        means.append(float(np.mean([score for _, score in pairs])))
        purpose = seeds.derive(seed, "bootstrap", name)
        mean_R.append(stats.resampled_means(pairs, purpose, resamples))
        n += len(pairs)
    low, high = stats.percentile_interval(np.mean(mean_R, axis=0))
    return Summary(float(np.mean(means)), low, high, n, *counts)


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
    return sum(
        result.status is ItemStatus.scored and result.graded_by is None for result in results
    )


def count_no_response(results: Sequence[ItemResult]) -> int:
    """Items for which the engine gave no response; they have no score."""
    return sum(result.status is ItemStatus.failed and result.response is None for result in results)


def nothing_decided(results: Sequence[ItemResult]) -> bool:
    """Whether no result comes from a rule or a judge, so that a mean would be made of failures."""
    return all(result.score is None or result.graded_by is None for result in results)


def no_score_reason(benchmark: str, results: Sequence[ItemResult]) -> str | None:
    """Why a benchmark with these results has no score; None if it has one."""
    if not results or not nothing_decided(results):
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
    groups = results_by_benchmark
    without = sorted(name for name in groups if groups[name] and nothing_decided(groups[name]))
    return (
        f"no mean over {len(groups)}, without a score of {', '.join(without)}" if without else None
    )
