"""PISM: how much of the image can be hidden before the model fails (Qi et al. 2026, Eq. 1 to 3).

Axes: R mask ratios, rising from 0; K draws at each. A table cell is 1 correct, 0 not, -1 not drawn.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from difftrain.difficulty import EPS
from difftrain.records import Stratum


def min_correct(
    draws: int, tau: float = 0.1, guess_rate: float | None = None, alpha: float = 0.05
) -> int:
    """The fewest correct of `draws` responses with which a ratio passes.

    Their mean must not be below tau (Eq. 3). With a guess rate, as many must also have probability
    alpha at most under guessing (one-sided binomial). draws + 1 means that no number is enough.
    """
    minimum = math.ceil(draws * tau - EPS)
    if guess_rate is None:
        return minimum
    tail = 0.0
    for correct in range(draws, -1, -1):
        ways = math.comb(draws, correct)
        tail += ways * guess_rate**correct * (1 - guess_rate) ** (draws - correct)
        if tail > alpha + EPS:
            return max(minimum, correct + 1)
    return minimum


def guess_rate(text_only_M: Iterable[int]) -> float:
    """The accuracy of guessing without the image, Laplace-smoothed: (correct + 1) / (M + 2).

    Raises ValueError if there is no verdict or one is missing (-1).
    """
    verdicts = [int(verdict) for verdict in text_only_M]
    if not verdicts or any(verdict not in (0, 1) for verdict in verdicts):
        raise ValueError(f"expected M text-only verdicts of 0 or 1, not {verdicts}")
    return (sum(verdicts) + 1) / (len(verdicts) + 2)


def _check_table(correct_RK: np.ndarray, ratio_R: Sequence[float] | np.ndarray) -> np.ndarray:
    """The table as int8. Raises ValueError unless it is R x K, with one rising ratio per row."""
    table_RK, ratios = np.asarray(correct_RK), np.asarray(ratio_R, dtype=float)
    if table_RK.ndim != 2 or len(table_RK) != len(ratios) or table_RK.size == 0:
        raise ValueError(
            f"a table of shape {table_RK.shape} does not fit {len(ratios)} ratios (expected R x K)"
        )
    if not (np.diff(ratios) > 0).all():
        raise ValueError(f"ratios must rise: {ratios.tolist()}")
    return table_RK.astype(np.int8)


def undecided_rows(table_RK: np.ndarray, minimum: int) -> tuple[list[int], int | None]:
    """The rows that draws can still decide, up to the first row that certainly fails; and that row,
    or None if no row certainly fails.
    """
    correct_R = (table_RK == 1).sum(axis=1)
    possible_R = correct_R + (table_RK == -1).sum(axis=1)
    failed = next(iter(np.flatnonzero(possible_R < minimum).tolist()), None)
    return np.flatnonzero(correct_R[:failed] < minimum).tolist(), failed


def failure_ratio(
    correct_RK: np.ndarray,
    ratio_R: Sequence[float] | np.ndarray,
    tau: float = 0.1,
    minimum: int | None = None,
) -> float | None:
    """Smallest mask ratio at which accuracy over K draws falls below tau (Eq. 3).

    None if it never does. `minimum` replaces tau by the number of correct draws with which a ratio
    passes (`min_correct`). An early-stopped table gives the same as the full grid. Raises
    ValueError if the table does not settle it, or if the shapes do not fit.
    """
    table_RK = _check_table(correct_RK, ratio_R)
    if minimum is None:
        minimum = min_correct(table_RK.shape[1], tau)
    undecided, failed = undecided_rows(table_RK, minimum)
    if undecided:
        ratio, draws = ratio_R[undecided[0]], table_RK[undecided[0]].tolist()
        raise ValueError(f"the table does not settle ratio {ratio:g}: {draws}")
    return None if failed is None else float(ratio_R[failed])


def stratum(
    failure_ratio: float | None,
    hard_max: float = 0.4,
    easy_min: float = 0.7,
    easy_inclusive: bool = True,
) -> Stratum:
    """The stratum of a failure ratio; None (never fails) is easy (Qi et al. 2026, section 3.1).

    `easy_inclusive` makes exactly easy_min easy (text); false medium (Table A, Fig. 1).
    """
    if failure_ratio is None:
        return Stratum.easy
    if failure_ratio <= EPS:
        return Stratum.unsolved
    if failure_ratio <= hard_max + EPS:
        return Stratum.hard
    edge = easy_min - EPS if easy_inclusive else easy_min + EPS
    return Stratum.easy if failure_ratio >= edge else Stratum.medium


def settled_stratum(
    correct_RK: np.ndarray,
    ratio_R: Sequence[float] | np.ndarray,
    minimum: int,
    hard_max: float = 0.4,
    easy_min: float = 0.7,
    easy_inclusive: bool = True,
) -> Stratum | None:
    """The stratum that every completion of the table gives; None if draws can still decide it."""
    undecided, failed = undecided_rows(_check_table(correct_RK, ratio_R), minimum)
    ratios = [None if row is None else float(ratio_R[row]) for row in (*undecided, failed)]
    strata = {stratum(ratio, hard_max, easy_min, easy_inclusive) for ratio in ratios}
    return strata.pop() if len(strata) == 1 else None
