"""Which draw comes next, so that the full grid's result is reached with few draws. Pure.

Climb from ratio 0; at each ratio draw until it certainly passes or certainly fails; stop at the
first ratio that fails or, where only the stratum is needed, as soon as no draw can change it. Axes:
R mask ratios, K draws; -1 = not drawn.
"""

from collections.abc import Sequence

import numpy as np

from difftrain.config.difficulty import Until
from difftrain.difficulty import pism


def next_draws(
    correct_RK: np.ndarray,
    tau: float = 0.1,
    until: str = "ratio",
    ratio_R: Sequence[float] | np.ndarray | None = None,
    hard_max: float = 0.4,
    easy_min: float = 0.7,
    *,
    easy_inclusive: bool = True,
    minimum: int | None = None,
) -> list[tuple[int, int]]:
    """The (row, draw) that comes next, as a list of one; empty when the result is settled.

    `until` is what has to be settled: the failing ratio ("ratio") or its stratum ("stratum");
    "grid" gives all undrawn cells at once. `ratio_R` defaults to row / R. `minimum` replaces tau by
    the number of correct draws with which a row passes (pism.min_correct); a row that can never
    pass, because that is above K, is not drawn at all. Draws come one at a time, because a second
    one drawn at once may turn out not to be needed. The table is not changed. Raises ValueError for
    anything but an R x K table, and for ratios that do not rise where they are used.
    """
    table_RK = np.asarray(correct_RK)
    if table_RK.ndim != 2 or table_RK.size == 0:
        raise ValueError(f"expected a table of shape R x K, not {table_RK.shape}")
    if until == Until.grid:
        return [(int(row), int(draw)) for row, draw in np.argwhere(table_RK == -1)]
    if minimum is None:
        minimum = pism.min_correct(table_RK.shape[1], tau)
    if Until(until) is Until.stratum:
        ratios = np.arange(len(table_RK)) / len(table_RK) if ratio_R is None else ratio_R
        limits = (hard_max, easy_min, easy_inclusive)
        if pism.settled_stratum(table_RK, ratios, minimum, *limits) is not None:
            return []
    for row, correct_K in enumerate(table_RK):
        passed = pism.passes(correct_K, minimum)
        if passed is None:
            return [(row, int(np.flatnonzero(correct_K == -1)[0]))]
        if not passed:
            return []
    return []
