"""Mean scores with 95 % intervals, reasons for missing scores, and paired differences.

An item is undecided if neither a rule nor a judge read an answer. `failed` counts the undecided
items and those without a score; `skipped` and `no_response` are two reasons for a missing score.
"""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from difftrain.evaluate.summary import (
    cluster_of,
    count_undecided,
    no_score_reason,
    paired_difference,
    summarize,
    summarize_mean,
)
from difftrain.evaluate.write_results import breakdown
from difftrain.records import GradedBy, ItemResult, ItemStatus


def results(
    scores: Sequence[float | None], benchmark: str = "MMStar", category: str = "s"
) -> list[ItemResult]:
    return [
        ItemResult(
            benchmark=benchmark,
            # category/set/figure/question, as in HallusionBench
            item_id=f"s/0/{index // 2}/{index % 2}",
            response="",
            extracted=None,
            score=score,
            graded_by=None if score is None else GradedBy.rule,
            status=ItemStatus.failed if score is None else ItemStatus.scored,
            category=category,
        )
        for index, score in enumerate(scores)
    ]


def test_the_score_is_the_mean_inside_its_interval() -> None:
    summary = summarize("MMStar", results([1.0, 0.0] * 50))
    assert summary.score == 0.5
    # The 95 % interval of a mean of 100 scores is about 0.5 +- 1.96 * 0.05.
    assert 0.38 < summary.low < 0.45 < 0.55 < summary.high < 0.62
    assert (summary.n, summary.failed) == (100, 0)


def test_the_same_items_give_the_same_interval_in_any_order() -> None:
    five_results = results([1.0, 0.0, 0.0, 1.0, 1.0])
    assert summarize("MMStar", five_results) == summarize("MMStar", five_results[::-1])


def test_items_without_a_score_are_counted_by_reason() -> None:
    scored, judge_failed, *rest = results([1.0, None, None, None, None])  # rest: three results
    skipped = replace(rest[0], response=None, status=ItemStatus.skipped)
    no_response = [replace(result, response=None) for result in rest[1:]]
    unscored = [judge_failed, skipped, *no_response]
    all_results = [scored, *unscored]
    for summary in (summarize("MMStar", all_results), summarize_mean({"MMStar": all_results})):
        counts = (summary.failed, summary.undecided, summary.skipped, summary.no_response)
        assert counts == (4, 0, 1, 2)
    summary = summarize("MMStar", unscored)
    counts = (summary.failed, summary.skipped, summary.no_response)
    assert (summary.score, *counts) == (None, 4, 1, 2)


def test_items_without_a_score_are_counted_and_left_out_of_the_mean() -> None:
    summary = summarize("MMVet", results([1.0, None, 0.0, None]))
    assert (summary.score, summary.n, summary.failed) == (0.5, 2, 2)


def test_a_mean_over_no_items_is_an_error() -> None:
    with pytest.raises(ValueError, match="so there is no mean"):
        summarize("MMVet", [])


def test_hallusionbench_questions_on_one_figure_are_resampled_together() -> None:
    scores: list[float | None] = [1.0, 1.0, 0.0, 0.0] * 10
    resampled_alone = summarize("MMStar", results(scores))
    hallusion_results = results(scores, "shapes/HallusionBench")  # two questions on each figure
    resampled_together = summarize("shapes/HallusionBench", hallusion_results)
    width_alone = resampled_alone.high - resampled_alone.low
    # Both scores of a figure are equal, so the interval is about sqrt(2) times as wide.
    assert resampled_together.high - resampled_together.low > 1.2 * width_alone


def test_the_mean_over_benchmarks_is_unweighted() -> None:
    summary = summarize_mean({"MMStar": results([1.0] * 9), "MMMU": results([0.0], "MMMU")})
    # The scores of each benchmark are all equal, so the interval has no width.
    assert (summary.score, summary.low, summary.high, summary.n) == (0.5, 0.5, 0.5, 10)
    with pytest.raises(ValueError, match="no benchmarks"):
        summarize_mean({})


def test_the_interval_of_a_paired_difference_is_narrower_than_that_of_a_score() -> None:
    before = results([1.0, 0.0] * 40)
    after = results([1.0, 0.0] * 38 + [1.0, 1.0] * 2)  # two of 80 items have become right
    summary = paired_difference(before, after)
    assert summary.mean == pytest.approx(2 / 80)
    # The interval of a score of 80 such items reaches about 0.11 to both sides of it.
    assert 0 <= summary.low < summary.mean < summary.high < 0.08
    assert paired_difference(after, before).mean == pytest.approx(-2 / 80)


def test_a_paired_difference_averages_benchmarks_not_items() -> None:
    before = results([0.0] * 9) + results([0.0], "MMMU")
    after = results([0.0] * 9) + results([1.0], "MMMU")
    assert paired_difference(before, after).mean == 0.5


def test_items_without_a_score_on_one_side_are_left_out_and_counted() -> None:
    summary = paired_difference(results([1.0, None, 0.0]), results([1.0, 1.0, None]))
    assert (summary.mean, summary.n, summary.left_out) == (0.0, 1, 2)


def test_a_paired_difference_needs_the_same_items_on_both_sides() -> None:
    with pytest.raises(ValueError, match="items are in only one result"):
        paired_difference(results([1.0]), results([1.0, 0.0]))
    with pytest.raises(ValueError, match="benchmarks differ"):
        paired_difference(results([1.0]), results([1.0], "MMMU"))
    with pytest.raises(ValueError, match="graded twice"):
        paired_difference(results([1.0]) * 2, results([1.0]) * 2)


def results_graded_by(
    graded_by: GradedBy | None, scores: Sequence[float | None], benchmark: str = "MMStar"
) -> list[ItemResult]:
    return [replace(result, graded_by=graded_by) for result in results(scores, benchmark)]


UNDECIDED = results_graded_by(None, [0.0, 0.0])  # no rule applied, and no judge was called
UNSCORED = results_graded_by(None, [None, None])  # the judge failed
DECIDED = results_graded_by(GradedBy.rule, [1.0, 0.0])


# shapes/MMVet is a built-in imitation of MM-Vet.
@pytest.mark.parametrize("name", ["MMStar", "shapes/MMVet", "HallusionBench"])
@pytest.mark.parametrize(
    "failures",
    [UNDECIDED, UNSCORED, [*UNDECIDED, *UNSCORED]],
    ids=["undecided", "unscored", "undecided and unscored"],
)
def test_if_neither_rule_nor_judge_decided_an_item_there_is_a_reason_instead_of_a_score(
    name: str, failures: list[ItemResult]
) -> None:
    summary = summarize(name, failures)
    assert (summary.score, summary.low, summary.high, summary.n) == (None, None, None, 0)
    assert summary.failed == len(failures)
    assert summary.reason
    assert summary.reason == no_score_reason(name, failures)


def test_the_reason_says_why_there_is_no_score() -> None:
    assert summarize("shapes/MMVet", UNDECIDED).reason == (
        "MMVet needs a judge: none was called, or none of its replies was a score"
    )
    assert summarize("MMStar", UNSCORED).reason == "2 of 2 items got no score"
    assert "the others are undecided" in str(summarize("MMStar", [*UNDECIDED, *UNSCORED]).reason)


def test_one_decided_item_is_enough_for_a_score() -> None:
    results_of_all_kinds = [*DECIDED[:1], *UNDECIDED, *UNSCORED]
    numbered = [replace(result, item_id=str(i)) for i, result in enumerate(results_of_all_kinds)]
    summary = summarize("MMStar", numbered)
    assert summary.score == pytest.approx(1 / 3)
    # An undecided item counts as wrong, an unscored one not at all.
    assert (summary.n, summary.failed, summary.undecided, summary.reason) == (3, 4, 2, None)
    assert count_undecided([*DECIDED, *UNDECIDED, *UNSCORED]) == 2


def test_there_is_no_mean_over_benchmarks_if_one_has_no_score() -> None:
    summary = summarize_mean({"MMStar": DECIDED, "MMVet": UNDECIDED})
    assert summary.score is None
    assert summary.reason == "no mean over 2 benchmarks, because there is no score of MMVet"
    assert (summary.failed, summary.undecided) == (2, 2)


def test_a_benchmark_without_an_item_decided_by_rule_or_judge_has_no_tables() -> None:
    assert breakdown("MMVet", results_graded_by(None, [0.0, 0.0], "MMVet")) == {}
    decided = results_graded_by(GradedBy.judge, [1.0, 0.0], "MMVet")
    assert breakdown("MMVet", decided)["capabilities"]["Overall"]["score"] == 0.5


def wemath_results(**scores: str) -> list[ItemResult]:
    """Results of problems, such as A="101": the two steps, then the whole; `-` has no score."""
    rows = []
    for name, row in scores.items():
        for key, mark in zip(("1", "2", "multi"), row, strict=False):
            (result,) = results([None if mark == "-" else float(mark)], "WeMath", "Translation")
            rows.append(replace(result, item_id=f"{name}/2steps_{key}"))
    return rows


def test_the_score_of_wemath_counts_problems_and_not_items() -> None:
    # Mastered 1, rote (right without a step) 0, steps without the whole 1/2, nothing 0.
    all_results = wemath_results(A="111", B="101", C="110", D="010")
    summary = summarize("WeMath", all_results)
    assert (summary.score, summary.n) == (1.5 / 4, 4)
    pair = summarize_mean({"WeMath": all_results, "MMStar": results([1.0, 1.0])})
    assert pair.score == pytest.approx((1.5 / 4 + 1) / 2)


def test_a_wemath_problem_with_a_missing_or_unscored_item_is_in_no_mean() -> None:
    summary = summarize("WeMath", wemath_results(A="111", B="1-1", C="11", D="000"))
    assert (summary.score, summary.n) == (0.5, 2)
    table = breakdown("WeMath", wemath_results(A="111", B="1-1", C="11"))["problems"]["Strict"]
    assert (table["n"], table["Score"]) == (1, 1.0)
    incomplete = summarize("WeMath", wemath_results(A="11", B="-11"))
    assert (incomplete.score, incomplete.reason) == (
        None,
        "no problem has a score on all its steps and on the whole",
    )
    assert breakdown("WeMath", wemath_results(A="11")) == {}


def test_a_difference_of_wemath_is_paired_by_problem() -> None:
    before, after = wemath_results(A="111", B="000"), wemath_results(A="011", B="110")
    estimate = paired_difference(before, after, resamples=100)
    assert (estimate.mean, estimate.n) == (pytest.approx((-1 + 0.5) / 2), 2)
    with pytest.raises(ValueError, match="only one result"):
        paired_difference(before, after[:-1])


def test_versions_of_a_mathverse_problem_are_resampled_together() -> None:
    assert cluster_of("shapes/MathVerse", "12/57") == cluster_of("shapes/MathVerse", "12/58")
    assert cluster_of("MathVerse", "57") == "57"  # the items do not name their problem


@pytest.mark.parametrize("name", ["MathVerse", "shapes/LogicVista"])
def test_the_reason_for_a_missing_score_says_that_no_rule_exists(name: str) -> None:
    undecided = [replace(row, graded_by=None) for row in results([0.0, 0.0], name)]
    reason = no_score_reason(name, undecided)
    assert reason == (
        f"{name.removeprefix('shapes/')} needs a judge: none was called, or none of its replies "
        "could be used"
    )
