"""The page that says whether choosing pays: averages over seeds, what is missing, what refused."""

import json
from pathlib import Path

import pytest
from pays_cost import Cost, Outcome
from pays_page import Page, averaged, over_seeds, row

from difftrain.config.evaluate import MINIATURES
from difftrain.records import GradedBy, ItemResult

COST = Cost(choice_generations=40, choice_seconds=2, train_generations=80, train_seconds=9, steps=5)


def marks(*scores: float | None) -> list[ItemResult]:
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
        for name in MINIATURES
        for number, score in enumerate(scores)
    ]


def outcome(*scores: float | None) -> Outcome:
    return Outcome(samples=7, cost=COST, marks=marks(*scores))


def test_marks_are_averaged_item_by_item_and_an_unscored_item_stays_unscored() -> None:
    found = averaged([marks(1.0, 0.0), marks(0.0, None)])
    assert [each.score for each in found[:2]] == [0.5, None]


def test_an_interval_over_seeds_needs_two_of_them_and_is_students() -> None:
    assert over_seeds([0.1]) is None
    found = over_seeds([0.0, 0.1, 0.2])
    assert found is not None
    assert found["high"] - found["mean"] == pytest.approx(4.3027 * 0.1 / 3**0.5, rel=1e-3)


def test_an_arm_is_compared_only_on_the_seeds_that_the_random_arm_has() -> None:
    found = row({1: outcome(1.0, 1.0), 2: outcome(0.0, 0.0)}, {1: outcome(0.0, 1.0)})
    assert found["seeds"] == [1, 2]
    assert found["minus_random"]["mean"] == 0.5
    assert list(found["minus_random_by_seed"]) == ["1"]


def test_a_page_that_is_not_complete_says_what_is_missing(tmp_path: Path) -> None:
    page = Page(tmp_path, steps=3, seeds=[1, 2], words=["data.num_samples=48"])
    page.write({("steps", 1): {"RAP": outcome(1.0, 0.0), "random": outcome(0.0, 0.0)}}, None)
    told = page.path.read_text()
    assert "**Not complete**" in told
    assert "steps, seed 1: full pool, CDE alone, ACE alone;" in told
    assert "+50.0" in told
    assert "data.num_samples=48" in told
    assert len(json.loads((tmp_path / "pays.json").read_text())["missing"]) == 4


def test_a_complete_page_claims_nothing_missing_and_names_twins_and_refusals(
    tmp_path: Path,
) -> None:
    own = outcome(1.0, 0.0)
    twin = Outcome(samples=9, cost=COST, marks=marks(1.0, 1.0), like="full pool")
    refused = Outcome(samples=0, refused="NothingChosen: RAP chooses 0 samples")
    arms = {"RAP": own, "random": own, "full pool": own, "ACE alone": twin, "CDE alone": refused}
    page = Page(tmp_path, steps=3, seeds=[1], words=[])
    page.write({(view, 1): arms for view in ("steps", "epochs")}, marks(0.0, 0.0))
    told = page.path.read_text()
    assert "Not complete" not in told
    assert "ACE alone, seed 1: chooses the very samples of full pool" in told
    assert "NothingChosen" in told
    assert "| untrained |" in told
