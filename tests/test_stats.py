"""Tests and intervals against hand-computed values and scipy's row."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as scipy_stats

from difftrain import stats
from difftrain.evaluate import summary
from difftrain.evaluate.summary import cluster_of
from difftrain.records import GradedBy, ItemResult


def results(benchmark: str, scores: Sequence[float | None]) -> list[ItemResult]:
    """One result per item; HallusionBench's have four questions to a figure."""
    ids = [str(n) for n in range(len(scores))]
    if benchmark.endswith("HallusionBench"):
        ids = [f"VS_chart/0/{n // 4}/{n % 4}" for n in range(len(scores))]
    return [
        ItemResult(
            benchmark=benchmark, item_id=each, response="", extracted=None, score=score,
            graded_by=None if score is None else GradedBy.rule, category="",
        )
        for each, score in zip(ids, scores, strict=True)
    ]  # fmt: skip


def score_tables(results_S: Sequence[Sequence[ItemResult]]) -> dict[str, stats.ItemTable]:
    return stats.score_tables(results_S, cluster_of)


def difference_tables(
    before_S: Sequence[Sequence[ItemResult]], after_S: Sequence[Sequence[ItemResult]]
) -> dict[str, stats.ItemTable]:
    return stats.difference_tables(before_S, after_S, cluster_of)


def coins(p: float, count: int, seed: int) -> list[float]:
    return list(np.random.default_rng(seed).binomial(1, p, count).astype(float))


def test_mcnemar_counts_only_items_that_one_side_alone_got_correct() -> None:
    # Ten such items, eight for one side: 2 x (1 + 10 + 45) / 1024.
    assert stats.mcnemar(8, 2) == pytest.approx(112 / 1024)
    assert stats.mcnemar(2, 8) == pytest.approx(112 / 1024)
    assert stats.mcnemar(0, 0) == 1.0
    assert stats.mcnemar(5, 5) == 1.0


def test_holm_steps_down_and_never_lets_a_larger_p_become_smaller() -> None:
    # 0.005 x 4, 0.01 x 3, 0.03 x 2, and 0.04 x 1, which may not fall below 0.06.
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.6, 0.7]) == [1.0, 1.0]
    assert stats.holm([]) == []


def test_without_clusters_the_standard_error_is_the_textbook_s() -> None:
    values = coins(0.3, 50, 1)
    scored = [(str(n), value) for n, value in enumerate(values)]
    assert stats.standard_error(scored) == pytest.approx(scipy_stats.sem(values))


def test_responses_that_repeat_each_other_count_once() -> None:
    values = coins(0.5, 30, 2)
    doubled = [(str(n), value) for n, value in enumerate(values) for _ in range(4)]
    assert stats.standard_error(doubled) == pytest.approx(scipy_stats.sem(values))


def test_one_seed_has_the_report_s_own_interval_and_score() -> None:
    actual = results("MMStar", coins(0.6, 80, 3)) + results("HallusionBench", coins(0.5, 80, 4))
    pooled = stats.pool(score_tables([actual]), "bootstrap")
    for name in ("MMStar", "HallusionBench"):
        expected = summary.summarize(
            name, [result for result in actual if result.benchmark == name]
        )
        assert (pooled[name].mean, pooled[name].low, pooled[name].high) == pytest.approx(
            (expected.score, expected.low, expected.high)
        )
    by_name = {
        name: [m for m in actual if m.benchmark == name] for name in pooled if name != "mean"
    }
    both = summary.summarize_mean(by_name)
    assert (pooled["mean"].mean, pooled["mean"].low) == pytest.approx((both.score, both.low))


def test_a_paired_difference_is_the_report_s_own() -> None:
    before, after = results("MMStar", coins(0.5, 80, 5)), results("MMStar", coins(0.7, 80, 6))
    pooled = stats.pool(difference_tables([before], [after]), "paired")
    expected = summary.paired_difference(before, after)
    actual = pooled["MMStar"]
    assert (actual.mean, actual.low, actual.high) == pytest.approx(
        (expected.mean, expected.low, expected.high)
    )


def test_correct_or_incorrect_items_of_one_seed_are_tested_by_mcnemar() -> None:
    before, after = results("MMMU", coins(0.5, 60, 7)), results("MMMU", coins(0.7, 60, 8))
    actual = stats.pool(difference_tables([before], [after]), "paired")["MMMU"]
    won = sum((b.score or 0) > (a.score or 0) for a, b in zip(before, after, strict=True))
    lost = sum((b.score or 0) < (a.score or 0) for a, b in zip(before, after, strict=True))
    table = scipy_stats.binomtest(won, won + lost, 0.5).pvalue
    assert (actual.test, actual.p) == (stats.MCNEMAR, pytest.approx(table))


@pytest.mark.parametrize("case", ["parts of a point", "figures", "two seeds", "two benchmarks"])
def test_other_differences_are_tested_by_bootstrap(case: str) -> None:
    name = "HallusionBench" if case == "figures" else "MMVet"
    before, after = results(name, coins(0.5, 40, 9)), results(name, coins(0.6, 40, 10))
    if case == "parts of a point":
        after[0] = replace(after[0], score=0.3)
    pairs = [([before], [after])]
    if case == "two seeds":
        pairs = [([before, before], [after, after[:1] + before[1:]])]
    if case == "two benchmarks":
        more = results("MMMU", coins(0.5, 40, 11))
        pairs = [([before + more], [after + more])]
    actual = stats.pool(difference_tables(*pairs[0]), "paired")
    tested = actual["mean"] if case == "two benchmarks" else actual[name]
    assert tested.test == (stats.SEVERAL_SEEDS if case == "two seeds" else stats.BOOTSTRAP)


def test_seeds_that_disagree_make_p_student_s() -> None:
    before = results("MMStar", coins(0.5, 200, 13))
    tuned = [results("MMStar", coins(chance, 200, 14 + n)) for n, chance in enumerate((0.9, 0.6))]
    both = stats.pool(difference_tables([before] * 2, tuned), "paired")["MMStar"]
    items = stats.pool(difference_tables([before], tuned[:1]), "paired")["MMStar"]
    assert both.low < 0 < both.high
    assert items.p is not None
    assert both.p is not None
    assert items.p < 0.001 < 0.05 < both.p


def test_p_over_seeds_is_the_t_test_s_and_agrees_with_the_interval() -> None:
    means = np.array([0.02, 0.05, 0.035])
    actual = stats.p_over_seeds(means, 0.0, 300)
    assert actual == pytest.approx(scipy_stats.ttest_1samp(means, 0).pvalue)
    assert stats.p_over_seeds(np.array([0.1, 0.1]), 0.0, 300) == 0
    assert stats.p_over_seeds(np.zeros(2), 0.0, 300) == 1
    assert stats.p_over_seeds(np.array([0.1, 0.2]), float("inf"), 1) == 1
    rng = np.random.default_rng(17)
    for _ in range(50):
        drawn = rng.normal(0.02, 0.012, 2)
        low, high = stats.interval(drawn, np.zeros(1), 0.01**2, 300)
        assert (stats.p_over_seeds(drawn, 0.01**2, 300) < 0.05) == (low > 0 or high < 0)


def test_rows_that_differ_by_chance_alone_seldom_show_a_difference() -> None:
    rng, significant, tables = np.random.default_rng(18), 0, 150
    for _ in range(tables):
        means = rng.normal(0, 0.0095, (8, 1)) + rng.normal(0, 0.022, (8, 3))
        by_items = 2 * scipy_stats.norm.sf(np.abs(means.mean(axis=1)) / 0.0095)
        both = [max(p, stats.p_over_seeds(row, 0.0095**2, 600))
                for p, row in zip(by_items, means, strict=True)]  # fmt: skip
        significant += min(stats.holm(both)) < 0.05
    assert significant / tables < 0.2  # one row in three, were items alone tested


def test_the_bootstrap_s_p_is_close_to_the_paired_t_test_s() -> None:
    rng = np.random.default_rng(12)
    before = rng.uniform(0, 0.6, 150)
    after = before + rng.normal(0.03, 0.2, 150)
    estimate = stats.pool(
        difference_tables([results("MMVet", list(before))], [results("MMVet", list(after))]),
        "paired",
        resamples=20000,
    )["MMVet"]
    assert estimate.p == pytest.approx(scipy_stats.ttest_rel(after, before).pvalue, abs=0.02)


def test_a_p_is_never_zero() -> None:
    assert stats.bootstrap_p(np.full(1999, 0.3)) == pytest.approx(0.001)
    assert stats.bootstrap_p(np.zeros(100)) == 1.0


def test_questions_on_one_figure_make_the_interval_wider() -> None:
    right = [float(n // 4 % 3 == 0) for n in range(120)]
    figures = stats.pool(score_tables([results("HallusionBench", right)]), "bootstrap")["mean"]
    items = stats.pool(score_tables([results("MMStar", right)]), "bootstrap")["mean"]
    assert figures.mean == items.mean
    assert figures.high - figures.low > 1.6 * (items.high - items.low)


def test_with_items_that_all_agree_the_interval_is_student_s_over_seeds() -> None:
    means = np.array([0.02, 0.05, 0.035])
    actual = stats.interval(means, np.zeros(10), 0.0, 300)
    expected = scipy_stats.t.interval(0.95, 2, loc=means.mean(), scale=scipy_stats.sem(means))
    assert actual == pytest.approx(expected)


def test_with_seeds_that_all_agree_the_interval_is_student_s_over_items() -> None:
    actual = stats.interval(np.array([0.1, 0.1]), np.zeros(10), 0.02**2, 300)
    assert actual == pytest.approx(scipy_stats.t.interval(0.95, 299, loc=0.1, scale=0.02))


def test_seeds_that_disagree_make_the_interval_wider_than_either_seed_s_own() -> None:
    before = results("MMStar", coins(0.5, 200, 13))
    better, worse = results("MMStar", coins(0.8, 200, 14)), results("MMStar", coins(0.3, 200, 15))
    both = difference_tables([before, before], [better, worse])
    actual = stats.pool(both, "paired")["MMStar"]
    assert len(actual.seed_means) == 2
    assert actual.low < min(actual.seed_means) < max(actual.seed_means) < actual.high


def test_no_interval_reaches_beyond_the_scores_there_can_be() -> None:
    runs = [results("MMStar", coins(chance, 100, 17)) for chance in (0.4, 0.99)]
    actual = stats.pool(score_tables(runs), "bootstrap")["MMStar"]
    assert (actual.low, actual.high) == (0.0, 1.0)
    gains = difference_tables([results("MMStar", [0.0] * 100)] * 2, runs)
    assert stats.pool(gains, "paired")["MMStar"].low == -1.0


def test_the_interval_covers_the_true_value_about_as_often_as_stated() -> None:
    rng, covered, tables = np.random.default_rng(16), 0, 400
    for _ in range(tables):
        value_SI = rng.normal(0, 0.012, (3, 1)) + rng.normal(0, 0.35, (3, 300))
        value_SI = value_SI + rng.normal(0, 0.15, (1, 300))
        items = float(scipy_stats.sem(value_SI.mean(axis=0))) ** 2
        low, high = stats.interval(value_SI.mean(axis=1), np.zeros(1), items, 300)
        covered += low <= 0 <= high
    assert 0.92 <= covered / tables <= 1.0


def test_an_item_without_a_score_on_any_side_is_left_out_on_all() -> None:
    before, after = results("MMMU", [1, 0, None, 1]), results("MMMU", [1, 1, 1, None])
    actual = difference_tables([before], [after])["MMMU"]
    assert (actual.value_SI.tolist(), actual.left_out) == ([[0.0, 1.0]], 2)


def test_sides_with_other_items_are_refused() -> None:
    with pytest.raises(ValueError, match="1 items are on one side only"):
        difference_tables([results("MMMU", [1, 0])], [results("MMMU", [1, 0, 1])])
    with pytest.raises(ValueError, match="one side only"):
        score_tables([results("MMMU", [1, 0]), results("MMMU", [1])])
    with pytest.raises(ValueError, match="graded twice"):
        score_tables([results("MMMU", [1, 0]) * 2])
    with pytest.raises(ValueError, match="no item has a score"):
        score_tables([results("MMMU", [None, None])])


def test_tables_keep_one_row_per_seed() -> None:
    actual = score_tables([results("MMMU", [1, 0, 1]), results("MMMU", [0, 0, 1])])["MMMU"]
    assert isinstance(actual, stats.ItemTable)
    assert actual.value_SI.tolist() == [[1, 0, 1], [0, 0, 1]]
