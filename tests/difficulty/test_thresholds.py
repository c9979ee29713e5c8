"""Thresholds that give another model's strata the shares of the paper's."""

import numpy as np
import pytest

from difftrain.difficulty import cmab, pism, thresholds
from difftrain.records import Measure, Score, Stratum


def scores(measure: Measure, values: list[float | None], unsolved: int = 0) -> list[Score]:
    """Scores of solved samples, and of `unsolved` others without a value."""
    rows = [Score(sample_id=f"{i}", measure=measure, value=v, stratum=Stratum.hard)
            for i, v in enumerate(values)]  # fmt: skip
    rest = [Score(sample_id=f"u{i}", measure=measure, value=0.0, stratum=Stratum.unsolved)
            for i in range(unsolved)]  # fmt: skip
    return rows + rest


def test_cmabs_strata_get_the_papers_shares_whatever_the_scale_of_the_balance() -> None:
    values = np.exp(np.random.default_rng(0).normal(-3, 1, 2000)).tolist()  # around 0.05
    rows = scores(Measure.cmab, values, unsolved=500)
    limits = thresholds.propose(rows, Measure.cmab)
    strata = [cmab.stratum(value, True, **limits) for value in values]
    for stratum, share in thresholds.PAPER_SHARES[Measure.cmab].items():
        assert strata.count(stratum) / len(strata) == pytest.approx(share, abs=0.01)
    assert thresholds.shares_under(rows, Measure.cmab, limits)[Stratum.hard] == pytest.approx(
        strata.count(Stratum.hard) / len(strata)
    )


def test_pisms_thresholds_are_failure_ratios_that_occur() -> None:
    values = [0.1] * 10 + [0.2] * 10 + [0.5] * 30 + [0.8] * 50
    limits = thresholds.propose(scores(Measure.pism, [*values]), Measure.pism)
    assert limits == {"hard_max": 0.1, "easy_min": 0.8}
    strata = [pism.stratum(value, **limits) for value in values]
    assert strata.count(Stratum.hard) == 10
    assert strata.count(Stratum.easy) == 50


def test_a_pool_that_cannot_tell_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="3 solved samples, but 50 are needed"):
        thresholds.propose(scores(Measure.cmab, [1.0, 2.0, 3.0], 100), Measure.cmab)
    with pytest.raises(ValueError, match="1 of 61 solved samples have no value; score with"):
        thresholds.propose(scores(Measure.pism, [0.5] * 60 + [None]), Measure.pism)
    with pytest.raises(ValueError, match="only 1 failure ratios occur"):
        thresholds.propose(scores(Measure.pism, [0.5] * 60), Measure.pism)
    with pytest.raises(ValueError, match="too alike"):
        thresholds.propose(scores(Measure.cmab, [1.0] * 60), Measure.cmab)
    with pytest.raises(ValueError, match="pism and cmab only"):
        thresholds.propose([], Measure.cde)
