import numpy as np
import pytest

from difftrain.difficulty import pism
from difftrain.records import Stratum

RATIOS = np.arange(10) / 10


def grid(*rights: int) -> np.ndarray:
    """A full table whose row r has rights[r] right answers, at its end."""
    table = np.zeros((len(rights), 10), dtype=np.int8)
    for row, right in enumerate(rights):
        table[row, 10 - right :] = 1
    return table


def test_a_ratio_fails_when_all_ten_draws_are_wrong() -> None:
    assert pism.failure_ratio(grid(9, 3, 1, 0, 5, 5, 5, 5, 5, 5), RATIOS) == 0.3


def test_accuracy_equal_to_tau_has_not_failed() -> None:
    assert pism.failure_ratio(grid(*[1] * 10), RATIOS, tau=0.1) is None
    assert pism.failure_ratio(grid(*[7] * 10), RATIOS, tau=0.7) is None
    assert pism.failure_ratio(grid(*[3] * 10), RATIOS, tau=0.3) is None


def test_accuracy_below_tau_has_failed() -> None:
    assert pism.failure_ratio(grid(3, 2, *[5] * 8), RATIOS, tau=0.3) == 0.1


def test_a_sample_that_is_never_right_fails_at_zero() -> None:
    assert pism.failure_ratio(grid(*[0] * 10), RATIOS) == 0.0


def test_a_table_that_does_not_settle_the_label_is_refused() -> None:
    table = np.full((10, 10), -1, dtype=np.int8)
    table[0, 0] = 1
    with pytest.raises(ValueError, match=r"does not settle ratio 0\.1"):
        pism.failure_ratio(table, RATIOS)


def test_an_early_stopped_table_settles_it() -> None:
    table = np.full((10, 10), -1, dtype=np.int8)
    table[0, :2] = 0, 1
    table[1] = 0
    assert pism.failure_ratio(table, RATIOS) == 0.1


def test_a_transposed_table_is_refused() -> None:
    with pytest.raises(ValueError, match="R x K"):
        pism.failure_ratio(np.zeros((10, 4), dtype=np.int8), np.arange(4) / 10)


def test_strata_have_the_papers_edges() -> None:
    found = [pism.stratum(ratio) for ratio in (0.0, 0.1, 0.4, 0.5, 0.6, 0.7, 0.9, None)]
    assert found == ["unsolved", "hard", "hard", "medium", "medium", "easy", "easy", "easy"]


def test_table_a_puts_exactly_seven_tenths_into_medium() -> None:
    assert pism.stratum(0.7, easy_inclusive=False) is Stratum.medium
    assert pism.stratum(0.8, easy_inclusive=False) is Stratum.easy
