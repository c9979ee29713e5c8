"""CDE (accuracy with minus without the image) and DRM (the share of incorrect responses).

Both are measures of the paper RAP, computed from M responses to a sample.
"""

import numpy as np
import pytest

from difftrain.difficulty import cde, drm
from difftrain.records import Stratum


def verdicts(correct: int, total: int = 5) -> np.ndarray:
    """Verdicts of `total` responses: first `correct` times 1 (correct), then 0 (incorrect)."""
    return np.array([1] * correct + [0] * (total - correct), dtype=np.int8)


def test_discrepancy_is_accuracy_with_the_image_minus_accuracy_without_it() -> None:
    assert cde.discrepancy(verdicts(4), verdicts(1)) == 0.6  # 4/5 - 1/5
    assert cde.discrepancy(verdicts(0), verdicts(5)) == -1.0
    assert cde.discrepancy(verdicts(3), verdicts(3)) == 0.0


def test_discrepancy_is_signed_unless_absolute_is_requested() -> None:
    assert cde.discrepancy(verdicts(1), verdicts(4)) == -0.6
    assert cde.discrepancy(verdicts(1), verdicts(4), absolute=True) == 0.6


def test_a_discrepancy_is_the_float_nearest_to_the_exact_value() -> None:
    assert 0.8 - 0.2 != 0.6  # the difference of two rounded means is not
    for with_image in range(11):
        for text_only in range(11):
            value = cde.discrepancy(verdicts(with_image, 10), verdicts(text_only, 10))
            assert value == (with_image - text_only) / 10


def test_unequal_numbers_of_rollouts_are_allowed() -> None:
    assert cde.discrepancy(verdicts(3, 4), verdicts(1, 2)) == 3 / 4 - 1 / 2


@pytest.mark.parametrize("invalid", [[], [1, -1, 0], [[1, 0]], [0.5, 1]])
def test_empty_incomplete_or_invalid_verdicts_are_refused(invalid: list) -> None:
    with pytest.raises(ValueError, match="M verdicts of 0 or 1"):
        cde.discrepancy(np.array(invalid), verdicts(1))
    with pytest.raises(ValueError, match="M verdicts of 0 or 1"):
        drm.difficulty(np.array(invalid))


def test_difficulty_is_the_share_of_incorrect_responses() -> None:
    # Of five responses.
    assert [drm.difficulty(verdicts(correct)) for correct in (5, 4, 1, 0)] == [0.0, 0.2, 0.8, 1.0]


def test_a_sample_is_easy_if_always_correct_and_unsolved_if_never_correct() -> None:
    # 0 to 5 correct responses: difficulties 1.0, 0.8, 0.6, 0.4, 0.2, 0.0.
    strata = [drm.stratum(drm.difficulty(verdicts(correct))) for correct in range(6)]
    assert strata == [
        Stratum.unsolved, Stratum.hard, Stratum.hard, Stratum.medium, Stratum.medium, Stratum.easy,
    ]  # fmt: skip
    assert drm.stratum(0.5) is Stratum.hard  # equal to the default hard_min


def test_a_discrepancy_equal_to_lambda_c_is_not_kept() -> None:
    assert not cde.is_kept(0.5)  # the default lambda_c
    assert not cde.is_kept(0.8 - 0.2, lambda_c=0.6)  # 0.6000000000000001 by a rounding error
    assert cde.is_kept(0.51)
