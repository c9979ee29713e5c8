"""Which draws (responses) early stopping still needs, until a sample's label is settled.

A table has a row for each of R mask ratios (hidden shares of the image), which rise from 0, and a
column for each of K draws: 1 is correct, 0 incorrect, -1 not yet drawn. A ratio passes if the share
of its correct draws is at least tau (by default 0.1). The label is the first ratio that fails, or
only its stratum: unsolved at 0, hard up to 0.4, medium below 0.7, else easy.
"""

from typing import Any

import numpy as np
import pytest

from difftrain.difficulty import pism
from difftrain.difficulty.pism import failure_ratio
from difftrain.probe.schedule import next_draws

RATIOS = np.arange(10) / 10


def draw_until_settled(
    full_RK: np.ndarray, tau: float, until: str = "ratio", **limits: Any
) -> tuple[np.ndarray, int]:
    """The table and the number of draws at the end; the verdicts come from `full_RK`.

    `until` says what has to be settled: the failing "ratio" or its "stratum". `limits` are other
    limits of the strata.
    """
    table = np.full_like(full_RK, -1)
    num_draws = 0
    while cells := next_draws(table, tau, until, **limits):
        for row, draw in cells:
            assert table[row, draw] == -1
            table[row, draw] = full_RK[row, draw]
            num_draws += 1
    return table, num_draws


def random_grid(rng: np.random.Generator, is_falling: bool = True) -> np.ndarray:
    """A full table whose accuracy falls with the ratio, or is random at each ratio."""
    accuracy_R = rng.random(10) ** 2  # squared, so that low accuracies are frequent
    accuracy_R = np.sort(accuracy_R)[::-1] if is_falling else accuracy_R
    return (rng.random((10, 10)) < accuracy_R[:, None]).astype(np.int8)


@pytest.mark.parametrize("tau", [0.05, 0.1, 0.15, 0.3, 0.5, 0.95])
def test_early_stopping_gives_the_ratio_of_the_full_grid(tau: float) -> None:
    rng = np.random.default_rng(7)
    for _ in range(300):
        full = random_grid(rng)
        table, num_draws = draw_until_settled(full, tau)
        assert failure_ratio(table, RATIOS, tau) == failure_ratio(full, RATIOS, tau)
        assert num_draws <= full.size


@pytest.mark.parametrize("tau", [0.05, 0.1, 0.3, 0.5, 0.95])
@pytest.mark.parametrize("is_falling", [True, False])
@pytest.mark.parametrize("limits", [{}, {"hard_max": 0.2, "easy_min": 0.5}])
def test_until_stratum_gives_the_stratum_of_the_full_grid_with_at_most_as_many_draws(
    tau: float, is_falling: bool, limits: dict[str, float]
) -> None:
    rng, minimum = np.random.default_rng(8), pism.min_correct(10, tau)
    for _ in range(250):  # 5,000 tables with the parameters
        full = random_grid(rng, is_falling)
        table, num_draws = draw_until_settled(full, tau, "stratum", **limits)
        expected = pism.stratum(failure_ratio(full, RATIOS, tau), **limits)
        assert pism.settled_stratum(table, RATIOS, minimum, **limits) is expected
        _, num_draws_until_ratio = draw_until_settled(full, tau, "ratio")
        assert num_draws <= num_draws_until_ratio


def test_the_stratum_easy_is_settled_when_all_ratios_below_0_7_pass() -> None:
    table = np.full((10, 4), -1, dtype=np.int8)
    table[:7, 0] = 1  # with tau 0.1, a ratio passes with one correct draw of four
    assert next_draws(table, until="stratum") == []
    assert next_draws(table) == [(7, 0)]


def test_the_draws_of_another_run_at_a_higher_ratio_can_settle_the_stratum() -> None:
    table = np.full((10, 4), -1, dtype=np.int8)
    table[0, 0], table[4] = 1, 0  # the first failing ratio is from 0.1 to 0.4: always hard
    assert next_draws(table, until="stratum") == []
    assert next_draws(table) == [(1, 0)]


def test_until_grid_returns_all_missing_draws_at_once() -> None:
    table = np.full((2, 2), -1, dtype=np.int8)
    table[0, 0] = 0
    assert next_draws(table, until="grid") == [(0, 1), (1, 0), (1, 1)]


def test_after_a_ratio_has_passed_the_next_ratio_is_drawn() -> None:
    table = np.full((3, 4), -1, dtype=np.int8)
    table[0, :2] = 0, 1
    assert next_draws(table) == [(1, 0)]


def test_drawing_ends_at_the_first_failing_ratio() -> None:
    table = np.full((3, 4), -1, dtype=np.int8)
    table[0] = 0
    assert next_draws(table) == []


def test_a_ratio_that_can_never_pass_is_not_drawn() -> None:
    table = np.full((3, 4), -1, dtype=np.int8)
    assert next_draws(table, minimum=5) == []  # five of four draws cannot be correct
    assert failure_ratio(table, np.arange(3) / 3, minimum=5) == 0.0


def test_a_settled_table_needs_no_draw_and_is_not_changed() -> None:
    table = np.ones((3, 4), dtype=np.int8)
    before = table.copy()
    assert next_draws(table) == []
    assert (table == before).all()


def test_a_draw_missing_between_others_is_drawn() -> None:
    """A killed run may lose a response that was requested before another."""
    table = np.full((2, 3), -1, dtype=np.int8)
    table[0] = 0, -1, 0
    assert next_draws(table, 0.3) == [(0, 1)]


def test_a_table_of_one_dimension_is_refused() -> None:
    with pytest.raises(ValueError, match="R x K"):
        next_draws(np.zeros(4, dtype=np.int8))
