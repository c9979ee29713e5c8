"""What the drawn truth says of each measure: separation, rank with the knob, agreement.

Axes: N samples, S resamples. None becomes not-a-number and is left out, and counted, except that
PISM's None (no ratio fails) stands above its last ratio, as 1.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from metrology_gather import Gathered
from scipy import stats

from difftrain import seeds
from difftrain.records import AnswerKind, Sample, Score, Verdict, View
from difftrain.select import rap
from difftrain.shapes.scenes import GRID, LETTERS, LEVELS

RESAMPLES = 2000
MASKS = {"pism": "pixels", "pism_rectangle": "rectangle", "pism_patches": "patches"}
TITLES = {
    "pism": "PISM (pixels)",
    "pism_chance": "PISM, chance-aware",
    "pism_rectangle": "PISM (rectangle)",
    "pism_patches": "PISM (patches)",
    "cmab": "CMAB",
    "cde": "CDE",
    "ace": "ACE",
    "drm": "DRM",
}
TOWARDS_PICTURE = {
    "pism": -1,
    "pism_chance": -1,
    "pism_rectangle": -1,
    "pism_patches": -1,
    "cmab": 1,
    "cde": 1,
    "ace": -1,
    "drm": 1,
}
"""The sign that makes a high value mean `needs the picture`, from each method's own words."""
POSSIBLE = {
    "verify": 2,
    "count_colour": 6,
    "count": 10,
    "locate": GRID * GRID,
    "count_plus": 17,
    "bar": 2 * LEVELS - 1,
    "prior": 17,
    "noise": 900,
}
"""Answers a question can have, by family, where options do not say so."""
GROUPS = {"2": (2, 2), "4": (4, 4), "6 to 10": (5, 10), "15 to 19": (11, 19), "more": (20, 10**9)}


def possible(sample: Sample) -> int:
    """How many different answers a sample's question can have."""
    if sample.answer_kind is AnswerKind.choice:
        return len(sample.options)
    if sample.task == "read":
        return len(LETTERS) ** len(sample.answer)
    return POSSIBLE[sample.task]


def group_of(number: int) -> str:
    """The answer-space group of a number of answers."""
    return next(name for name, (low, high) in GROUPS.items() if low <= number <= high)


def columns(scores: Sequence[Score], name: str, measure: str) -> dict[str, dict[str, Any]]:
    """Value and stratum of each sample by one measure, as two columns."""
    own = [each for each in scores if each.measure == measure]
    top = 1.0 if measure == "pism" else np.nan
    return {
        name: {each.sample_id: top if each.value is None else each.value for each in own},
        f"{name}_stratum": {each.sample_id: each.stratum for each in own},
    }


def table(found: dict[str, Gathered]) -> pd.DataFrame:
    """One row a sample: its truth, each measure's value and stratum, and what RAP decides."""
    last = found["and chance"]
    told: dict[str, dict[str, Any]] = {}
    told |= columns(last.scores, "pism_chance", "pism") | columns(last.unguessed, "pism", "pism")
    for kind in ("rectangle", "patches"):
        told |= columns(found[kind].scores, f"pism_{kind}", "pism")
    for measure in ("cmab", "cde", "ace", "drm"):
        told |= columns(last.scores, measure, measure)
    truth = {
        "task": {each.sample_id: each.task for each in last.samples},
        "needs_picture": {each.sample_id: each.needs_picture for each in last.samples},
        "knob": {each.sample_id: each.knob for each in last.samples},
        "answers": {each.sample_id: possible(each) for each in last.samples},
    }
    frame = pd.DataFrame({**truth, **told})
    frame["group"] = frame["answers"].map(group_of)
    truths = {True: "needs the picture", False: "prior"}
    frame["truth"] = [truths.get(each, "noise") for each in frame["needs_picture"]]
    frame["solved"] = frame["pism_stratum"] != "unsolved"
    first = [each for each in last.rollouts if each.view is View.whole and each.draw == 0]
    frame["length"] = pd.Series({each.sample_id: each.tokens for each in first})
    draws = last.config.probe.rollouts
    blind = pd.Series(0.0, index=frame.index)
    for each in last.rollouts:
        if each.view is View.text_only and each.draw < draws and each.verdict is Verdict.right:
            blind[each.sample_id] += 1
    frame["blind"] = blind / draws
    frame["cde_kept"] = frame["cde"] > last.config.difficulty.cde.lambda_c + 1e-9
    frame["ace_kept"] = ~(frame["ace"] > np.log(last.config.difficulty.ace.lambda_a))
    picks = rap.choose(
        list(frame.index), list(frame["cde"]), biases(frame), list(frame["drm"]), draws
    )
    frame["rap"] = frame.index.isin([each.sample_id for each in picks])
    return frame


def biases(frame: pd.DataFrame) -> list[float | None]:
    """ACE's values with None where there is none."""
    return [None if np.isnan(each) else float(each) for each in frame["ace"]]


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
    """The 95 % percentile interval of a statistic of redrawn samples."""
    rng = np.random.Generator(np.random.PCG64(seeds.derive(0, "metrology", purpose)))
    low, high = np.nanpercentile([draw(rng) for _ in range(RESAMPLES)], (2.5, 97.5))
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class Figure:
    """A statistic with its 95 % interval, on `n` samples; `left_out` had no value."""

    value: float
    low: float
    high: float
    n: int
    left_out: int


def separation(frame: pd.DataFrame, name: str, solved: bool) -> Figure:
    """AUC of needs-picture over prior samples; `solved` leaves out what was never answered right.

    Raises ValueError if one side is empty.
    """
    asked = frame[frame["truth"] != "noise"]
    asked = asked[asked["solved"]] if solved else asked
    known = asked.dropna(subset=[name])
    value = TOWARDS_PICTURE[name] * known[name].to_numpy(dtype=float)
    needs = (known["truth"] == "needs the picture").to_numpy()
    one, two = value[needs], value[~needs]
    low, high = interval(
        lambda rng: auc(rng.choice(one, len(one)), rng.choice(two, len(two))), f"auc {name}"
    )
    return Figure(auc(one, two), low, high, len(known), len(asked) - len(known))


def within_family(value_N: np.ndarray, knob_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of both inside one family, centred and in units of the family's size."""
    size = len(value_N)
    return tuple((stats.rankdata(each) - (size + 1) / 2) / size for each in (value_N, knob_N))  # pyright: ignore[reportReturnType]


def pooled(families: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """Correlation of the within-family ranks of all families; nan where a side is constant.

    A family in which the measure is constant weighs as one without any relation.
    """
    ranks = [within_family(*each) for each in families]
    value_N, knob_N = (np.concatenate(side) for side in zip(*ranks, strict=True))
    scale = np.sqrt((value_N**2).sum() * (knob_N**2).sum())
    return float((value_N * knob_N).sum() / scale) if scale else float("nan")


def with_knob(frame: pd.DataFrame, name: str) -> tuple[Figure, dict[str, float]]:
    """Spearman with the knob pooled within families, and each family's own."""
    asked = frame[frame["truth"] == "needs the picture"]
    known = asked.dropna(subset=[name])
    groups = {
        str(task): (own[name].to_numpy(dtype=float), own["knob"].to_numpy(dtype=float))
        for task, own in known.groupby("task")
        if len(own) > 2
    }

    def redrawn(rng: np.random.Generator) -> float:
        again = []
        for value_N, knob_N in groups.values():
            drawn = rng.integers(len(value_N), size=len(value_N))
            again.append((value_N[drawn], knob_N[drawn]))
        return pooled(again)

    low, high = interval(redrawn, f"knob {name}")
    size = sum(len(each) for each, _ in groups.values())
    whole = Figure(pooled(list(groups.values())), low, high, size, len(asked) - size)
    return whole, {task: pooled([each]) for task, each in groups.items()}


def rank_correlations(frame: pd.DataFrame, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Spearman of every pair over the samples that both place, and how many those are."""
    rho, size = np.ones((len(names), len(names))), np.zeros((len(names), len(names)), dtype=int)
    for row, one in enumerate(names):
        for column, two in enumerate(names):
            both = frame[[one, two]].dropna() if one != two else frame[[one]].dropna()
            size[row, column] = len(both)
            if one != two:
                rho[row, column] = pooled([(both[one].to_numpy(), both[two].to_numpy())])
    return rho, size


def confusion(frame: pd.DataFrame, one: str, two: str) -> pd.DataFrame:
    """How many samples the two measures put into each pair of strata."""
    order = ["easy", "medium", "hard", "unsolved"]
    found = pd.crosstab(frame[f"{one}_stratum"].astype(str), frame[f"{two}_stratum"].astype(str))
    return found.reindex(index=order, columns=order, fill_value=0)


def agreement(counts: pd.DataFrame) -> dict[str, float]:
    """Share of samples on the diagonal, the share that luck gives, and Cohen's kappa."""
    share_SS = counts.to_numpy() / counts.to_numpy().sum()
    same = float(np.trace(share_SS))
    luck = float((share_SS.sum(axis=0) * share_SS.sum(axis=1)).sum())
    return {"same": same, "by_luck": luck, "kappa": (same - luck) / (1 - luck)}
