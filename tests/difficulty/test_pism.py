"""PISM: the smallest share of a hidden image at which the model fails, and its strata.

Tables have a row for each of R mask ratios and a column for each of K draws (responses): 1 is
correct, 0 incorrect, -1 not drawn. A ratio fails if its accuracy is below tau, 0.1 by default. With
chance correction it also fails if guessing is correct as often with a probability above alpha.
"""

import numpy as np
import pytest

from difftrain.difficulty import pism
from difftrain.records import Stratum

RATIOS = np.arange(10) / 10


def grid(*correct: int) -> np.ndarray:
    """A table of ten draws per row; the last correct[row] draws of a row are correct."""
    table = np.zeros((len(correct), 10), dtype=np.int8)
    for row, num_correct in enumerate(correct):
        table[row, 10 - num_correct :] = 1
    return table


def test_a_ratio_fails_when_all_ten_draws_are_incorrect() -> None:
    assert pism.failure_ratio(grid(9, 3, 1, 0, 5, 5, 5, 5, 5, 5), RATIOS) == 0.3


def test_a_ratio_with_accuracy_equal_to_tau_passes() -> None:
    assert pism.failure_ratio(grid(*[1] * 10), RATIOS, tau=0.1) is None
    assert pism.failure_ratio(grid(*[7] * 10), RATIOS, tau=0.7) is None
    assert pism.failure_ratio(grid(*[3] * 10), RATIOS, tau=0.3) is None


def test_a_ratio_with_accuracy_below_tau_fails() -> None:
    assert pism.failure_ratio(grid(3, 2, *[5] * 8), RATIOS, tau=0.3) == 0.1


def test_a_sample_that_is_never_correct_fails_with_the_full_image() -> None:
    assert pism.failure_ratio(grid(*[0] * 10), RATIOS) == 0.0


def test_a_table_that_does_not_settle_the_failure_ratio_is_refused() -> None:
    table = np.full((10, 10), -1, dtype=np.int8)
    table[0, 0] = 1  # ratio 0 passes; nothing is known about the others
    with pytest.raises(ValueError, match=r"does not settle ratio 0\.1"):
        pism.failure_ratio(table, RATIOS)


def test_an_early_stopped_table_can_settle_the_failure_ratio() -> None:
    table = np.full((10, 10), -1, dtype=np.int8)
    table[0, :2] = 0, 1  # one correct draw of ten reaches tau
    table[1] = 0
    assert pism.failure_ratio(table, RATIOS) == 0.1


def test_a_transposed_table_is_refused() -> None:
    with pytest.raises(ValueError, match="R x K"):
        pism.failure_ratio(np.zeros((10, 4), dtype=np.int8), np.arange(4) / 10)


def test_strata_have_the_limits_of_the_paper() -> None:
    """Qi et al. 2026, section 3.1: unsolved at 0, hard up to 0.4, medium below 0.7, else easy."""
    strata = [pism.stratum(ratio) for ratio in (0.0, 0.1, 0.4, 0.5, 0.6, 0.7, 0.9, None)]
    assert strata == ["unsolved", "hard", "hard", "medium", "medium", "easy", "easy", "easy"]


def test_without_easy_inclusive_a_ratio_of_exactly_0_7_is_medium() -> None:
    """Table A of Qi et al. 2026 differs in this from their text."""
    assert pism.stratum(0.7, easy_inclusive=False) is Stratum.medium
    assert pism.stratum(0.8, easy_inclusive=False) is Stratum.easy


def test_a_table_can_settle_the_stratum_before_the_ratio() -> None:
    """`minimum` is the number of correct draws with which a ratio passes."""
    table = np.full((10, 10), -1, dtype=np.int8)
    table[0, 0], table[4] = 1, 0  # the first failing ratio is 0.1, 0.2, 0.3 or 0.4: all hard
    assert pism.settled_stratum(table, RATIOS, minimum=1) is Stratum.hard
    with pytest.raises(ValueError, match="does not settle"):
        pism.failure_ratio(table, RATIOS)
    table[:7, 0] = 1  # ratios 0 to 0.6 pass, so the first failing ratio is at least 0.7
    assert pism.settled_stratum(table, RATIOS, minimum=1) is Stratum.easy
    table[6, 0] = 0  # ratio 0.6 may still fail (medium) or pass (easy)
    assert pism.settled_stratum(table, RATIOS, minimum=1) is None


def test_the_chance_corrected_minimum_follows_the_binomial_tail() -> None:
    from scipy.stats import binom

    for rate in np.linspace(0.02, 0.98, 25):
        for alpha in (0.01, 0.05, 0.2):
            minimum = pism.min_correct(10, guess_rate=float(rate), alpha=alpha)
            if minimum <= 10:
                assert binom.sf(minimum - 1, 10, rate) <= alpha + 1e-9  # P(at least minimum)
            if minimum > 1:
                assert binom.sf(minimum - 2, 10, rate) > alpha  # P(at least minimum - 1)


def test_chance_correction_can_only_raise_the_minimum_that_tau_gives() -> None:
    assert pism.min_correct(10) == 1  # of ten draws, by the default tau
    assert pism.min_correct(10, tau=0.9, guess_rate=0.1) == 9  # chance alone needs fewer
    assert pism.min_correct(10, guess_rate=6 / 7) == 11  # more than all ten draws: cannot pass


def test_the_guess_rate_is_laplace_smoothed_and_a_missing_draw_is_refused() -> None:
    assert pism.guess_rate([1, 0, 0, 0, 0]) == (1 + 1) / (5 + 2)
    with pytest.raises(ValueError, match="text-only verdicts"):
        pism.guess_rate([1, -1])
