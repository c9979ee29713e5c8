import numpy as np
import pytest

from difftrain.difficulty import pism
from difftrain.records import Stratum

RATIOS = np.arange(10) / 10


def grid(*correct: int) -> np.ndarray:
    """A full table; the last correct[r] draws of row r are correct."""
    table = np.zeros((len(correct), 10), dtype=np.int8)
    for row, count in enumerate(correct):
        table[row, 10 - count :] = 1
    return table


def test_a_ratio_fails_when_all_ten_draws_are_incorrect() -> None:
    assert pism.failure_ratio(grid(9, 3, 1, 0, 5, 5, 5, 5, 5, 5), RATIOS) == 0.3


def test_a_ratio_with_accuracy_equal_to_tau_passes() -> None:
    assert pism.failure_ratio(grid(*[1] * 10), RATIOS, tau=0.1) is None
    assert pism.failure_ratio(grid(*[7] * 10), RATIOS, tau=0.7) is None
    assert pism.failure_ratio(grid(*[3] * 10), RATIOS, tau=0.3) is None


def test_a_ratio_with_accuracy_below_tau_fails() -> None:
    assert pism.failure_ratio(grid(3, 2, *[5] * 8), RATIOS, tau=0.3) == 0.1


def test_a_sample_that_is_never_correct_fails_at_zero() -> None:
    assert pism.failure_ratio(grid(*[0] * 10), RATIOS) == 0.0


def test_a_table_that_does_not_settle_the_label_is_refused() -> None:
    table = np.full((10, 10), -1, dtype=np.int8)
    table[0, 0] = 1
    with pytest.raises(ValueError, match=r"does not settle ratio 0\.1"):
        pism.failure_ratio(table, RATIOS)


def test_an_early_stopped_table_can_settle_the_label() -> None:
    table = np.full((10, 10), -1, dtype=np.int8)
    table[0, :2] = 0, 1
    table[1] = 0
    assert pism.failure_ratio(table, RATIOS) == 0.1


def test_a_transposed_table_is_refused() -> None:
    with pytest.raises(ValueError, match="R x K"):
        pism.failure_ratio(np.zeros((10, 4), dtype=np.int8), np.arange(4) / 10)


def test_strata_have_the_papers_edges() -> None:
    strata = [pism.stratum(ratio) for ratio in (0.0, 0.1, 0.4, 0.5, 0.6, 0.7, 0.9, None)]
    assert strata == ["unsolved", "hard", "hard", "medium", "medium", "easy", "easy", "easy"]


def test_the_papers_table_a_puts_a_ratio_of_exactly_0_7_into_medium() -> None:
    assert pism.stratum(0.7, easy_inclusive=False) is Stratum.medium
    assert pism.stratum(0.8, easy_inclusive=False) is Stratum.easy


def test_a_table_settles_the_stratum_before_the_ratio() -> None:
    table = np.full((10, 10), -1, dtype=np.int8)
    table[0, 0], table[4] = 1, 0
    assert pism.settled_stratum(table, RATIOS, minimum=1) is Stratum.hard
    with pytest.raises(ValueError, match="does not settle"):
        pism.failure_ratio(table, RATIOS)
    table[:7, 0] = 1
    assert pism.settled_stratum(table, RATIOS, minimum=1) is Stratum.easy
    table[6, 0] = 0
    assert pism.settled_stratum(table, RATIOS, minimum=1) is None


def test_the_chance_corrected_minimum_follows_the_binomial_tail() -> None:
    from scipy.stats import binom

    for rate in np.linspace(0.02, 0.98, 25):
        for alpha in (0.01, 0.05, 0.2):
            minimum = pism.min_correct(10, guess_rate=float(rate), alpha=alpha)
            if minimum <= 10:
                assert binom.sf(minimum - 1, 10, rate) <= alpha + 1e-9
            if minimum > 1:
                assert binom.sf(minimum - 2, 10, rate) > alpha


def test_chance_correction_never_lowers_the_minimum_and_tau_still_counts() -> None:
    assert pism.min_correct(10) == 1
    assert pism.min_correct(10, tau=0.9, guess_rate=0.1) == 9
    assert pism.min_correct(10, guess_rate=6 / 7) == 11  # more than all ten draws: cannot pass


def test_the_guess_rate_is_laplace_smoothed_and_needs_every_draw() -> None:
    assert pism.guess_rate([1, 0, 0, 0, 0]) == 2 / 7
    with pytest.raises(ValueError, match="text-only verdicts"):
        pism.guess_rate([1, -1])
