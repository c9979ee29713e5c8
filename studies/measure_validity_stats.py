"""Each measure against the drawn truth: separation, rank with the difficulty, agreement. Pure.

Axes: N samples, S strata. A missing value is NaN in the table; it is left out and counted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from difftrain import seeds

RESAMPLES = 2000
MASKS = {"pism": "pixels", "pism_rectangle": "rectangle", "pism_patches": "patches"}
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
TOWARDS_IMAGE = {
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
"""The sign that makes a high value mean `needs the image`, as each method defines it."""
GROUPS = {"2": (2, 2), "4": (4, 4), "6 to 10": (5, 10), "15 to 19": (11, 19), "more": (20, 10**9)}
FLAWS = [
    "",
    "The model was taught two flaws on purpose (tools/pretraining_data.py): to give up on masked",
    "images and to leave out tags in three families. The prior family has neither. So PISM's",
    "figure here is partly built in, and prior's answers, correct with and without the image,",
    "keep its D at 0. CDE's figure was looked at when the weights were chosen: earlier weights,",
    "which could not answer most families at all, gave 0.59. It shows what CDE does for a model",
    "that can answer, not how often models can.",
]
"""What a reader must know about the shipped weights."""


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """The probability that a positive lies above a negative, ties counting half.

    Raises ValueError if either side is empty.
    """
    if not len(positive) or not len(negative):
        raise ValueError("an AUC needs samples on both sides")
    ranks = stats.rankdata(np.concatenate([positive, negative]))[: len(positive)].sum()
    size = len(positive)
    return float((ranks - size * (size + 1) / 2) / (size * len(negative)))


def interval(draw: Callable[[np.random.Generator], float], purpose: str) -> tuple[float, float]:
    """The 95 % percentile interval of a statistic over bootstrap resamples."""
    rng = np.random.Generator(np.random.PCG64(seeds.derive(0, "metrology", purpose)))
    low, high = np.nanpercentile([draw(rng) for _ in range(RESAMPLES)], (2.5, 97.5))
    return float(low), float(high)


def resampled_auc(rng: np.random.Generator, positive: np.ndarray, negative: np.ndarray) -> float:
    """The AUC of one bootstrap resample of each side."""
    return auc(rng.choice(positive, len(positive)), rng.choice(negative, len(negative)))


@dataclass(frozen=True, slots=True)
class Figure:
    """A statistic with its 95 % interval, on `n` samples; `left_out` had no value."""

    value: float
    low: float
    high: float
    n: int
    left_out: int


def separation(frame: pd.DataFrame, name: str, solved: bool) -> Figure:
    """AUC of needs-image over prior samples; `solved` leaves out those never answered correctly.

    Raises ValueError if one side is empty.
    """
    rows = frame[frame["truth"] != "noise"]
    rows = rows[rows["solved"]] if solved else rows
    rated = rows.dropna(subset=[name])
    value = TOWARDS_IMAGE[name] * rated[name].to_numpy(dtype=float)
    needs = (rated["truth"] == "needs the image").to_numpy()
    positive, negative = value[needs], value[~needs]
    low, high = interval(lambda rng: resampled_auc(rng, positive, negative), f"auc {name}")
    return Figure(auc(positive, negative), low, high, len(rated), len(rows) - len(rated))


def above_prior(frame: pd.DataFrame, name: str, family: str) -> Figure:
    """AUC of one family over the prior samples. Raises ValueError if one side is empty."""
    rated = frame[frame["task"].isin([family]) | (frame["truth"] == "prior")].dropna(subset=[name])
    value = TOWARDS_IMAGE[name] * rated[name].to_numpy(dtype=float)
    of_family = (rated["task"] == family).to_numpy()
    positive, negative = value[of_family], value[~of_family]
    low, high = interval(lambda rng: resampled_auc(rng, positive, negative), f"{name} {family}")
    return Figure(auc(positive, negative), low, high, len(positive), 0)


def within_family(value_N: np.ndarray, difficulty_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of both inside one family, centered and in units of the family's size."""
    size = len(value_N)
    return tuple((stats.rankdata(x) - (size + 1) / 2) / size for x in (value_N, difficulty_N))  # pyright: ignore[reportReturnType]


def pooled(families: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """Correlation of the within-family ranks of all families; nan where a side is constant.

    A family in which the measure is constant counts as one without relation.
    """
    ranks = [within_family(*family) for family in families]
    value_N, difficulty_N = (np.concatenate(side) for side in zip(*ranks, strict=True))
    scale = np.sqrt((value_N**2).sum() * (difficulty_N**2).sum())
    return float((value_N * difficulty_N).sum() / scale) if scale else float("nan")


def with_difficulty(frame: pd.DataFrame, name: str) -> tuple[Figure, dict[str, float]]:
    """Spearman with the difficulty pooled within families, and each family's own."""
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
            drawn = rng.integers(len(value_N), size=len(value_N))
            resamples.append((value_N[drawn], difficulty_N[drawn]))
        return pooled(resamples)

    low, high = interval(resampled, f"knob {name}")
    size = sum(len(values) for values, _ in groups.values())
    total = Figure(pooled(list(groups.values())), low, high, size, len(rows) - size)
    return total, {task: pooled([group]) for task, group in groups.items()}


def rank_correlations(frame: pd.DataFrame, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Spearman of every pair over the samples that both rate, and how many those are."""
    rho, size = np.ones((len(names), len(names))), np.zeros((len(names), len(names)), dtype=int)
    for row, a in enumerate(names):
        for column, b in enumerate(names):
            both = frame[[a, b]].dropna() if a != b else frame[[a]].dropna()
            size[row, column] = len(both)
            if a != b:
                rho[row, column] = pooled([(both[a].to_numpy(), both[b].to_numpy())])
    return rho, size


def confusion(frame: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    """How many samples the two measures put into each pair of strata."""
    order = ["easy", "medium", "hard", "unsolved"]
    counts = pd.crosstab(frame[f"{a}_stratum"].astype(str), frame[f"{b}_stratum"].astype(str))
    return counts.reindex(index=order, columns=order, fill_value=0)


def agreement(counts: pd.DataFrame) -> dict[str, float]:
    """Share of samples on the diagonal, the share expected by chance, and Cohen's kappa."""
    share_SS = counts.to_numpy() / counts.to_numpy().sum()
    same = float(np.trace(share_SS))
    chance = float((share_SS.sum(axis=0) * share_SS.sum(axis=1)).sum())
    return {"same": same, "by_chance": chance, "kappa": (same - chance) / (1 - chance)}
