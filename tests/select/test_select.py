"""Selection of samples by difficulty stratum, and random sets as controls.

PISM and CMAB are measures of difficulty. PISM's value is the share of the image that is masked when
the model first fails.
"""

import pytest

from difftrain.records import Measure, Score, Stratum
from difftrain.select import (
    EmptySelectionError,
    count_strata,
    random_control,
    require_min_size,
    select_by_stratum,
)

IDS = [f"{number:04x}" for number in range(40)]
STRATA = [Stratum.easy, Stratum.medium, Stratum.hard, Stratum.unsolved]
SCORES = [
    Score(sample_id=id_, measure=Measure.pism, value=0.3, stratum=STRATA[i % 4])
    for i, id_ in enumerate(IDS)
] + [Score(sample_id=IDS[0], measure=Measure.cmab, value=1.0, stratum=Stratum.hard)]


def test_only_samples_in_a_given_stratum_of_the_given_measure_are_selected() -> None:
    selections = select_by_stratum(SCORES, Measure.pism, [Stratum.hard])
    hard_ids = IDS[2::4]  # every fourth sample, as in SCORES
    assert [selection.sample_id for selection in selections] == hard_ids
    # The reason states the value 0.3 in percent.
    assert all(
        "hard by pism" in selection.reason and "30%" in selection.reason for selection in selections
    )


def test_a_random_control_has_the_requested_size() -> None:
    assert len(random_control(IDS, size=7, seed=1, name="grpo_hard-control")) == 7


def test_a_random_control_is_the_same_in_any_order_and_differs_by_seed_and_name() -> None:
    def ids(order: list[str], seed: int, name: str) -> set[str]:
        control = random_control(order, size=10, seed=seed, name=name)
        return {selection.sample_id for selection in control}

    assert ids(IDS, 1, "a") == ids(IDS[::-1], 1, "a")
    assert ids(IDS, 1, "a") != ids(IDS, 2, "a")
    assert ids(IDS, 1, "a") != ids(IDS, 1, "b")


def test_a_control_larger_than_the_pool_is_refused() -> None:
    with pytest.raises(ValueError, match="pool of 40"):
        random_control(IDS, size=41, seed=1, name="a")


def test_a_selection_that_is_too_small_is_refused_with_the_counts() -> None:
    counts = count_strata(SCORES, Measure.pism)
    with pytest.raises(EmptySelectionError, match=r"leaves 0 samples.*hard 10"):
        require_min_size([], minimum=8, counts=counts)


def test_all_four_strata_are_counted_even_if_empty() -> None:
    assert count_strata(SCORES[:1], Measure.pism) == {
        "easy": 1,
        "medium": 0,
        "hard": 0,
        "unsolved": 0,
    }
