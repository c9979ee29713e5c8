"""PISM (progressive image semantic masking): how much can be hidden before the model fails?

Source: Qi et al. 2026, Eq. 1 to 3. Axes: R mask ratios (hidden shares of the image), rising from 0;
K draws (responses) at every ratio. A cell is 1 if the draw is correct, 0 if not, -1 if not drawn.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from difftrain.config.difficulty import (
    ChanceCorrection,
    DifficultyConfig,
    PismConfig,
    ProbeConfig,
    Until,
)
from difftrain.difficulty import EPS
from difftrain.difficulty.definition import Definition, ProbeDraws
from difftrain.difficulty.evidence import Evidence
from difftrain.records import Stratum


def min_correct(
    num_draws: int, tau: float = 0.1, guess_rate: float | None = None, alpha: float = 0.05
) -> int:
    """How many of `num_draws` responses must be correct for a ratio to pass.

    The correct share must be at least tau (Eq. 3). With a guess rate, guessing must also reach the
    result with probability at most alpha (one-sided binomial). num_draws + 1: no ratio can pass.
    """
    minimum = math.ceil(num_draws * tau - EPS)
    if guess_rate is None:
        return minimum
    tail_probability = 0.0
    for correct in range(num_draws, -1, -1):
        ways = math.comb(num_draws, correct)
        tail_probability += ways * guess_rate**correct * (1 - guess_rate) ** (num_draws - correct)
        if tail_probability > alpha + EPS:
            return max(minimum, correct + 1)
    return minimum


def guess_rate(text_only_M: Iterable[int]) -> float:
    """The accuracy of guessing without the image, Laplace-smoothed: (correct + 1) / (M + 2).

    Raises ValueError if there is no verdict or a verdict is missing (-1).
    """
    verdicts = [int(verdict) for verdict in text_only_M]
    if not verdicts or any(verdict not in (0, 1) for verdict in verdicts):
        raise ValueError(f"expected M text-only verdicts of 0 or 1, not {verdicts}")
    return (sum(verdicts) + 1) / (len(verdicts) + 2)


def _checked_table(correct_RK: np.ndarray, ratio_R: Sequence[float] | np.ndarray) -> np.ndarray:
    """The table as int8. Raises ValueError unless it is R x K, with one rising ratio per row."""
    table_RK, ratios = np.asarray(correct_RK), np.asarray(ratio_R, dtype=float)
    if table_RK.ndim != 2 or len(table_RK) != len(ratios) or table_RK.size == 0:
        problem = f"a table of shape {table_RK.shape} does not fit {len(ratios)} ratios"
        raise ValueError(f"{problem} (expected R x K)")
    if not (np.diff(ratios) > 0).all():
        raise ValueError(f"ratios must rise: {ratios.tolist()}")
    return table_RK.astype(np.int8)


def undecided_rows(table_RK: np.ndarray, minimum: int) -> tuple[list[int], int | None]:
    """(undecided rows, first row that certainly fails or None). An undecided row can still pass or
    fail, depending on its missing draws. Undecided rows after the failing row are left out.
    """
    correct_R = (table_RK == 1).sum(axis=1)
    possible_R = correct_R + (table_RK == -1).sum(axis=1)
    failing_row = next(iter(np.flatnonzero(possible_R < minimum).tolist()), None)
    return np.flatnonzero(correct_R[:failing_row] < minimum).tolist(), failing_row


def failure_ratio(
    correct_RK: np.ndarray,
    ratio_R: Sequence[float] | np.ndarray,
    tau: float = 0.1,
    minimum: int | None = None,
) -> float | None:
    """Smallest mask ratio at which accuracy over K draws falls below tau (Eq. 3).

    None if no ratio fails. `minimum`, if given, replaces tau: a ratio passes with that many correct
    draws (see `min_correct`). Missing draws are allowed if they cannot change the result. Otherwise
    raises ValueError, and also if the shapes do not fit.
    """
    table_RK = _checked_table(correct_RK, ratio_R)
    if minimum is None:
        minimum = min_correct(table_RK.shape[1], tau)
    undecided, failing_row = undecided_rows(table_RK, minimum)
    if undecided:
        ratio, draws = ratio_R[undecided[0]], table_RK[undecided[0]].tolist()
        raise ValueError(f"the table does not settle ratio {ratio:g}: {draws}")
    return None if failing_row is None else float(ratio_R[failing_row])


def stratum(
    failure_ratio: float | None,
    hard_max: float = 0.4,
    easy_min: float = 0.7,
    easy_inclusive: bool = True,
) -> Stratum:
    """The stratum (Qi et al. 2026, section 3.1) of a failure ratio; None (never fails) is easy.

    A ratio equal to easy_min is easy if `easy_inclusive` (their text), else medium (their Table A).
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
    """The stratum if the missing draws can no longer change it, else None."""
    undecided, failing_row = undecided_rows(_checked_table(correct_RK, ratio_R), minimum)
    rows = (*undecided, failing_row)  # any of these may turn out to be the first that fails
    ratios = [None if row is None else float(ratio_R[row]) for row in rows]
    strata = {stratum(ratio, hard_max, easy_min, easy_inclusive) for ratio in ratios}
    return strata.pop() if len(strata) == 1 else None


def minimums(config: PismConfig, num_draws: int, text_only_M: Iterable[int]) -> list[int]:
    """How many correct draws pass a ratio: without and, if it is on, with chance correction."""
    rates = (
        [None]
        if config.chance_correction is ChanceCorrection.none
        else [None, guess_rate(text_only_M)]
    )
    return [min_correct(num_draws, config.tau, rate, config.alpha) for rate in rates]


def score(
    evidence: Evidence, config: DifficultyConfig, probe: ProbeConfig
) -> tuple[float | None, Stratum | None]:
    """The failure ratio (None: never fails) and stratum of one sample.

    With probe.until=stratum the value is also None if the draws determine only the stratum. Raises
    ValueError if draws are missing.
    """
    pism, table_RK = config.pism, evidence.correct_RK
    ratio_R = np.array(probe.mask_percents) / 100
    minimum = minimums(pism, probe.draws, evidence.text_only_M)[-1]
    limits = (pism.hard_max, pism.easy_min, pism.easy_inclusive)
    settled = settled_stratum(table_RK, ratio_R, minimum, *limits)
    value = None
    needs_ratio = probe.until is not Until.stratum or settled is None
    undecided, _ = undecided_rows(table_RK, minimum)
    if needs_ratio or not undecided:
        value = failure_ratio(table_RK, ratio_R, minimum=minimum)
    return value, settled


def _draws(config: DifficultyConfig, probe: ProbeConfig) -> ProbeDraws:
    """Draws without the image for the correction; probe/schedule.py decides on masked ones."""
    is_corrected = config.pism.chance_correction is ChanceCorrection.text_only
    return ProbeDraws(text_only=probe.cde_rollouts * is_corrected)


MEASURE = Definition(
    meaning="the share of the image that must be masked before the model fails",
    score=score,
    has_strata=True,
    draws=_draws,
)
