"""Would the same samples be called the same if they were asked again with other seeds? Pure.

Two sets of scores of the same samples, from draws that share nothing. A measure with strata is
compared by them, CDE and ACE by the side of their threshold.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from difftrain.config.difficulty import DifficultyConfig
from difftrain.records import Measure, Score

Z = 1.959964
"""The normal quantile of a 95 % interval."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """`same` of `n` samples kept their label: the share, its 95 % interval (Wilson), and the share
    that two measures with these labels would have by luck alone."""

    n: int
    same: int
    share: float
    low: float
    high: float
    by_chance: float


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two choices from the same `pool` samples: sizes, how many are in both, how many by luck."""

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
        return "kept" if config.cde.keeps(score.value) else "dropped"
    if score.measure is Measure.ace and score.value is not None:
        return "dropped" if config.ace.biased(score.value) else "kept"
    return "no value"


def score_labels(
    scores: Iterable[Score], measure: Measure, config: DifficultyConfig
) -> dict[str, str]:
    """The label of each sample by one measure."""
    return {each.sample_id: score_label(each, config) for each in scores if each.measure is measure}


def wilson_interval(part: int, whole: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson), which stays inside 0 to 1."""
    share, square = part / whole, Z * Z
    middle = share + square / (2 * whole)
    half = Z * (share * (1 - share) / whole + square / (4 * whole * whole)) ** 0.5
    scale = 1 + square / whole
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def agreement(first: Mapping[str, str], second: Mapping[str, str]) -> Agreement:
    """How many samples keep their label. Raises ValueError unless both hold the same samples."""
    if not first or first.keys() != second.keys():
        raise ValueError(f"{len(first)} and {len(second)} labels are not of the same samples")
    size = len(first)
    same = sum(first[key] == second[key] for key in first)
    once, again = Counter(first.values()), Counter(second.values())
    chance = sum(once[name] * again[name] for name in once) / size**2
    return Agreement(size, same, same / size, *wilson_interval(same, size), chance)


def overlap(pool: int, first: Collection[str], second: Collection[str]) -> Overlap:
    """How much two choices from `pool` samples have in common."""
    once, again = set(first), set(second)
    expected = len(once) * len(again) / pool
    return Overlap(pool, len(once), len(again), len(once & again), expected)
