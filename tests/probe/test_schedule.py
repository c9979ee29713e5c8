import numpy as np
import pytest

from difftrain.difficulty.pism import failure_ratio
from difftrain.probe.schedule import next_draws

RATIOS = np.arange(10) / 10


def climb(full_RK: np.ndarray, tau: float) -> tuple[np.ndarray, int]:
    """The table and number of draws that the schedule asks of a grid whose answers are known."""
    table = np.full_like(full_RK, -1)
    asked = 0
    while cells := next_draws(table, tau):
        for row, draw in cells:
            assert table[row, draw] == -1
            table[row, draw] = full_RK[row, draw]
            asked += 1
    return table, asked


@pytest.mark.parametrize("tau", [0.05, 0.1, 0.15, 0.3, 0.5, 0.95])
def test_the_early_label_is_the_full_grids_label(tau: float) -> None:
    rng = np.random.default_rng(7)
    for _ in range(300):
        skill = np.sort(rng.random(10) ** 2)[::-1]
        full = (rng.random((10, 10)) < skill[:, None]).astype(np.int8)
        table, asked = climb(full, tau)
        assert failure_ratio(table, RATIOS, tau) == failure_ratio(full, RATIOS, tau)
        assert asked <= full.size


def test_a_rung_is_left_at_the_first_right_answer() -> None:
    table = np.full((3, 4), -1, dtype=np.int8)
    table[0, :2] = 0, 1
    assert next_draws(table) == [(1, 0)]


def test_the_ladder_ends_at_the_first_failing_rung() -> None:
    table = np.full((3, 4), -1, dtype=np.int8)
    table[0] = 0
    assert next_draws(table) == []


def test_a_settled_label_asks_nothing_and_the_table_is_not_changed() -> None:
    table = np.ones((3, 4), dtype=np.int8)
    before = table.copy()
    assert next_draws(table) == []
    assert (table == before).all()


def test_a_gap_left_by_a_killed_run_is_filled() -> None:
    table = np.full((2, 3), -1, dtype=np.int8)
    table[0] = 0, -1, 0
    assert next_draws(table, 0.3) == [(0, 1)]


def test_a_table_of_one_dimension_is_refused() -> None:
    with pytest.raises(ValueError, match="R x K"):
        next_draws(np.zeros(4, dtype=np.int8))
