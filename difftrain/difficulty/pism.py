"""PISM: how much of the picture can be hidden before the answer is lost (P, Eq. 1 to 3).

Axes: R mask ratios, rising from 0; K draws at each. A table cell is 1 right, 0 not, -1 not drawn.
"""

from enum import StrEnum

import numpy as np

from difftrain.config.difficulty import EPS, PismConfig
from difftrain.records import Stratum


class Row(StrEnum):
    """What a row of the table says so far."""

    passed = "passed"
    failed = "failed"
    open = "open"


def state(correct_K: np.ndarray, least: int) -> Row:
    """Whether the row certainly holds at least `least` right answers, certainly fewer, or open."""
    right, undrawn = int((correct_K == 1).sum()), int((correct_K == -1).sum())
    if right >= least:
        return Row.passed
    return Row.open if right + undrawn >= least else Row.failed


def failure_ratio(
    correct_RK: np.ndarray, ratio_R: np.ndarray, tau: float = 0.1, least: int | None = None
) -> float | None:
    """Smallest mask ratio at which accuracy over K draws falls below tau (P, Eq. 3).

    None if it never does. `least` says in place of tau how many right answers pass a row, as the
    chance-aware measure does (PismConfig.least). An early-stopped table gives what the full grid
    gives. Raises ValueError if the table does not settle it, or if the shapes do not fit.
    """
    table_RK = np.asarray(correct_RK)
    ratios = np.asarray(ratio_R, dtype=float)
    if table_RK.ndim != 2 or len(table_RK) != len(ratios) or table_RK.size == 0:
        raise ValueError(
            f"a table of shape {table_RK.shape} does not fit {len(ratios)} ratios (want R x K)"
        )
    if not (np.diff(ratios) > 0).all():
        raise ValueError(f"ratios must rise: {ratios.tolist()}")
    if least is None:
        least = PismConfig(tau=tau).least(table_RK.shape[1])
    for ratio, correct_K in zip(ratios, table_RK.astype(np.int8), strict=True):
        found = state(correct_K, least)
        if found is Row.failed:
            return float(ratio)
        if found is Row.open:
            raise ValueError(f"the table does not settle ratio {ratio:g}: {correct_K.tolist()}")
    return None


def stratum(
    failure_ratio: float | None,
    hard_upto: float = 0.4,
    easy_from: float = 0.7,
    easy_inclusive: bool = True,
) -> Stratum:
    """The stratum of a failure ratio; None (never fails) is easy (P, section 3.1).

    `easy_inclusive` puts exactly easy_from into easy (text); false into medium (Table A, Fig. 1).
    """
    if failure_ratio is None:
        return Stratum.easy
    if failure_ratio <= EPS:
        return Stratum.unsolved
    if failure_ratio <= hard_upto + EPS:
        return Stratum.hard
    edge = easy_from - EPS if easy_inclusive else easy_from + EPS
    return Stratum.easy if failure_ratio >= edge else Stratum.medium
