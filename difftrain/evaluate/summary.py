"""From marks to headline figures with 95 % intervals. Pure: numpy, seeds and records only.

Axes: C clusters, S resamples. All scores are fractions of 1.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from difftrain import seeds
from difftrain.evaluate import undecided
from difftrain.evaluate.hallusionbench import figure_of
from difftrain.records import GradedBy, ItemResult

PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True, slots=True)
class Summary:
    """A mean score with its 95 % interval over `n` scored items.

    `failed` counts marks without a score (left out of the mean) and marks that no rule or judge
    could decide (0 in the mean, as in the reference); `undecided` counts the latter alone. Of those
    without a score, `unasked` could not be asked and `unanswered` had no answer of the engine; the
    others' judge failed. Where nothing was decided there is no score, and `why` says so in words.
    """

    score: float | None
    low: float | None
    high: float | None
    n: int
    failed: int
    undecided: int = 0
    why: str | None = None
    unasked: int = 0
    unanswered: int = 0


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of (b - a) over paired items, with its 95 % interval.

    `n` pairs were scored on both sides; `failed` pairs were left out because one side was not.
    """

    mean: float
    low: float
    high: float
    n: int
    failed: int


def cluster_of(benchmark: str, item_id: str) -> str:
    """What is drawn again together with an item: HallusionBench's figure, elsewhere the item."""
    return figure_of(item_id) if benchmark.endswith("HallusionBench") else item_id


def _scored(
    benchmark: str, marks: Sequence[ItemResult], clusters: Sequence[str] | None
) -> list[tuple[str, float]]:
    """(cluster, score) of every mark that has a score. Raises ValueError if none has."""
    own = [cluster_of(benchmark, mark.item_id) for mark in marks]
    names = own if clusters is None else clusters
    if len(names) != len(marks):
        raise ValueError(f"{benchmark}: {len(names)} clusters for {len(marks)} marks")
    found = [
        (name, mark.score)
        for name, mark in zip(names, marks, strict=True)
        if mark.score is not None
    ]
    if not found:
        raise ValueError(f"{benchmark}: no scored marks among {len(marks)}, so there is no mean")
    return found


def resampled_S(scored: Sequence[tuple[str, float]], seed: int, resamples: int) -> np.ndarray:
    """Means over clusters drawn again with replacement, one for each resample."""
    total: dict[str, float] = defaultdict(float)
    size: dict[str, int] = defaultdict(int)
    for name, score in sorted(scored):
        total[name] += score
        size[name] += 1
    total_C = np.array(list(total.values()))
    size_C = np.array(list(size.values()), dtype=float)
    rng = np.random.Generator(np.random.PCG64(seed))
    drawn_SC = rng.multinomial(len(total_C), np.full(len(total_C), 1 / len(total_C)), resamples)
    return (drawn_SC @ total_C) / (drawn_SC @ size_C)


def interval(mean_S: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of resampled means."""
    low, high = np.percentile(mean_S, PERCENTILES)
    return float(low), float(high)


def _mean(scored: Sequence[tuple[str, float]]) -> float:
    return float(np.mean([score for _, score in scored]))


def _failed(marks: Sequence[ItemResult]) -> int:
    return sum(mark.score is None or mark.graded_by is GradedBy.failed for mark in marks)


def _without(marks: Sequence[ItemResult]) -> tuple[int, int]:
    return undecided.unasked(marks), undecided.unanswered(marks)


def headline(
    benchmark: str,
    marks: Sequence[ItemResult],
    clusters: Sequence[str] | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> Summary:
    """The benchmark's printed figure (HallusionBench: aAcc) with a percentile bootstrap interval.

    `clusters` names for each mark the unit that is drawn again; by default the figure for
    HallusionBench and the item elsewhere. Raises ValueError where there are no marks.
    """
    if marks and (why := undecided.why_none(benchmark, marks)):
        counts = 0, len(marks), undecided.count(marks)
        return Summary(None, None, None, *counts, why, *_without(marks))
    scored = _scored(benchmark, marks, clusters)
    purpose = seeds.derive(seed, "bootstrap", benchmark)
    low, high = interval(resampled_S(scored, purpose, resamples))
    counts = len(scored), _failed(marks), undecided.count(marks)
    return Summary(_mean(scored), low, high, *counts, None, *_without(marks))


def mean_headline(
    marks_by_benchmark: Mapping[str, Sequence[ItemResult]],
    clusters_by_benchmark: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> Summary:
    """The unweighted mean over benchmarks; each benchmark's items are drawn again on their own.

    None if one of them has nothing decided. Raises ValueError on no benchmarks, or no marks in one.
    """
    if not marks_by_benchmark:
        raise ValueError("no benchmarks, so there is no mean")
    every_mark = [mark for marks in marks_by_benchmark.values() for mark in marks]
    open_, without = undecided.count(every_mark), _without(every_mark)
    if why := undecided.why_no_mean(marks_by_benchmark):
        return Summary(None, None, None, 0, _failed(every_mark), open_, why, *without)
    given = clusters_by_benchmark or {}
    means, means_S = [], []
    n = failed = 0
    for name, marks in sorted(marks_by_benchmark.items()):
        scored = _scored(name, marks, given.get(name))
        means.append(_mean(scored))
        means_S.append(resampled_S(scored, seeds.derive(seed, "bootstrap", name), resamples))
        n += len(scored)
        failed += _failed(marks)
    low, high = interval(np.mean(means_S, axis=0))
    return Summary(float(np.mean(means)), low, high, n, failed, open_, None, *without)


def _by_benchmark(marks: Sequence[ItemResult]) -> dict[str, dict[str, ItemResult]]:
    found: dict[str, dict[str, ItemResult]] = defaultdict(dict)
    for mark in marks:
        if mark.item_id in found[mark.benchmark]:
            raise ValueError(f"{mark.benchmark}: item {mark.item_id} is marked twice")
        found[mark.benchmark][mark.item_id] = mark
    return found


def _paired(
    name: str, one: Mapping[str, ItemResult], two: Mapping[str, ItemResult]
) -> list[tuple[str, float]]:
    """(cluster, b - a) of the items scored on both sides."""
    if one.keys() != two.keys():
        alone = sorted(one.keys() ^ two.keys())
        raise ValueError(f"{name}: {len(alone)} items are on one side only, such as {alone[0]}")
    marks = [one[identity] for identity in sorted(one)]
    pairs = [
        (cluster_of(name, mark.item_id), after - before)
        for mark in marks
        if (before := mark.score) is not None and (after := two[mark.item_id].score) is not None
    ]
    if not pairs:
        raise ValueError(f"{name}: no item is scored on both sides, so there is no difference")
    return pairs


def paired_difference(
    marks_a: Sequence[ItemResult],
    marks_b: Sequence[ItemResult],
    seed: int = 0,
    resamples: int = 2000,
) -> Difference:
    """How much better b is than a on the very same items, over one benchmark or several.

    The unweighted mean over benchmarks of the mean item difference, by a paired bootstrap (items,
    or HallusionBench's figures, are drawn again together with both their marks). Raises
    ValueError if the two sides do not hold the same items, or hold none.
    """
    before, after = _by_benchmark(marks_a), _by_benchmark(marks_b)
    if not before or before.keys() != after.keys():
        raise ValueError(f"benchmarks differ: {sorted(before)} and {sorted(after)}")
    means, means_S = [], []
    n = 0
    for name in sorted(before):
        pairs = _paired(name, before[name], after[name])
        means.append(_mean(pairs))
        means_S.append(resampled_S(pairs, seeds.derive(seed, "paired", name), resamples))
        n += len(pairs)
    low, high = interval(np.mean(means_S, axis=0))
    return Difference(float(np.mean(means)), low, high, n, len(marks_a) - n)


def by_subset(marks: Sequence[ItemResult]) -> dict[str, float]:
    """Mean score of each subset; an item with several (MM-Vet's `rec,ocr`) counts in each."""
    found: dict[str, list[float]] = defaultdict(list)
    for mark in marks:
        if mark.score is not None:
            for subset in mark.category.split(","):
                found[subset].append(mark.score)
    return {subset: sum(scores) / len(scores) for subset, scores in sorted(found.items())}
