"""Pass rate: posterior mean, credible interval and strata of c correct responses of n.

Axes of the probe's table: R mask ratios and K draws; M rollouts with the full image.
"""

from dataclasses import replace

import pytest
from scipy import stats

from difftrain.config.difficulty import DifficultyConfig, ProbeConfig, Until
from difftrain.difficulty.definition import probe_draws
from difftrain.difficulty.draws import draws_to_settle
from difftrain.difficulty.evidence import Evidence
from difftrain.difficulty.pass_rate import credible_interval, details, posterior_mean, stratum
from difftrain.difficulty.score import score_sample
from difftrain.records import Measure, Stratum

PROBE = ProbeConfig(mask_percents=[0, 50], draws=10, cde_rollouts=5)
WITH_PISM = DifficultyConfig(measure=Measure.pism, extra_measures=[Measure.pass_rate])
ALONE = DifficultyConfig(measure=Measure.pass_rate)


def evidence_of(verdicts: str) -> Evidence:
    """Full-image draws: `+` correct, `-` not; draws that are not listed are missing."""
    evidence = Evidence(2, PROBE.draws, PROBE.cde_rollouts, PROBE.cde_rollouts)
    for draw, symbol in enumerate(verdicts):
        for table in (evidence.correct_RK[0], evidence.full_image_M):
            if draw < len(table):
                table[draw] = symbol == "+"
    return evidence


@pytest.mark.parametrize(("correct", "draws"), [(0, 10), (3, 10), (10, 10), (1, 1), (2, 5)])
def test_the_posterior_is_the_beta_distribution_of_a_uniform_prior(
    correct: int, draws: int
) -> None:
    beta = stats.beta(1 + correct, 1 + draws - correct)
    assert posterior_mean(correct, draws) == pytest.approx(beta.mean())
    assert credible_interval(correct, draws) == pytest.approx(beta.ppf([0.025, 0.975]), abs=1e-6)


def test_strata_follow_the_variance_of_a_correctness_reward() -> None:
    letters = "".join(str(stratum(correct, 10))[0] for correct in range(11))
    assert letters == "uhmmmmmmmee"
    assert stratum(2, 10, medium_min=0.2) is Stratum.hard  # 0.25 * 0.75 is below 0.2


def test_a_sample_with_too_few_responses_has_a_value_but_no_stratum() -> None:
    assert [stratum(n, n) for n in (1, 3, 4)] == [None, None, Stratum.easy]
    assert stratum(0, 3) is None
    score = score_sample("a", Measure.pass_rate, evidence_of("+"), PROBE, WITH_PISM)
    assert (score.value, score.stratum) == (2 / 3, None)


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="5 of 4 responses"):
        stratum(5, 4)


def test_it_counts_only_the_draws_that_its_own_run_makes() -> None:
    # PISM stops at the first correct draw; another run with more draws shares the folder.
    few = details("a", evidence_of("--+"), WITH_PISM, PROBE)
    assert (few.correct, few.draws) == (1, 3)
    assert details("a", evidence_of("--+++++-++"), WITH_PISM, PROBE) == few
    grid = replace(PROBE, until=Until.grid)
    assert details("a", evidence_of("--+++++-++"), WITH_PISM, grid).draws == 10


def test_its_own_strata_rest_on_all_draws_and_an_extra_measure_needs_none() -> None:
    assert probe_draws(ALONE, PROBE).full_image == 10
    assert probe_draws(WITH_PISM, PROBE).full_image == 0
    assert details("a", evidence_of("+++++-----"), ALONE, PROBE).draws == 10
    with pytest.raises(ValueError, match="pass_rate of sample a: expected 10 full-image draws"):
        score_sample("a", Measure.pass_rate, evidence_of("+++"), PROBE, ALONE)


def test_rollouts_of_another_measure_count_if_they_are_more_than_the_draws_of_a_ratio() -> None:
    probe = ProbeConfig(mask_percents=[0, 50], draws=2, cde_rollouts=5)
    evidence = Evidence(2, 2, 5, 5)
    evidence.full_image_M[:] = [1, 0, 1, 1, 1]
    evidence.correct_RK[0] = [1, 0]
    with_drm = DifficultyConfig(measure=Measure.drm, extra_measures=[Measure.pass_rate])
    assert (details("a", evidence, with_drm, probe).correct) == 4


def test_a_row_is_settled_by_enough_correct_draws_or_by_too_many_wrong_ones() -> None:
    row_K = evidence_of("-+-+------").correct_RK[0]
    assert [draws_to_settle(row_K, minimum) for minimum in (0, 1, 2, 3, 11)] == [0, 2, 4, 10, 0]
