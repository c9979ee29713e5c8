"""Statistics of measure_validity.py: how well difficulty measures recover known facts on samples.

The samples are generated, so their truth is known: whether a question needs the image, can be
answered from the text alone ("prior"), or by nobody ("noise"), and how difficult the image is.

Axes: N samples, S strata. A missing value is NaN in the table; it is left out and counted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from difftrain import seeds

NUM_RESAMPLES = 2000
MASK_KINDS = {"pism": "pixels", "pism_rectangle": "rectangle", "pism_patches": "patches"}
TITLES = {
    "pism": "PISM (pixels)",
    "pism_chance": "PISM, chance-aware",
    "pism_rectangle": "PISM (rectangle)",
    "pism_patches": "PISM (patches)",
    "cmab": "CMAB",
    "cde": "CDE",
    "cde_readable": "CDE, readable only",
    "ace": "ACE",
    "drm": "DRM",
}
NEEDS_IMAGE_SIGN = {
    "pism": -1,
    "pism_chance": -1,
    "pism_rectangle": -1,
    "pism_patches": -1,
    "cmab": 1,
    "cde": 1,
    "cde_readable": 1,
    "ace": -1,
    "drm": 1,
}
"""Multiplied by this sign, a high value of the measure means that a sample needs the image."""
ANSWER_GROUPS = {
    "2": (2, 2),
    "4": (4, 4),
    "6 to 10": (5, 10),
    "15 to 19": (11, 19),
    "more": (20, 10**9),
}
"""Groups of samples by how many answers are possible: the smallest and the largest number."""
FLAWS = [
    "",
    "The model was taught two flaws on purpose (tools/pretraining_data.py): it gives up on masked",
    "images, and it leaves out tags in three families. The prior family has neither flaw. So",
    "PISM's AUC here is partly built in, and prior samples, which are answered correctly with and",
    "without the image, have a D of 0. CDE's AUC was known when these weights were chosen: with",
    "earlier weights, which could not answer most families at all, it was 0.59. It shows what CDE",
    "does for a model that can answer, not how often models can.",
]
"""The page's caveats about the weights of the tiny model."""


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """The probability that a positive value is above a negative one; a tie counts half.

    Raises ValueError if either side is empty.
    """
    if not len(positive) or not len(negative):
        raise ValueError("an AUC needs samples on both sides")
    ranks = stats.rankdata(np.concatenate([positive, negative]))[: len(positive)].sum()
    n = len(positive)
    return float((ranks - n * (n + 1) / 2) / (n * len(negative)))


def interval(resample: Callable[[np.random.Generator], float], purpose: str) -> tuple[float, float]:
    """The 95 % percentile interval of what `resample` computes from one bootstrap resample."""
    rng = np.random.Generator(np.random.PCG64(seeds.derive(0, "metrology", purpose)))
    low, high = np.nanpercentile([resample(rng) for _ in range(NUM_RESAMPLES)], (2.5, 97.5))
    return float(low), float(high)


def resampled_auc(rng: np.random.Generator, positive: np.ndarray, negative: np.ndarray) -> float:
    """The AUC of one bootstrap resample of each side."""
    return auc(rng.choice(positive, len(positive)), rng.choice(negative, len(negative)))


@dataclass(frozen=True, slots=True)
class Statistic:
    """A statistic with its 95 % interval, over `n` samples; `left_out` samples had no value."""

    value: float
    low: float
    high: float
    n: int
    left_out: int


def separation(frame: pd.DataFrame, name: str, solved_only: bool) -> Statistic:
    """AUC of samples that need the image over prior ones; `solved_only`: without unsolved ones.

    Raises ValueError if one side is empty.
    """
    rows = frame[frame["truth"] != "noise"]
    rows = rows[rows["solved"]] if solved_only else rows
    rated = rows.dropna(subset=[name])
    value = NEEDS_IMAGE_SIGN[name] * rated[name].to_numpy(dtype=float)
    needs_image = (rated["truth"] == "needs the image").to_numpy()
    positive, negative = value[needs_image], value[~needs_image]
    low, high = interval(lambda rng: resampled_auc(rng, positive, negative), f"auc {name}")
    return Statistic(auc(positive, negative), low, high, len(rated), len(rows) - len(rated))


def family_auc(frame: pd.DataFrame, name: str, family: str) -> Statistic:
    """AUC of one family over the prior samples. Raises ValueError if one side is empty."""
    rated = frame[frame["task"].isin([family]) | (frame["truth"] == "prior")].dropna(subset=[name])
    value = NEEDS_IMAGE_SIGN[name] * rated[name].to_numpy(dtype=float)
    of_family = (rated["task"] == family).to_numpy()
    positive, negative = value[of_family], value[~of_family]
    low, high = interval(lambda rng: resampled_auc(rng, positive, negative), f"{name} {family}")
    return Statistic(auc(positive, negative), low, high, len(positive), 0)


def within_family(value_N: np.ndarray, difficulty_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of both within one family, centered and divided by the family's size."""
    n = len(value_N)
    return tuple((stats.rankdata(x) - (n + 1) / 2) / n for x in (value_N, difficulty_N))  # pyright: ignore[reportReturnType]


def pooled_rank_correlation(families: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """Correlation of the within-family ranks of all families; NaN if all ranks of a side are equal.

    A family in which the measure is constant counts as uncorrelated.
    """
    ranks = [within_family(*family) for family in families]
    value_N, difficulty_N = (np.concatenate(side) for side in zip(*ranks, strict=True))
    scale = np.sqrt((value_N**2).sum() * (difficulty_N**2).sum())
    return float((value_N * difficulty_N).sum() / scale) if scale else float("nan")


def difficulty_correlation(frame: pd.DataFrame, name: str) -> tuple[Statistic, dict[str, float]]:
    """Rank correlation with gen_difficulty: pooled over families, and of each family."""
    rows = frame[frame["truth"] == "needs the image"]
    rated = rows.dropna(subset=[name])
    groups = {
        str(task): (rows[name].to_numpy(dtype=float), rows["gen_difficulty"].to_numpy(dtype=float))
        for task, rows in rated.groupby("task")
        if len(rows) > 2
    }

    def resampled(rng: np.random.Generator) -> float:
        resamples = []
        for value_N, difficulty_N in groups.values():
            indices = rng.integers(len(value_N), size=len(value_N))
            resamples.append((value_N[indices], difficulty_N[indices]))
        return pooled_rank_correlation(resamples)

    low, high = interval(resampled, f"knob {name}")
    n = sum(len(values) for values, _ in groups.values())
    total = Statistic(pooled_rank_correlation(list(groups.values())), low, high, n, len(rows) - n)
    return total, {task: pooled_rank_correlation([group]) for task, group in groups.items()}


def rank_correlations(frame: pd.DataFrame, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Spearman of every pair of measures, over the samples that both rate, and their number."""
    shape = (len(names), len(names))
    rho, num_samples = np.ones(shape), np.zeros(shape, dtype=int)
    for row, a in enumerate(names):
        for column, b in enumerate(names):
            both = frame[[a, b]].dropna() if a != b else frame[[a]].dropna()
            num_samples[row, column] = len(both)
            if a != b:
                rho[row, column] = pooled_rank_correlation(
                    [(both[a].to_numpy(), both[b].to_numpy())]
                )
    return rho, num_samples


def confusion(frame: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    """How many samples the two measures put into each pair of strata."""
    order = ["easy", "medium", "hard", "unsolved"]
    counts = pd.crosstab(frame[f"{a}_stratum"].astype(str), frame[f"{b}_stratum"].astype(str))
    return counts.reindex(index=order, columns=order, fill_value=0)


def agreement(counts: pd.DataFrame) -> dict[str, float]:
    """Share of samples in the same stratum, the share expected by chance, and Cohen's kappa."""
    share_SS = counts.to_numpy() / counts.to_numpy().sum()
    same = float(np.trace(share_SS))
    by_chance = float((share_SS.sum(axis=0) * share_SS.sum(axis=1)).sum())
    return {"same": same, "by_chance": by_chance, "kappa": (same - by_chance) / (1 - by_chance)}
