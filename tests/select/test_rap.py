"""RAP's selection on tables small enough to check by hand."""

import math

import numpy as np
import pytest

from difftrain.config.difficulty import RAP_MEASURES
from difftrain.records import TrainStage
from difftrain.select import EmptySelectionError, rap
from difftrain.select.rap import Outcome

IDS = ["kept", "prior", "biased", "easy", "harder", "hardest", "never", "biased_out"]
DISCREPANCY = [0.8, 0.2, 0.8, 1.0, 0.4, 0.2, 0.0, 0.2]
BIAS = [-5.0, -5.0, -1.0, -5.0, -5.0, -5.0, -5.0, -0.5]
DIFFICULTY = [0.2, 0.4, 0.0, 0.0, 0.6, 0.8, 1.0, 0.8]


def run_rap(**changes: object) -> rap.RapResult:
    columns = {
        "sample_id_N": IDS,
        "discrepancy_N": DISCREPANCY,
        "bias_N": BIAS,
        "difficulty_N": DIFFICULTY,
        "draws": 5,
    }
    return rap.run_rap(**{**columns, **changes})  # type: ignore[arg-type]


def selected_ids(*columns: object, draws: int = 5, **thresholds: float) -> list[str]:
    return [selection.sample_id for selection in rap.choose(*columns, draws, **thresholds)]  # type: ignore[arg-type]


def test_an_easy_sample_is_replaced_by_the_hardest_that_is_sometimes_solved() -> None:
    selections = rap.choose(IDS, DISCREPANCY, BIAS, DIFFICULTY, 5)
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


def test_no_selected_sample_is_easy_or_biased_whatever_the_pool_scores() -> None:
    rng = np.random.default_rng(3)
    for _ in range(300):
        size = int(rng.integers(1, 60))
        num_incorrect = rng.integers(0, 6, size)
        bias = [None if rng.random() < 0.1 else float(rng.normal(-2.3, 2)) for _ in range(size)]
        result = run_rap(
            sample_id_N=[f"{n}" for n in range(size)],
            discrepancy_N=(rng.integers(-5, 6, size) / 5).tolist(),
            bias_N=bias,
            difficulty_N=(num_incorrect / 5).tolist(),
        )
        selected = [
            n
            for n, decision in enumerate(result.decisions)
            if decision.outcome in ("kept", "brought_in")
        ]
        assert all(num_incorrect[n] > 0 for n in selected)
        assert all(bias[n] is None or bias[n] <= math.log(0.1) for n in selected)
        funnel = result.funnel
        assert funnel["brought_in"] == min(funnel["removed_easy"], funnel["candidates"])
        assert funnel["chosen"] == (
            funnel["after_ace"] - funnel["removed_easy"] + funnel["brought_in"]
        )
        assert funnel["chosen"] == len(result.selections)


def test_a_discrepancy_equal_to_lambda_c_is_not_above_it() -> None:
    assert selected_ids(["a", "b"], [0.5, 0.51], [-9, -9], [0.2, 0.2], draws=100) == ["b"]
    assert selected_ids(["a"], [0.8 - 0.2], None, None, lambda_c=0.6) == []


def test_a_bias_equal_to_lambda_a_is_not_above_it() -> None:
    bound = math.log(0.1)
    selected = selected_ids(["a", "b"], None, [bound, math.nextafter(bound, 0)], None)
    assert selected == ["a"]


def test_difficulties_are_compared_as_integers() -> None:
    assert 1 - 4 / 5 < 1 / 5
    selected = selected_ids(["easy", "once_incorrect"], [1.0, 0.0], [-9, -9], [0.0, 1 - 4 / 5])
    assert selected == ["once_incorrect"]
    assert selected_ids(["a"], [1.0], [-9.0], [1e-12]) == []


def test_a_sample_that_is_never_correct_is_not_brought_in() -> None:
    assert selected_ids(["easy", "never"], [1.0, 0.0], [-9, -9], [0.0, 1.0]) == []


def test_fewer_candidates_than_removed_are_all_brought_in_and_counted() -> None:
    result = run_rap(
        discrepancy_N=[1, 1, 1, 1, 1, 0, 0, 0], difficulty_N=[0, 0, 0, 0, 0, 0.2, 1, 1]
    )
    funnel = result.funnel
    assert (funnel["removed_easy"], funnel["candidates"], funnel["brought_in"]) == (4, 1, 1)
    with pytest.raises(EmptySelectionError, match="brings in 1 of 1 candidates"):
        rap.require_min(result.selections, 8, funnel, RAP_MEASURES)
    assert [selection.sample_id for selection in result.selections] == ["hardest"]


def test_ties_do_not_depend_on_the_order_of_the_pool() -> None:
    names = ["easy", *(f"s{n}" for n in range(20))]
    columns = ([1.0] + [0.0] * 20, [-9.0] * 21, [0.0] + [0.6] * 20)
    forward = selected_ids(names, *columns)
    backward = selected_ids(names[::-1], *(column[::-1] for column in columns))
    assert forward == backward
    assert len(forward) == 1


def test_a_measure_without_a_column_has_no_effect() -> None:
    assert selected_ids(IDS, DISCREPANCY, None, None) == ["kept", "biased", "easy"]
    assert selected_ids(IDS, None, BIAS, None) == [
        name for name in IDS if not name.startswith("biased")
    ]
    assert selected_ids(IDS, DISCREPANCY, BIAS, None) == ["kept", "easy"]


def test_a_response_too_short_for_ace_is_not_biased_and_is_counted() -> None:
    result = run_rap(bias_N=[None, math.nan, *BIAS[2:]])
    assert result.funnel["without_bias"] == 2
    assert result.decisions[0].outcome is Outcome.kept
    assert result.decisions[0].bias is None
    assert "no ACE value (response too short)" in result.decisions[0].reason


def test_an_empty_selection_is_refused_with_the_counts() -> None:
    result = run_rap(lambda_c=0.99, difficulty_N=[0.0] * 8)
    message = r"RAP selects 0 .* of 8 samples CDE leaves 1; ACE leaves 1; DRM removes 1"
    with pytest.raises(EmptySelectionError, match=message):
        rap.require_min(result.selections, 8, result.funnel, RAP_MEASURES)


def test_the_error_names_only_the_measures_that_took_part() -> None:
    result = run_rap(discrepancy_N=None, difficulty_N=None, lambda_a=1e-9)
    with pytest.raises(EmptySelectionError) as error:
        rap.require_min(result.selections, 8, result.funnel, ["ace"])
    assert "of 8 samples ACE leaves 0; move difficulty.ace.lambda_a or" in str(error.value)
    for other in ("CDE", "cde", "DRM"):
        assert other not in str(error.value)
    with pytest.raises(EmptySelectionError, match="candidates; add data, or lower"):
        rap.require_min([], 8, result.funnel, ["drm"])


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
