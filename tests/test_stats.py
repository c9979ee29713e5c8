"""difftrain/stats.py against values computed by hand and by scipy.

The last letters of a name are axes: S seeds, I items, R resamples. A cluster is a group of items
that the bootstrap resamples together: the questions on one figure of HallusionBench, else a single
item. The argument mean_R of stats.interval() has an effect only for one seed, so here it is zeros.
"""

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
    """One result per score; each figure of HallusionBench has four questions."""
    ids = [str(n) for n in range(len(scores))]
    if benchmark.endswith("HallusionBench"):
        ids = [f"VS_chart/0/{n // 4}/{n % 4}" for n in range(len(scores))]
    return [
        ItemResult(
            benchmark=benchmark, item_id=item_id, response="", extracted=None, score=score,
            graded_by=None if score is None else GradedBy.rule, category="",
        )
        for item_id, score in zip(ids, scores, strict=True)
    ]  # fmt: skip


def score_tables(results_S: Sequence[Sequence[ItemResult]]) -> dict[str, stats.ItemTable]:
    return stats.score_tables(results_S, cluster_of)


def difference_tables(
    before_S: Sequence[Sequence[ItemResult]], after_S: Sequence[Sequence[ItemResult]]
) -> dict[str, stats.ItemTable]:
    return stats.difference_tables(before_S, after_S, cluster_of)


def random_scores(p: float, count: int, seed: int) -> list[float]:
    """Random scores: 1 with probability p, else 0."""
    return list(np.random.default_rng(seed).binomial(1, p, count).astype(float))


def test_mcnemar_counts_only_items_that_exactly_one_model_answers_correctly() -> None:
    # Of ten such items, eight are for one model: 2 x (1 + 10 + 45) / 1024.
    assert stats.mcnemar(8, 2) == pytest.approx(112 / 1024)
    assert stats.mcnemar(2, 8) == pytest.approx(112 / 1024)
    assert stats.mcnemar(0, 0) == 1.0
    assert stats.mcnemar(5, 5) == 1.0


def test_holm_keeps_the_order_of_p_values() -> None:
    # 0.005 x 4, 0.01 x 3, 0.03 x 2, and 0.04 x 1, which may not fall below 0.06.
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.6, 0.7]) == [1.0, 1.0]
    assert stats.holm([]) == []


def test_without_clusters_the_standard_error_is_that_of_the_mean() -> None:
    values = random_scores(0.3, 50, 1)
    scored = [(str(n), value) for n, value in enumerate(values)]
    assert stats.standard_error(scored) == pytest.approx(scipy_stats.sem(values))


def test_equal_items_of_one_cluster_count_once() -> None:
    values = random_scores(0.5, 30, 2)
    repeated = [(str(n), value) for n, value in enumerate(values) for _ in range(4)]
    assert stats.standard_error(repeated) == pytest.approx(scipy_stats.sem(values))


def test_for_one_seed_the_estimates_equal_those_of_the_report() -> None:
    actual = results("MMStar", random_scores(0.6, 80, 3)) + results(
        "HallusionBench", random_scores(0.5, 80, 4)
    )
    pooled = stats.pool(score_tables([actual]), "bootstrap")
    for name in ("MMStar", "HallusionBench"):
        expected = summary.summarize(
            name, [result for result in actual if result.benchmark == name]
        )
        assert (pooled[name].mean, pooled[name].low, pooled[name].high) == pytest.approx(
            (expected.score, expected.low, expected.high)
        )
    by_name = {
        name: [result for result in actual if result.benchmark == name]
        for name in pooled
        if name != "mean"
    }
    expected_mean = summary.summarize_mean(by_name)
    assert (pooled["mean"].mean, pooled["mean"].low) == pytest.approx(
        (expected_mean.score, expected_mean.low)
    )


def test_the_paired_difference_equals_the_one_in_the_report() -> None:
    before, after = (
        results("MMStar", random_scores(0.5, 80, 5)),
        results("MMStar", random_scores(0.7, 80, 6)),
    )
    pooled = stats.pool(difference_tables([before], [after]), "paired")
    expected = summary.paired_difference(before, after)
    actual = pooled["MMStar"]
    assert (actual.mean, actual.low, actual.high) == pytest.approx(
        (expected.mean, expected.low, expected.high)
    )


def test_scores_of_zero_and_one_from_a_single_seed_are_tested_by_mcnemar() -> None:
    before, after = (
        results("MMMU", random_scores(0.5, 60, 7)),
        results("MMMU", random_scores(0.7, 60, 8)),
    )
    actual = stats.pool(difference_tables([before], [after]), "paired")["MMMU"]
    wins = sum((b.score or 0) > (a.score or 0) for a, b in zip(before, after, strict=True))
    losses = sum((b.score or 0) < (a.score or 0) for a, b in zip(before, after, strict=True))
    expected = scipy_stats.binomtest(wins, wins + losses, 0.5).pvalue
    assert (actual.test, actual.p) == (stats.MCNEMAR, pytest.approx(expected))


@pytest.mark.parametrize("case", ["fractional scores", "figures", "two seeds", "two benchmarks"])
def test_other_differences_are_tested_by_bootstrap(case: str) -> None:
    name = "HallusionBench" if case == "figures" else "MMVet"
    before, after = (
        results(name, random_scores(0.5, 40, 9)),
        results(name, random_scores(0.6, 40, 10)),
    )
    if case == "fractional scores":
        after[0] = replace(after[0], score=0.3)
    before_S, after_S = [before], [after]
    if case == "two seeds":
        before_S, after_S = [before, before], [after, after[:1] + before[1:]]
    if case == "two benchmarks":
        second_benchmark = results("MMMU", random_scores(0.5, 40, 11))
        before_S, after_S = [before + second_benchmark], [after + second_benchmark]
    actual = stats.pool(difference_tables(before_S, after_S), "paired")
    tested = actual["mean"] if case == "two benchmarks" else actual[name]
    assert tested.test == (stats.SEVERAL_SEEDS if case == "two seeds" else stats.BOOTSTRAP)


def test_if_two_seeds_differ_much_p_is_far_larger_than_for_one_seed() -> None:
    before = results("MMStar", random_scores(0.5, 200, 13))
    tuned = [results("MMStar", random_scores(p, 200, 14 + n)) for n, p in enumerate((0.9, 0.6))]
    two_seeds = stats.pool(difference_tables([before] * 2, tuned), "paired")["MMStar"]
    one_seed = stats.pool(difference_tables([before], tuned[:1]), "paired")["MMStar"]
    assert two_seeds.low < 0 < two_seeds.high
    assert one_seed.p is not None
    assert two_seeds.p is not None
    assert one_seed.p < 0.001 < 0.05 < two_seeds.p


def test_p_over_seeds_equals_that_of_the_t_test_and_agrees_with_the_interval() -> None:
    means = np.array([0.02, 0.05, 0.035])
    actual = stats.p_over_seeds(means, item_variance=0.0, num_clusters=300)
    assert actual == pytest.approx(scipy_stats.ttest_1samp(means, 0).pvalue)
    # Without any variance p is 0, or 1 if the mean is zero. Infinite variance: nothing is known.
    assert stats.p_over_seeds(np.array([0.1, 0.1]), 0.0, 300) == 0
    assert stats.p_over_seeds(np.zeros(2), 0.0, 300) == 1
    assert stats.p_over_seeds(np.array([0.1, 0.2]), float("inf"), 1) == 1
    rng = np.random.default_rng(17)
    for _ in range(50):
        seed_mean_S = rng.normal(0.02, 0.012, 2)
        low, high = stats.interval(seed_mean_S, np.zeros(1), 0.01**2, 300)
        assert (stats.p_over_seeds(seed_mean_S, 0.01**2, 300) < 0.05) == (low > 0 or high < 0)


def test_rows_that_differ_by_chance_alone_seldom_show_a_difference() -> None:
    rng, num_significant, num_tables = np.random.default_rng(18), 0, 150
    # A table has 8 rows with 3 seeds each; the standard deviations are of a magnitude seen in runs.
    item_deviation, seed_deviation, num_items = 0.0095, 0.022, 600
    for _ in range(num_tables):
        means = rng.normal(0, item_deviation, (8, 1)) + rng.normal(0, seed_deviation, (8, 3))
        p_over_items = 2 * scipy_stats.norm.sf(np.abs(means.mean(axis=1)) / item_deviation)
        larger_p = [max(p, stats.p_over_seeds(row, item_deviation**2, num_items))
                for p, row in zip(p_over_items, means, strict=True)]  # fmt: skip
        num_significant += min(stats.holm(larger_p)) < 0.05
    assert num_significant / num_tables < 0.2  # the p over items alone would give a third


def test_the_bootstrap_p_is_close_to_that_of_the_paired_t_test() -> None:
    rng = np.random.default_rng(12)
    before = rng.uniform(0, 0.6, 150)
    after = before + rng.normal(0.03, 0.2, 150)
    estimate = stats.pool(
        difference_tables([results("MMVet", list(before))], [results("MMVet", list(after))]),
        "paired",
        resamples=20000,
    )["MMVet"]
    assert estimate.p == pytest.approx(scipy_stats.ttest_rel(after, before).pvalue, abs=0.02)


def test_a_p_value_is_never_zero() -> None:
    # 0 of 1999 resamples are below zero: 2 x (0 + 1) / (1999 + 1).
    assert stats.bootstrap_p(np.full(1999, 0.3)) == pytest.approx(0.001)
    assert stats.bootstrap_p(np.zeros(100)) == 1.0


def test_questions_on_one_figure_make_the_interval_wider() -> None:
    scores = [float(n // 4 % 3 == 0) for n in range(120)]  # equal within each figure
    figures = stats.pool(score_tables([results("HallusionBench", scores)]), "bootstrap")["mean"]
    items = stats.pool(score_tables([results("MMStar", scores)]), "bootstrap")["mean"]
    assert figures.mean == items.mean
    # Four equal questions per figure double the width; the bootstrap varies around that.
    assert figures.high - figures.low > 1.6 * (items.high - items.low)


def test_without_variance_of_items_the_interval_is_students_t_over_seeds() -> None:
    means = np.array([0.02, 0.05, 0.035])
    actual = stats.interval(means, np.zeros(10), item_variance=0.0, num_clusters=300)
    expected = scipy_stats.t.interval(0.95, 2, loc=means.mean(), scale=scipy_stats.sem(means))
    assert actual == pytest.approx(expected)


def test_without_variance_of_seeds_the_interval_is_students_t_over_items() -> None:
    means = np.array([0.1, 0.1])
    actual = stats.interval(means, np.zeros(10), item_variance=0.02**2, num_clusters=300)
    assert actual == pytest.approx(scipy_stats.t.interval(0.95, 299, loc=0.1, scale=0.02))


def test_if_two_seeds_differ_much_the_interval_contains_the_mean_of_each_seed() -> None:
    before = results("MMStar", random_scores(0.5, 200, 13))
    better, worse = (
        results("MMStar", random_scores(0.8, 200, 14)),
        results("MMStar", random_scores(0.3, 200, 15)),
    )
    differences = difference_tables([before, before], [better, worse])
    actual = stats.pool(differences, "paired")["MMStar"]
    assert len(actual.seed_means) == 2
    assert actual.low < min(actual.seed_means) < max(actual.seed_means) < actual.high


def test_intervals_end_at_the_smallest_and_largest_possible_score() -> None:
    runs = [results("MMStar", random_scores(p, 100, 17)) for p in (0.4, 0.99)]
    actual = stats.pool(score_tables(runs), "bootstrap")["MMStar"]
    assert (actual.low, actual.high) == (0.0, 1.0)
    gains = difference_tables([results("MMStar", [0.0] * 100)] * 2, runs)
    assert stats.pool(gains, "paired")["MMStar"].low == -1.0


def test_the_interval_covers_the_true_value_about_as_often_as_stated() -> None:
    rng, num_covered, num_tables = np.random.default_rng(16), 0, 400
    for _ in range(num_tables):
        # 3 seeds and 300 items; the true mean is 0. The sum has the variance of seeds, of single
        # responses and of items.
        value_SI = rng.normal(0, 0.012, (3, 1)) + rng.normal(0, 0.35, (3, 300))
        value_SI = value_SI + rng.normal(0, 0.15, (1, 300))
        item_variance = float(scipy_stats.sem(value_SI.mean(axis=0))) ** 2
        low, high = stats.interval(value_SI.mean(axis=1), np.zeros(1), item_variance, 300)
        num_covered += low <= 0 <= high
    assert 0.92 <= num_covered / num_tables <= 1.0


def test_an_item_that_lacks_a_score_before_or_after_is_left_out_of_both() -> None:
    before, after = results("MMMU", [1, 0, None, 1]), results("MMMU", [1, 1, 1, None])
    actual = difference_tables([before], [after])["MMMU"]
    assert (actual.value_SI.tolist(), actual.left_out) == ([[0.0, 1.0]], 2)


def test_results_of_different_items_are_refused() -> None:
    with pytest.raises(ValueError, match="1 items are in only one result"):
        difference_tables([results("MMMU", [1, 0])], [results("MMMU", [1, 0, 1])])
    with pytest.raises(ValueError, match="items are in only one result"):
        score_tables([results("MMMU", [1, 0]), results("MMMU", [1])])
    with pytest.raises(ValueError, match="graded twice"):
        score_tables([results("MMMU", [1, 0]) * 2])
    with pytest.raises(ValueError, match="no item has a score"):
        score_tables([results("MMMU", [None, None])])


def test_tables_have_one_row_per_seed() -> None:
    actual = score_tables([results("MMMU", [1, 0, 1]), results("MMMU", [0, 0, 1])])["MMMU"]
    assert isinstance(actual, stats.ItemTable)
    assert actual.value_SI.tolist() == [[1, 0, 1], [0, 0, 1]]
