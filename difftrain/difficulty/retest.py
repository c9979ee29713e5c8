"""Do samples keep their label when they are probed again with other seeds? Pure.

Two sets of scores of the same samples, from draws that share nothing. A measure with strata is
compared by them, CDE and ACE by the side of their threshold.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from difftrain.config.difficulty import DifficultyConfig
from difftrain.difficulty import ace, cde
from difftrain.records import Measure, Score

Z = 1.959964
"""The normal quantile of a 95 % interval."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """`same` of `n` samples kept their label: the share, its 95 % interval (Wilson), and the share
    that two independent measures with these labels would have by chance."""

    n: int
    same: int
    share: float
    low: float
    high: float
    by_chance: float


@dataclass(frozen=True, slots=True)
class SelectionOverlap:
    """Two selections from the same `pool` samples: their sizes, how many samples are in both, and
    how many would be by chance."""

    pool: int
    first: int
    second: int
    common: int
    common_by_chance: float


def score_label(score: Score, config: DifficultyConfig) -> str:
    """What a score is compared by: its stratum, or the side of its threshold."""
    if score.stratum is not None:
        return score.stratum
    if score.measure is Measure.cde and score.value is not None:
        return "kept" if cde.is_kept(score.value, config.cde.lambda_c) else "dropped"
    if score.measure is Measure.ace and score.value is not None:
        return "dropped" if ace.is_biased(score.value, config.ace.lambda_a) else "kept"
    return "no value"


def score_labels(
    scores: Iterable[Score], measure: Measure, config: DifficultyConfig
) -> dict[str, str]:
    """The label of each sample by one measure."""
    return {
        score.sample_id: score_label(score, config) for score in scores if score.measure is measure
    }


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson), which stays inside 0 to 1."""
    share, square = successes / n, Z * Z
    middle = share + square / (2 * n)
    half = Z * (share * (1 - share) / n + square / (4 * n * n)) ** 0.5
    scale = 1 + square / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def agreement(first: Mapping[str, str], second: Mapping[str, str]) -> Agreement:
    """How many samples keep their label. Raises ValueError unless both hold the same samples."""
    if not first or first.keys() != second.keys():
        raise ValueError(f"{len(first)} and {len(second)} labels are not of the same samples")
    n = len(first)
    same = sum(first[key] == second[key] for key in first)
    first_counts, second_counts = Counter(first.values()), Counter(second.values())
    by_chance = sum(first_counts[label] * second_counts[label] for label in first_counts) / n**2
    return Agreement(n, same, same / n, *wilson_interval(same, n), by_chance)


def overlap(pool: int, first: Collection[str], second: Collection[str]) -> SelectionOverlap:
    """How much two selections from `pool` samples have in common."""
    a, b = set(first), set(second)
    return SelectionOverlap(pool, len(a), len(b), len(a & b), len(a) * len(b) / pool)
