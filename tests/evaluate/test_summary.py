"""Headline figures, their intervals, and paired differences."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from difftrain.evaluate.summary import by_subset, headline, mean_headline, paired_difference
from difftrain.records import GradedBy, ItemResult


def marks(
    scores: Sequence[float | None], benchmark: str = "MMStar", subset: str = "s"
) -> list[ItemResult]:
    return [
        ItemResult(
            benchmark=benchmark,
            item_id=f"s/0/{place // 2}/{place % 2}",
            response="",
            extracted=None,
            score=score,
            graded_by=GradedBy.failed if score is None else GradedBy.rule,
            category=subset,
        )
        for place, score in enumerate(scores)
    ]


def test_the_headline_is_the_mean_inside_its_interval() -> None:
    found = headline("MMStar", marks([1.0, 0.0] * 50))
    assert found.score == 0.5
    assert 0.38 < found.low < 0.45 < 0.55 < found.high < 0.62
    assert (found.n, found.failed) == (100, 0)


def test_the_same_seed_gives_the_same_interval_in_any_order() -> None:
    some = marks([1.0, 0.0, 0.0, 1.0, 1.0])
    assert headline("MMStar", some, seed=1) == headline("MMStar", some[::-1], seed=1)
    many = marks([1.0, 0.0, 0.3] * 20)
    assert headline("MMStar", many, seed=1) != headline("MMStar", many, seed=2)


def test_the_reasons_of_marks_without_a_score_are_counted_apart() -> None:
    told = ["A", None, "not asked: no picture", "no answer: too long", "no answer: too long"]
    some = marks([1.0, None, None, None, None])
    found = [replace(mark, extracted=words) for mark, words in zip(some, told, strict=True)]
    for one in (headline("MMStar", found), mean_headline({"MMStar": found})):
        assert (one.failed, one.undecided, one.unasked, one.unanswered) == (4, 0, 1, 2)
    none = headline("MMStar", found[1:])
    assert (none.score, none.failed, none.unasked, none.unanswered) == (None, 4, 1, 2)


def test_marks_without_a_score_are_counted_and_not_averaged() -> None:
    found = headline("MMVet", marks([1.0, None, 0.0, None]))
    assert (found.score, found.n, found.failed) == (0.5, 2, 2)


def test_a_mean_over_no_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="no scored marks"):
        headline("MMVet", [])


def test_hallusionbench_questions_of_one_figure_are_drawn_together() -> None:
    scores: list[float | None] = [1.0, 1.0, 0.0, 0.0] * 10
    apart = headline("MMStar", marks(scores))
    together = headline("shapes/HallusionBench", marks(scores, "shapes/HallusionBench"))
    assert together.high - together.low > 1.2 * (apart.high - apart.low)


def test_a_list_of_clusters_must_fit_the_marks() -> None:
    with pytest.raises(ValueError, match="1 clusters for 2 marks"):
        headline("MMStar", marks([1.0, 0.0]), clusters=["a"])


def test_the_mean_over_benchmarks_is_unweighted() -> None:
    found = mean_headline({"MMStar": marks([1.0] * 9), "MMMU": marks([0.0], "MMMU")})
    assert (found.score, found.low, found.high, found.n) == (0.5, 0.5, 0.5, 10)
    with pytest.raises(ValueError, match="no benchmarks"):
        mean_headline({})


def test_a_paired_difference_is_tighter_than_two_intervals() -> None:
    before = marks([1.0, 0.0] * 40)
    after = marks([1.0, 0.0] * 38 + [1.0, 1.0] * 2)
    found = paired_difference(before, after)
    assert found.mean == pytest.approx(2 / 80)
    assert 0 <= found.low < found.mean < found.high < 0.08
    assert paired_difference(after, before).mean == pytest.approx(-2 / 80)


def test_a_paired_difference_averages_benchmarks_not_items() -> None:
    before = marks([0.0] * 9) + marks([0.0], "MMMU")
    after = marks([0.0] * 9) + marks([1.0], "MMMU")
    assert paired_difference(before, after).mean == 0.5


def test_pairs_with_a_side_that_failed_are_left_out_and_counted() -> None:
    found = paired_difference(marks([1.0, None, 0.0]), marks([1.0, 1.0, None]))
    assert (found.mean, found.n, found.failed) == (0.0, 1, 2)


def test_different_item_sets_are_refused() -> None:
    with pytest.raises(ValueError, match="one side only"):
        paired_difference(marks([1.0]), marks([1.0, 0.0]))
    with pytest.raises(ValueError, match="benchmarks differ"):
        paired_difference(marks([1.0]), marks([1.0], "MMMU"))
    with pytest.raises(ValueError, match="marked twice"):
        paired_difference(marks([1.0]) * 2, marks([1.0]) * 2)


def test_an_item_with_two_capabilities_counts_in_both() -> None:
    some = marks([1.0], subset="rec,ocr") + marks([0.0], subset="rec")
    assert by_subset(some) == {"ocr": 1.0, "rec": 0.5}
