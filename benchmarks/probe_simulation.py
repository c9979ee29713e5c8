"""Draws that early stopping takes on Qi et al.'s stratum mix, as a share of the full grid.

    python benchmarks/probe_cost.py --only simulation

The paper prints how many samples fall into each stratum, but neither how often a solved sample is
answered correctly nor how many easy samples ever fail. Both decide the cost, so they are varied;
each simulated table is drawn by the very schedule that the probe uses:

* `correct`: chance that a draw is correct at a ratio that passes. Real tables have every value; 1.0
  is the least possible cost, and below 0.5 a ratio nearly fails.
* `easy fails`: share of the easy samples that fail at 0.7, 0.8 or 0.9; the others never fail.

The "about an eighth" of docs and of `difftrain plan` assumes that easy samples never fail.
"""

from typing import Any

import numpy as np

from difftrain.config.difficulty import PismConfig, Until
from difftrain.difficulty import pism
from difftrain.plan import PAPER_STRATA
from difftrain.probe.schedule import next_draws
from difftrain.records import Measure, Stratum

P_CORRECT = (1.0, 0.8, 0.6, 0.5, 0.4, 0.3)
EASY_FAILS = (0.0, 0.5, 1.0)
RATIOS = DRAWS = 10
TABLES = 600
RATIO_R = np.arange(RATIOS) / RATIOS
FIRST_FAILING = {
    Stratum.unsolved: (0,),
    Stratum.hard: (1, 2, 3, 4),
    Stratum.medium: (5, 6),
    Stratum.easy: (7, 8, 9),
}


def random_table(rng: np.random.Generator, failing: int, p_correct: float) -> np.ndarray:
    """A full R x K table whose first failing row is `failing` (R: none)."""
    correct_RK = rng.random((RATIOS, DRAWS)) < p_correct
    for row in range(failing):
        while not correct_RK[row].any():
            correct_RK[row] = rng.random(DRAWS) < p_correct
    correct_RK[failing : failing + 1] = False
    return correct_RK.astype(np.int8)


def count_draws(full_RK: np.ndarray, until: Until) -> int:
    """Draws until the ratio or its stratum is settled.

    Raises AssertionError where the result is not the full grid's.
    """
    table_RK, draws = np.full_like(full_RK, -1), 0
    while cells := next_draws(table_RK, until=until):
        for row, draw in cells:
            table_RK[row, draw] = full_RK[row, draw]
            draws += 1
    ratio = pism.failure_ratio(full_RK, RATIO_R)
    if until is Until.ratio:
        same = pism.failure_ratio(table_RK, RATIO_R) == ratio
    else:
        same = pism.settled_stratum(table_RK, RATIO_R, minimum=1) is pism.stratum(ratio)
    if not same:
        raise AssertionError("early stopping changed a label")
    return draws


def mean_draws(p_correct: float, easy_fails: float, until: Until) -> dict[Stratum, float]:
    """Mean draws for a sample of each stratum."""
    rng, means, config = np.random.default_rng(0), {}, PismConfig()
    limits = (config.hard_max, config.easy_min, config.easy_inclusive)
    for stratum, rows in FIRST_FAILING.items():
        draws = []
        for _ in range(TABLES):
            never_fails = stratum is Stratum.easy and rng.random() >= easy_fails
            failing = RATIOS if never_fails else int(rng.choice(rows))
            full_RK = random_table(rng, failing, p_correct)
            if pism.stratum(pism.failure_ratio(full_RK, RATIO_R), *limits) is not stratum:
                raise AssertionError(f"a table of {stratum} is not {stratum}")
            draws.append(count_draws(full_RK, until))
        means[stratum] = float(np.mean(draws))
    return means


def shares() -> dict[str, Any]:
    """Share of the grid drawn for the paper's 47,766 samples under each pair of assumptions."""
    counts = {
        stratum: sum(by_stratum[stratum] for by_stratum in PAPER_STRATA[Measure.pism].values())
        for stratum in Stratum
    }
    samples = sum(counts.values())
    result: dict[str, Any] = {"samples": samples, "draws_of_the_grid": RATIOS * DRAWS}
    for until in (Until.ratio, Until.stratum):
        rows = {}
        for p_correct in P_CORRECT:
            row = {}
            for easy_fails in EASY_FAILS:
                means = mean_draws(p_correct, easy_fails, until)
                draws = sum(means[stratum] * count for stratum, count in counts.items())
                row[f"easy fails {easy_fails:.0%}"] = round(draws / samples / RATIOS / DRAWS, 4)
            rows[f"correct {p_correct:.0%}"] = row
        result[f"until {until}"] = rows
    return result
