"""Answers that early stopping asks on the first paper's stratum mix, as a share of the full grid.

    python benchmarks/probe_cost.py --only simulation

The paper prints how many samples fall into each stratum, and nothing of how often a solved sample
is answered rightly nor of how many easy samples ever fail. Both decide the cost, so they are not
assumed once but varied, each table being climbed by the very scheduler that the probe uses:

* `right`: chance that a draw is right at a ratio that passes. The real tables have every value;
  1.0 is the least cost there can be, and the ratios below 0.5 are nearly failures.
* `easy fails`: share of the easy samples that fail at 0.7, 0.8 or 0.9; the others never fail.

METHODS' "about an eighth", and launch/plan.py, take easy samples never to fail.
"""

from typing import Any

import numpy as np

from difftrain.config.difficulty import PismConfig
from difftrain.difficulty import pism
from difftrain.plan.probe_cost import PAPER_STRATA
from difftrain.probe.schedule import next_draws
from difftrain.records import Measure, Stratum

RIGHT = (1.0, 0.8, 0.6, 0.5, 0.4, 0.3)
EASY_FAILS = (0.0, 0.5, 1.0)
RATIOS = DRAWS = 10
TABLES = 600
FIRST_FAILING = {
    Stratum.unsolved: (0,),
    Stratum.hard: (1, 2, 3, 4),
    Stratum.medium: (5, 6),
    Stratum.easy: (7, 8, 9),
}


def table(rng: np.random.Generator, fails: int, right: float) -> np.ndarray:
    """A full R x K table whose first failing row is `fails` (R: none); rows above it are drawn."""
    drawn_RK = rng.random((RATIOS, DRAWS)) < right
    for row in range(fails):
        while not drawn_RK[row].any():
            drawn_RK[row] = rng.random(DRAWS) < right
    drawn_RK[fails : fails + 1] = False
    return drawn_RK.astype(np.int8)


def cost(known_RK: np.ndarray) -> int:
    """Answers asked until the label is settled; raises AssertionError where it is another label."""
    table_RK, asked = np.full_like(known_RK, -1), 0
    while cells := next_draws(table_RK):
        for row, draw in cells:
            table_RK[row, draw] = known_RK[row, draw]
            asked += 1
    ratio_R = np.arange(RATIOS) / RATIOS
    if pism.failure_ratio(table_RK, ratio_R) != pism.failure_ratio(known_RK, ratio_R):
        raise AssertionError("early stopping changed a label")
    return asked


def costs(right: float, easy_fails: float) -> dict[Stratum, float]:
    """Mean answers asked of a sample of each stratum."""
    rng, found = np.random.default_rng(0), {}
    for stratum, failing in FIRST_FAILING.items():
        asked = []
        for _ in range(TABLES):
            never = stratum is Stratum.easy and rng.random() >= easy_fails
            fails = RATIOS if never else int(rng.choice(failing))
            known = table(rng, fails, right)
            value = pism.failure_ratio(known, np.arange(RATIOS) / RATIOS)
            config = PismConfig()
            limits = (config.hard_max, config.easy_min, config.easy_inclusive)
            if pism.stratum(value, *limits) is not stratum:
                raise AssertionError(f"a table of {stratum} is not {stratum}")
            asked.append(cost(known))
        found[stratum] = float(np.mean(asked))
    return found


def shares() -> dict[str, Any]:
    """Share of the grid asked of the paper's 47,766 samples under each pair of assumptions."""
    mix = {
        stratum: sum(each[stratum] for each in PAPER_STRATA[Measure.pism].values())
        for stratum in Stratum
    }
    found: dict[str, Any] = {"samples": sum(mix.values()), "draws_of_the_grid": RATIOS * DRAWS}
    for right in RIGHT:
        row = {}
        for easy_fails in EASY_FAILS:
            mean = costs(right, easy_fails)
            asked = sum(mean[stratum] * number for stratum, number in mix.items())
            share = asked / sum(mix.values()) / (RATIOS * DRAWS)
            row[f"easy fails {easy_fails:.0%}"] = round(share, 4)
        found[f"right {right:.0%}"] = row
    return found
