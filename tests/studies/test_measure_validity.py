"""The statistics of studies/measure_validity.py, on numbers that can be checked by hand.

The study compares difficulty measures (PISM, CMAB, CDE, DRM) with the known truth of generated
samples: a question needs the image, or the text alone gives the answer ("prior"), or nobody can
answer it ("noise"). Samples come in families, one per function that generates them. An AUC is the
probability that a measure is higher for a sample that needs the image than for a prior sample.

PISM draws responses to images that are masked more and more (the "ladder"). Axes of its table: R
mask ratios, K draws; 1 is correct, 0 incorrect, -1 not drawn.
"""

import numpy as np
import pandas as pd
import pytest
from measure_validity import answer_group, answer_space, ladder_requests
from measure_validity_stats import agreement, auc, confusion, pooled_rank_correlation, separation

from difftrain.shapes import pool


def test_an_auc_counts_the_pairs_in_the_right_order_and_half_of_the_ties() -> None:
    assert auc(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1
    assert auc(np.array([0.0, 3.0]), np.array([1.0, 2.0])) == 0.5
    assert auc(np.array([1.0, 2.0]), np.array([1.0])) == 0.75


def test_an_auc_without_samples_on_both_sides_is_refused() -> None:
    with pytest.raises(ValueError, match="both sides"):
        auc(np.array([1.0]), np.array([]))


def test_differences_between_families_do_not_help_the_pooled_rank_correlation() -> None:
    falling = (np.array([3.0, 2.0, 1.0]), np.array([0.1, 0.2, 0.3]))
    higher = (np.array([9.0, 8.0, 7.0]), np.array([0.7, 0.8, 0.9]))
    assert pooled_rank_correlation([falling, higher]) == pytest.approx(-1)


def test_a_family_in_which_the_measure_is_constant_counts_as_uncorrelated() -> None:
    rising = (np.array([1.0, 2.0, 3.0]), np.array([0.1, 0.2, 0.3]))
    constant = (np.array([5.0, 5.0, 5.0]), np.array([0.1, 0.2, 0.3]))
    assert 0 < pooled_rank_correlation([rising, constant]) < 1
    assert np.isnan(pooled_rank_correlation([constant]))


def test_strata_that_agree_as_often_as_by_chance_have_a_kappa_of_zero() -> None:
    counts = pd.DataFrame([[1, 1], [1, 1]])
    assert agreement(counts) == {"same": 0.5, "by_chance": 0.5, "kappa": 0}
    assert agreement(pd.DataFrame([[2, 0], [0, 2]]))["kappa"] == 1


def sample_frame() -> pd.DataFrame:
    """The study's table for six samples."""
    return pd.DataFrame(
        {
            "truth": ["needs the image"] * 3 + ["prior"] * 2 + ["noise"],
            "solved": [True, True, False, True, True, False],
            "cde": [0.8, 0.6, 0.0, 0.2, 0.0, 0.9],
            "cmab": [1.0, 2.0, np.nan, 0.5, 0.4, np.nan],
            "pism_stratum": ["easy", "hard", "unsolved", "easy", "easy", "unsolved"],
            "drm_stratum": ["easy", "easy", "unsolved", "easy", "medium", "unsolved"],
        }
    )


def test_noise_is_left_out_of_the_separation_and_missing_values_are_counted() -> None:
    all_samples = separation(sample_frame(), "cde", solved_only=False)
    assert (all_samples.n, all_samples.left_out) == (5, 0)
    # Of the pairs of 0.8, 0.6, 0.0 with 0.2, 0.0, four are in the right order and one is a tie.
    assert all_samples.value == pytest.approx(4.5 / 6)
    assert separation(sample_frame(), "cde", solved_only=True).value == 1
    assert separation(sample_frame(), "cmab", solved_only=False).left_out == 1


def test_the_confusion_counts_every_sample_once() -> None:
    counts = confusion(sample_frame(), "pism", "drm")
    assert counts.to_numpy().sum() == 6
    assert counts.loc["hard", "easy"] == 1


def test_the_number_of_possible_answers_is_known_for_every_family() -> None:
    for family in pool.FAMILIES:
        sample = pool.sample(pool.Split.pool, family, 0, seed=0)
        assert answer_space(sample) > 1
        assert answer_group(answer_space(sample))
    compare = pool.sample(pool.Split.pool, "compare", 0, seed=0)  # a choice of two options
    assert answer_space(compare) == 2


def test_ladder_requests_are_exactly_the_draws_of_early_stopping() -> None:
    # A row passes with one correct draw (minimum=1). Row 0 passes at its second draw. Row 1 fails
    # after all its draws. So its ratio is PISM's value, and row 2 is not needed.
    correct_RK = np.array([[0, 1, 1], [0, 0, 0], [1, 1, 1]], dtype=np.int8)
    requests = ladder_requests(correct_RK, minimum=1)
    assert requests == {("ladder", 0, 0), ("ladder", 0, 1)} | {("ladder", 1, k) for k in range(3)}


def test_ladder_requests_of_a_table_that_lacks_a_needed_draw_are_refused() -> None:
    # -1: the probe has no such draw.
    with pytest.raises(ValueError, match="was not probed"):
        ladder_requests(np.array([[0, -1, 1]], dtype=np.int8), minimum=1)
