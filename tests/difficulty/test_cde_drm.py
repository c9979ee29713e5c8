import numpy as np
import pytest

from difftrain.difficulty import cde, drm
from difftrain.records import Stratum


def verdicts(right: int, asked: int = 5) -> np.ndarray:
    return np.array([1] * right + [0] * (asked - right), dtype=np.int8)


def test_discrepancy_is_accuracy_with_minus_accuracy_without() -> None:
    assert cde.discrepancy(verdicts(4), verdicts(1)) == 0.6
    assert cde.discrepancy(verdicts(0), verdicts(5)) == -1.0
    assert cde.discrepancy(verdicts(3), verdicts(3)) == 0.0


def test_discrepancy_is_signed_unless_the_absolute_one_is_asked_for() -> None:
    assert cde.discrepancy(verdicts(1), verdicts(4)) == -0.6
    assert cde.discrepancy(verdicts(1), verdicts(4), absolute=True) == 0.6


def test_three_fifths_is_the_very_float() -> None:
    assert 0.8 - 0.2 != 0.6
    for right in range(11):
        for without in range(11):
            found = cde.discrepancy(verdicts(right, 10), verdicts(without, 10))
            assert found == (right - without) / 10


def test_unequal_numbers_of_rollouts_are_allowed() -> None:
    assert cde.discrepancy(verdicts(3, 4), verdicts(1, 2)) == 0.25


@pytest.mark.parametrize("bad", [[], [1, -1, 0], [[1, 0]], [0.5, 1]])
def test_a_mean_over_nothing_or_over_a_part_is_refused(bad: list) -> None:
    with pytest.raises(ValueError, match="M verdicts of 0 or 1"):
        cde.discrepancy(np.array(bad), verdicts(1))
    with pytest.raises(ValueError, match="M verdicts of 0 or 1"):
        drm.difficulty(np.array(bad))


def test_difficulty_is_the_share_of_wrong_answers() -> None:
    assert [drm.difficulty(verdicts(right)) for right in (5, 4, 1, 0)] == [0.0, 0.2, 0.8, 1.0]


def test_easy_is_always_right_and_unsolved_is_never_right() -> None:
    found = [drm.stratum(drm.difficulty(verdicts(right))) for right in range(6)]
    assert found == [
        Stratum.unsolved, Stratum.hard, Stratum.hard, Stratum.medium, Stratum.medium, Stratum.easy,
    ]  # fmt: skip
    assert drm.stratum(0.5) is Stratum.hard
