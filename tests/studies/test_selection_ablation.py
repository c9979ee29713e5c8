"""The page of the selection ablation: averages over seeds, missing runs, refused selections.

The study trains arms: ways to select the training samples, such as RAP (a paper's method), CDE and
ACE alone (two measures of RAP), random samples and the full pool. The page has two views of them:
"steps" (equal optimizer steps) and "epochs" (equal epochs).
"""

import json
from pathlib import Path

import pytest
from selection_ablation_page import (
    ArmCost,
    ArmOutcome,
    Page,
    arm_row,
    mean_over_seeds,
    seed_interval,
)

from difftrain.config.evaluate import BUILT_IN
from difftrain.records import GradedBy, ItemResult

COST = ArmCost(
    selection_generations=40,
    selection_seconds=2,
    train_generations=80,
    train_seconds=9,
    steps=5,
)


def results(*scores: float | None) -> list[ItemResult]:
    """Item results with these scores in every built-in benchmark."""
    return [
        ItemResult(
            benchmark=name,
            item_id=str(number),
            response="",
            extracted=None,
            score=score,
            graded_by=GradedBy.rule,
            category="",
        )
        for name in BUILT_IN
        for number, score in enumerate(scores)
    ]


def outcome(*scores: float | None) -> ArmOutcome:
    """The outcome of an arm whose items have these scores."""
    return ArmOutcome(samples=7, cost=COST, results=results(*scores))


def test_scores_are_averaged_item_by_item_and_an_unscored_item_stays_unscored() -> None:
    averaged = mean_over_seeds([results(1.0, 0.0), results(0.0, None)])
    assert [result.score for result in averaged[:2]] == [0.5, None]  # two items of one benchmark


def test_an_interval_over_seeds_needs_two_seeds_and_is_students_t() -> None:
    assert seed_interval([0.1]) is None
    interval = seed_interval([0.0, 0.1, 0.2])
    assert interval is not None
    # 4.3027 is the 97.5 % quantile of Student's t with 2 degrees of freedom.
    assert interval["high"] - interval["mean"] == pytest.approx(4.3027 * 0.1 / 3**0.5, rel=1e-3)


def test_an_arm_is_compared_only_on_the_seeds_that_the_random_arm_has() -> None:
    by_seed = {1: outcome(1.0, 1.0), 2: outcome(0.0, 0.0)}
    row = arm_row(by_seed, random_by_seed={1: outcome(0.0, 1.0)})
    assert row["seeds"] == [1, 2]
    assert row["minus_random"]["mean"] == 0.5  # seed 1: a mean of 1.0 minus 0.5
    assert list(row["minus_random_by_seed"]) == ["1"]


def test_an_incomplete_page_says_what_is_missing(tmp_path: Path) -> None:
    page = Page(tmp_path, steps=3, seeds=[1, 2], overrides=["data.num_samples=48"])
    outcomes = {("steps", 1): {"RAP": outcome(1.0, 0.0), "random": outcome(0.0, 0.0)}}
    page.write(outcomes, base=None)  # the untrained model was not evaluated
    text = page.path.read_text()
    assert "**Not complete**" in text
    assert "steps, seed 1: full pool, CDE alone, ACE alone;" in text
    assert "+50.0" in text  # RAP's mean of 0.5 minus random's 0, in points of 100
    assert "data.num_samples=48" in text
    content = json.loads((tmp_path / "selection_ablation.json").read_text())
    assert len(content["missing"]) == 4  # each of 2 views x 2 seeds lacks at least one arm


def test_a_complete_page_names_shared_selections_and_refusals(
    tmp_path: Path,
) -> None:
    trained = outcome(1.0, 0.0)
    same_samples = ArmOutcome(samples=9, cost=COST, results=results(1.0, 1.0), same_as="full pool")
    refused = ArmOutcome(samples=0, refused="EmptySelectionError: RAP selects 0 samples")
    arms = {
        "RAP": trained,
        "random": trained,
        "full pool": trained,
        "ACE alone": same_samples,
        "CDE alone": refused,
    }
    page = Page(tmp_path, steps=3, seeds=[1], overrides=[])
    outcomes = {(view, 1): arms for view in ("steps", "epochs")}
    page.write(outcomes, base=results(0.0, 0.0))
    text = page.path.read_text()
    assert "Not complete" not in text
    assert "ACE alone, seed 1: selects the same samples as full pool" in text
    assert "EmptySelectionError" in text
    assert "| untrained |" in text
