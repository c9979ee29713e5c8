"""RAP's selection on tables small enough to check by hand.

RAP is a paper's method that selects training samples in three steps:

* CDE keeps samples whose discrepancy D (accuracy with minus without the image) is above lambda_c.
* ACE drops samples whose attention bias psi is above lambda_a.
* DRM replaces easy samples by the hardest candidates. The difficulty is the share of incorrect
  responses. A candidate was dropped by CDE, is not biased, and has correct and incorrect responses.

The letter N at the end of a name is the axis of samples.
"""

import math
from typing import Any

import numpy as np
import pytest

from difftrain.config.difficulty import RAP_MEASURES
from difftrain.records import TrainStage
from difftrain.select import EmptySelectionError, rap
from difftrain.select.rap import Outcome

# The ids say what RAP finds. The text alone suggests the answer of `prior` (low discrepancy).
# `prior`, `harder` and `hardest` are candidates to replace `easy`. `never` is no candidate, because
# it is never correct, and neither is `biased_out`, because it is biased.
IDS = ["kept", "prior", "biased", "easy", "harder", "hardest", "never", "biased_out"]
DISCREPANCY = [0.8, 0.2, 0.8, 1.0, 0.4, 0.2, 0.0, 0.2]
BIAS = [-5.0, -5.0, -1.0, -5.0, -5.0, -5.0, -5.0, -0.5]
DIFFICULTY = [0.2, 0.4, 0.0, 0.0, 0.6, 0.8, 1.0, 0.8]
MAX_BIAS = math.log(0.1)  # -2.30: the default lambda_a as a logarithm; BIAS has log psi, too


def run_rap(**changes: Any) -> rap.RapResult:
    """RAP on the samples above, with some arguments changed; `draws` are responses per sample."""
    arguments: dict[str, Any] = {
        "sample_id_N": IDS,
        "discrepancy_N": DISCREPANCY,
        "bias_N": BIAS,
        "difficulty_N": DIFFICULTY,
        "draws": 5,
    }
    return rap.run_rap(**{**arguments, **changes})


def selected_ids(*columns: Any, draws: int = 5, **thresholds: float) -> list[str]:
    """The ids that RAP selects; the columns are ids, discrepancies, biases and difficulties."""
    # The type checker cannot match columns of different types to the parameters.
    selections = rap.choose(*columns, draws, **thresholds)  # type: ignore[arg-type]
    return [selection.sample_id for selection in selections]


def test_an_easy_sample_is_replaced_by_the_hardest_that_is_sometimes_solved() -> None:
    selections = rap.choose(IDS, DISCREPANCY, BIAS, DIFFICULTY, draws=5)
    assert [selection.sample_id for selection in selections] == ["kept", "hardest"]
    assert all(selection.stage is TrainStage.grpo for selection in selections)
    assert selections[0].reason == (
        "kept: D = 0.80, above 0.5; log psi = -5.00, not above -2.30; 4 of 5 correct"
    )
    assert selections[1].reason.startswith(
        "brought in by DRM for an easy one, number 1 of 1: D = 0.20"
    )


def test_every_sample_of_the_pool_has_an_outcome_and_a_reason() -> None:
    result = run_rap()
    assert [decision.sample_id for decision in result.decisions] == IDS
    assert [decision.outcome for decision in result.decisions] == [
        Outcome.kept, Outcome.prior, Outcome.biased, Outcome.easy,
        Outcome.prior, Outcome.brought_in, Outcome.prior, Outcome.prior,
    ]  # fmt: skip
    assert "dropped by ACE: " in result.decisions[2].reason
    assert "log psi = -1.00, above -2.30" in result.decisions[2].reason
    assert result.decisions[3].reason.startswith("removed by DRM as easy")
    assert result.funnel == {
        "pool": 8, "after_cde": 3, "after_ace": 2, "removed_easy": 1, "candidates": 3,
        "brought_in": 1, "chosen": 2, "without_bias": 0,
    }  # fmt: skip


def test_in_random_pools_no_selected_sample_is_easy_or_biased() -> None:
    rng = np.random.default_rng(3)
    for _ in range(300):
        size = int(rng.integers(1, 60))
        num_incorrect = rng.integers(0, 6, size)  # 0 to 5 of five responses
        bias = [None if rng.random() < 0.1 else float(rng.normal(MAX_BIAS, 2)) for _ in range(size)]
        result = run_rap(
            sample_id_N=[f"{i}" for i in range(size)],
            discrepancy_N=(rng.integers(-5, 6, size) / 5).tolist(),
            bias_N=bias,
            difficulty_N=(num_incorrect / 5).tolist(),
        )
        selected = [
            i
            for i, decision in enumerate(result.decisions)
            if decision.outcome in (Outcome.kept, Outcome.brought_in)
        ]
        assert all(num_incorrect[i] > 0 for i in selected)
        assert all(bias[i] is None or bias[i] <= MAX_BIAS for i in selected)
        funnel = result.funnel
        assert funnel["brought_in"] == min(funnel["removed_easy"], funnel["candidates"])
        assert funnel["chosen"] == (
            funnel["after_ace"] - funnel["removed_easy"] + funnel["brought_in"]
        )
        assert funnel["chosen"] == len(result.selections)


def test_a_discrepancy_equal_to_lambda_c_is_not_above_it() -> None:
    """The default lambda_c is 0.5."""
    assert selected_ids(["a", "b"], [0.5, 0.51], [-9, -9], [0.2, 0.2]) == ["b"]
    assert 0.8 - 0.2 > 0.6  # by a rounding error, which must not count
    assert selected_ids(["a"], [0.8 - 0.2], None, None, lambda_c=0.6) == []


def test_a_bias_equal_to_lambda_a_is_not_above_it() -> None:
    slightly_above = math.nextafter(MAX_BIAS, 0)
    selected = selected_ids(["a", "b"], None, [MAX_BIAS, slightly_above], None)
    assert selected == ["a"]


def test_difficulties_are_compared_as_numbers_of_incorrect_responses() -> None:
    assert 1 - 4 / 5 < 1 / 5  # so a comparison of floats would be wrong
    selected = selected_ids(["easy", "once_incorrect"], [1.0, 0.0], [-9, -9], [0.0, 1 - 4 / 5])
    assert selected == ["once_incorrect"]
    almost_zero = 1e-12  # 0 incorrect responses after rounding, so the sample is easy
    assert selected_ids(["a"], [1.0], [-9.0], [almost_zero]) == []


def test_a_sample_that_is_never_correct_is_not_brought_in() -> None:
    assert selected_ids(["easy", "never"], [1.0, 0.0], [-9, -9], [0.0, 1.0]) == []


def test_all_candidates_are_brought_in_if_more_easy_samples_are_removed() -> None:
    # The first five are always correct, but one is biased. Of the last three, one is ever correct.
    result = run_rap(
        discrepancy_N=[1, 1, 1, 1, 1, 0, 0, 0], difficulty_N=[0, 0, 0, 0, 0, 0.2, 1, 1]
    )
    funnel = result.funnel
    assert (funnel["removed_easy"], funnel["candidates"], funnel["brought_in"]) == (4, 1, 1)
    with pytest.raises(EmptySelectionError, match="brings in 1 of 1 candidates"):
        rap.require_min(result.selections, minimum=8, funnel=funnel, measures=RAP_MEASURES)
    assert [selection.sample_id for selection in result.selections] == ["hardest"]


def test_ties_do_not_depend_on_the_order_of_the_pool() -> None:
    names = ["easy", *(f"candidate{i}" for i in range(20))]
    columns = ([1.0] + [0.0] * 20, [-9.0] * 21, [0.0] + [0.6] * 20)  # all equally hard
    forward = selected_ids(names, *columns)
    backward = selected_ids(names[::-1], *(column[::-1] for column in columns))
    assert forward == backward
    assert len(forward) == 1


def test_a_measure_whose_column_is_none_is_not_applied() -> None:
    assert selected_ids(IDS, DISCREPANCY, None, None) == ["kept", "biased", "easy"]
    assert selected_ids(IDS, None, BIAS, None) == [
        name for name in IDS if not name.startswith("biased")
    ]
    assert selected_ids(IDS, DISCREPANCY, BIAS, None) == ["kept", "easy"]


def test_a_response_too_short_for_ace_is_not_biased_and_is_counted() -> None:
    result = run_rap(bias_N=[None, math.nan, *BIAS[2:]])  # None and NaN: no value
    assert result.funnel["without_bias"] == 2
    assert result.decisions[0].outcome is Outcome.kept
    assert result.decisions[0].bias is None
    assert "no ACE value (response too short)" in result.decisions[0].reason


def test_an_empty_selection_is_refused_with_the_counts() -> None:
    result = run_rap(lambda_c=0.99, difficulty_N=[0.0] * 8)  # only "easy" has D above 0.99
    message = r"RAP selects 0 .* of 8 samples CDE leaves 1; ACE leaves 1; DRM removes 1"
    with pytest.raises(EmptySelectionError, match=message):
        rap.require_min(result.selections, minimum=8, funnel=result.funnel, measures=RAP_MEASURES)


def test_the_error_names_only_the_measures_that_were_applied() -> None:
    result = run_rap(discrepancy_N=None, difficulty_N=None, lambda_a=1e-9)  # all are biased
    with pytest.raises(EmptySelectionError) as error:
        rap.require_min(result.selections, minimum=8, funnel=result.funnel, measures=["ace"])
    assert "of 8 samples ACE leaves 0; move difficulty.ace.lambda_a or" in str(error.value)
    for other_measure in ("CDE", "cde", "DRM"):
        assert other_measure not in str(error.value)
    with pytest.raises(EmptySelectionError, match="candidates; add data, or lower"):
        rap.require_min([], minimum=8, funnel=result.funnel, measures=["drm"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"discrepancy_N": DISCREPANCY[1:]}, "7 numbers for 8"),
        ({"difficulty_N": [math.nan, *DIFFICULTY[1:]]}, "difficulty_N lacks a number"),
        ({"sample_id_N": ["kept", *IDS[:7]]}, "twice"),
        ({"draws": 0}, "must be above 0"),
    ],
)
def test_columns_with_missing_or_repeated_values_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_rap(**changes)
