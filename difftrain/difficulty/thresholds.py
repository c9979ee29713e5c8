"""Proposes thresholds of the strata for another family, from the scores of a pool it answered.

The papers' thresholds were set for Qwen2.5-VL. Another model's balances and failure ratios have
another distribution, so its strata would have other sizes. The proposal keeps the shares of the
strata among solved samples: it puts the thresholds at quantiles of the pool's own scores.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from difftrain.records import Measure, Score, Stratum

PAPER_COUNTS = {Measure.pism: (12_875, 5_933, 3_072), Measure.cmab: (8_923, 9_633, 3_167)}
"""Easy, medium and hard samples (Qi et al. 2026, section 4, perception and reasoning together)."""
PAPER_SHARES = {
    measure: {
        stratum: count / sum(counts)
        for stratum, count in zip((Stratum.easy, Stratum.medium, Stratum.hard), counts, strict=True)
    }
    for measure, counts in PAPER_COUNTS.items()
}
"""Shares of the strata among solved samples."""
MIN_SCORES = 50  # fewer scores do not tell quantiles


def propose(
    scores: Sequence[Score], measure: Measure, shares: Mapping[Stratum, float] | None = None
) -> dict[str, float]:
    """Settings of the measure's section, by name, that give its strata these shares.

    CMAB: hard are the balances in the middle of the distribution, easy those at both ends, half of
    their share at each. PISM: hard are the smallest failure ratios, easy the largest; ratios are
    few, so the shares are met as nearly as they allow. Raises ValueError for another measure, for
    fewer than MIN_SCORES values, and if the values do not leave room for three strata.
    """
    if measure not in PAPER_SHARES:
        raise ValueError(f"{measure}: thresholds are proposed for pism and cmab only")
    rows = [row for row in scores if row.measure is measure and row.stratum is not Stratum.unsolved]
    values = np.array([row.value for row in rows if row.value is not None], dtype=float)
    if len(values) < len(rows):
        missing = len(rows) - len(values)
        advice = "; score with probe.until=ratio" if measure is Measure.pism else ""
        raise ValueError(
            f"{measure}: {missing} of {len(rows)} solved samples have no value{advice}"
        )
    if len(values) < MIN_SCORES:
        raise ValueError(f"{measure}: {len(values)} solved samples, but {MIN_SCORES} are needed")
    shares = shares or PAPER_SHARES[measure]
    easy, hard = shares[Stratum.easy], shares[Stratum.hard]
    if measure is Measure.cmab:
        names = ("easy_below", "hard_min", "hard_max", "easy_above")
        levels = (easy / 2, (1 - hard) / 2, (1 + hard) / 2, 1 - easy / 2)
        limits = dict(zip(names, np.quantile(values, levels).tolist(), strict=True))
    else:
        limits = _ratio_limits(values, easy, hard)
    rounded = {name: float(f"{value:.4g}") for name, value in limits.items()}
    if sorted(set(rounded.values())) != list(rounded.values()):
        raise ValueError(f"{measure}: the scores are too alike for three strata: {rounded}")
    return rounded


def _ratio_limits(values: np.ndarray, easy: float, hard: float) -> dict[str, float]:
    """PISM's thresholds among the failure ratios that occur, nearest to the shares."""
    ratios = np.unique(values)
    if len(ratios) < 3:
        raise ValueError(f"pism: only {len(ratios)} failure ratios occur: {ratios.tolist()}")
    up_to = np.array([(values <= ratio).mean() for ratio in ratios])
    from_on = np.array([(values >= ratio).mean() for ratio in ratios])
    first = int(np.abs(up_to[:-2] - hard).argmin())
    last = first + 2 + int(np.abs(from_on[first + 2 :] - easy).argmin())
    return {"hard_max": float(ratios[first]), "easy_min": float(ratios[last])}


def shares_under(
    scores: Sequence[Score], measure: Measure, limits: Mapping[str, float]
) -> dict[Stratum, float]:
    """The shares of easy, medium and hard among solved samples under proposed thresholds."""
    values = np.array(
        [
            row.value
            for row in scores
            if row.measure is measure
            and row.value is not None
            and row.stratum is not Stratum.unsolved
        ]
    )
    if measure is Measure.cmab:
        is_hard = (values >= limits["hard_min"]) & (values <= limits["hard_max"])
        is_easy = (values < limits["easy_below"]) | (values > limits["easy_above"])
    else:
        is_hard, is_easy = values <= limits["hard_max"], values >= limits["easy_min"]
    easy, hard = float(is_easy.mean()), float(is_hard.mean())
    return {Stratum.easy: easy, Stratum.medium: 1 - easy - hard, Stratum.hard: hard}
