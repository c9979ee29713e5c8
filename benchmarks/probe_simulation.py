"""Simulate what share of a full probe's responses early stopping generates for Qi et al. 2026.

    python benchmarks/probe_cost.py --only simulation

A probe generates K = 10 responses (draws) to a sample's question at each of R = 10 mask ratios, the
share of the image that is masked. The sample's R x K table says which draws are correct. A ratio
passes if at least one of its draws is correct; otherwise it fails. The smallest ratio that fails is
the failure ratio, which decides the sample's stratum: easy, medium, hard or unsolved. The full grid
is all R x K draws; early stopping draws only until the label (failure ratio or stratum) is certain.

Qi et al. 2026 print how many samples are in each stratum, but not their tables. So this simulation
generates random tables of each stratum and lets the probe's own schedule draw from them. The cost
depends on two numbers that the paper does not print. The simulation varies both:

* `correct`: the probability that a draw is correct at a ratio that passes. 1.0 gives the lowest
  cost, because the first draw settles each ratio that passes; 0.3 takes about three draws.
* `easy fails`: the share of easy samples that fail at ratio 0.7, 0.8 or 0.9. The remaining easy
  samples never fail.
"""

from typing import Any

import numpy as np

from difftrain.config.difficulty import PismConfig, Until
from difftrain.difficulty import pism
from difftrain.plan import PAPER_STRATA
from difftrain.probe.schedule import next_draws
from difftrain.records import Measure, Stratum

CORRECT_PROBABILITIES = (1.0, 0.8, 0.6, 0.5, 0.4, 0.3)
EASY_FAIL_SHARES = (0.0, 0.5, 1.0)
NUM_RATIOS = NUM_DRAWS = 10
TABLES_PER_STRATUM = 600
RATIO_R = np.arange(NUM_RATIOS) / NUM_RATIOS
FIRST_FAILING_ROWS = {  # by the strata limits of Qi et al. 2026; row 3 is the mask ratio 0.3
    Stratum.unsolved: (0,),
    Stratum.hard: (1, 2, 3, 4),
    Stratum.medium: (5, 6),
    Stratum.easy: (7, 8, 9),
}


def random_table(rng: np.random.Generator, first_failing_row: int, p_correct: float) -> np.ndarray:
    """A full R x K table of 0 and 1 (correct) that first fails in this row; R: no row fails."""
    correct_RK = rng.random((NUM_RATIOS, NUM_DRAWS)) < p_correct
    for row in range(first_failing_row):
        while not correct_RK[row].any():
            correct_RK[row] = rng.random(NUM_DRAWS) < p_correct
    correct_RK[first_failing_row : first_failing_row + 1] = False
    return correct_RK.astype(np.int8)


def count_draws(full_RK: np.ndarray, until: Until) -> int:
    """How many draws of a full table are taken until the failure ratio or stratum is certain.

    Raises AssertionError if early stopping and the full table give different results.
    """
    drawn_RK, num_draws = np.full_like(full_RK, -1), 0  # -1: not drawn
    while cells := next_draws(drawn_RK, until=until):
        for row, draw in cells:
            drawn_RK[row, draw] = full_RK[row, draw]
            num_draws += 1
    ratio = pism.failure_ratio(full_RK, RATIO_R)  # PISM: Qi et al.'s measure of difficulty
    if until is Until.ratio:
        same = pism.failure_ratio(drawn_RK, RATIO_R) == ratio
    else:  # one correct draw is enough for a ratio to pass
        same = pism.settled_stratum(drawn_RK, RATIO_R, minimum=1) is pism.stratum(ratio)
    if not same:
        raise AssertionError("early stopping changed a label")
    return num_draws


def mean_draws(p_correct: float, easy_fail_share: float, until: Until) -> dict[Stratum, float]:
    """Mean number of draws per sample of each stratum."""
    rng, means, config = np.random.default_rng(0), {}, PismConfig()
    # The defaults are the strata limits of Qi et al. 2026.
    limits = (config.hard_max, config.easy_min, config.easy_inclusive)
    for stratum, rows in FIRST_FAILING_ROWS.items():
        draw_counts = []
        for _ in range(TABLES_PER_STRATUM):
            never_fails = stratum is Stratum.easy and rng.random() >= easy_fail_share
            first_failing_row = NUM_RATIOS if never_fails else int(rng.choice(rows))
            full_RK = random_table(rng, first_failing_row, p_correct)
            if pism.stratum(pism.failure_ratio(full_RK, RATIO_R), *limits) is not stratum:
                raise AssertionError(f"a table generated as {stratum} has another stratum")
            draw_counts.append(count_draws(full_RK, until))
        means[stratum] = float(np.mean(draw_counts))
    return means


def shares() -> dict[str, Any]:
    """Share of the full grid that is drawn for Qi et al.'s samples, for all varied numbers."""
    # One tuple for each of the paper's two task sets: its easy, medium, hard, unsolved samples.
    sizes = PAPER_STRATA[Measure.pism].values()
    stratum_sizes = dict(zip(Stratum, map(sum, zip(*sizes, strict=True)), strict=True))
    num_samples, grid_size = sum(stratum_sizes.values()), NUM_RATIOS * NUM_DRAWS
    result: dict[str, Any] = {"samples": num_samples, "draws_of_the_grid": grid_size}
    for until in (Until.ratio, Until.stratum):
        rows = {}
        for p_correct in CORRECT_PROBABILITIES:
            row = {}
            for easy_fail_share in EASY_FAIL_SHARES:
                means = mean_draws(p_correct, easy_fail_share, until)
                draws = sum(means[stratum] * size for stratum, size in stratum_sizes.items())
                row[f"easy fails {easy_fail_share:.0%}"] = round(draws / num_samples / grid_size, 4)
            rows[f"correct {p_correct:.0%}"] = row
        result[f"until {until}"] = rows
    return result
