"""Difficulty scores from rollouts (graded responses) and attention rows.

The probe has K draws at every mask ratio, and M rollouts with and without the image. The measures:

* PISM: the smallest mask ratio at which the model fails (None: it never fails)
* CMAB: the attention on the image divided by that on the text
* CDE: the accuracy with the image minus the accuracy without it
* ACE: how biased the attention is towards one token
* DRM: the share of incorrect responses
"""

from dataclasses import replace

import pytest

from difftrain.config.difficulty import ChanceCorrection, DifficultyConfig, ProbeConfig, Until
from difftrain.difficulty import pism
from difftrain.difficulty.evidence import gather_evidence
from difftrain.difficulty.score import score_all, uncorrected_pism_scores
from difftrain.records import Attention, Measure, Rollout, Score, Stratum, Verdict, View

PROBE = ProbeConfig(mask_percents=[0, 50], draws=4, cde_rollouts=5)  # K = 4, M = 5
ALL_MEASURES = [Measure.pism, Measure.cmab, Measure.cde, Measure.ace, Measure.drm]


def rollout(view: View, percent: int, draw: int, correct: bool, num_tokens: int = 4) -> Rollout:
    return Rollout(
        sample_id="a", view=view, mask_percent=percent, draw=draw, seed=0, response="",
        num_tokens=num_tokens, token_ids=(1,) * num_tokens, hit_eos=True,
        verdict=Verdict.correct if correct else Verdict.unparsable,
    )  # fmt: skip


def rollouts_of(full_image: str, text_only: str, masked: str, num_tokens: int = 4) -> list[Rollout]:
    """Rollouts of sample "a" from a string of verdicts for each view: `+` correct, `-` not."""
    views = (
        (View.full_image, 0, full_image),
        (View.text_only, 0, text_only),
        (View.masked, 50, masked),
    )
    return [
        rollout(view, percent, draw, symbol == "+", num_tokens)
        for view, percent, symbols in views
        for draw, symbol in enumerate(symbols)
    ]


def attention_row(draw: int, max_log_psi: float | None) -> Attention:
    """A row with the same attention on image and text, so with a CMAB balance of 1."""
    table = ((0.2, 0.2), (0.2, 0.2), (0.2, 0.2))
    return Attention(
        sample_id="a", draw=draw, image_tokens=4, text_tokens=8, image_LT=table, text_LT=table,
        max_log_psi=max_log_psi,
    )  # fmt: skip


def scores_by_measure(
    rollouts: list[Rollout],
    attention: list[Attention],
    config: DifficultyConfig,
    probe: ProbeConfig = PROBE,
) -> dict[Measure, Score]:
    evidence = gather_evidence(rollouts, attention, probe)
    return {score.measure: score for score in score_all(["a"], evidence, probe, config)}


def config(*measures: Measure) -> DifficultyConfig:
    return DifficultyConfig(measure=measures[0], extra_measures=list(measures[1:]))


def test_the_rollouts_of_one_probe_give_the_scores_of_all_measures() -> None:
    attention = [attention_row(0, -4.5), attention_row(1, None)]
    rollouts = rollouts_of("-+-++", "----+", "----")
    score_of = scores_by_measure(rollouts, attention, config(*ALL_MEASURES))
    assert score_of[Measure.pism].value == 0.5  # passes at 0, and fails with 50 % hidden
    assert score_of[Measure.cmab].value == pytest.approx(1.0)  # of draw 1, the first correct one
    assert score_of[Measure.cde].value == 0.4  # 3/5 - 1/5
    assert score_of[Measure.ace].value == -4.5  # of draw 0
    assert score_of[Measure.drm].value == 0.4  # 1 - 3/5
    assert score_of[Measure.drm].stratum is Stratum.medium
    assert score_of[Measure.cde].stratum is score_of[Measure.ace].stratum is None


def test_cmab_has_no_value_for_a_solved_sample_without_an_image() -> None:
    no_attention = ((0.0, 0.0),) * 3
    row = replace(attention_row(0, None), image_tokens=0, image_LT=no_attention)
    score = scores_by_measure(rollouts_of("+----", "", ""), [row], config(Measure.cmab))
    assert (score[Measure.cmab].value, score[Measure.cmab].stratum) == (None, None)


def test_pism_counts_only_the_first_k_rollouts_with_the_full_image() -> None:
    measures = config(Measure.pism, Measure.drm)
    score_of = scores_by_measure(rollouts_of("----+", "", ""), [], measures)
    assert score_of[Measure.pism].value == 0.0  # none of the first K = 4 is correct
    assert score_of[Measure.drm].value == 0.8  # one of all M = 5 is correct


def test_a_response_without_tokens_has_no_ace_value() -> None:
    # The settings need a measure with strata to select by (DRM here); ACE has none.
    measures = config(Measure.drm, Measure.ace)
    without_tokens = rollouts_of("-----", "", "", num_tokens=0)
    assert scores_by_measure(without_tokens, [], measures)[Measure.ace].value is None
    with pytest.raises(ValueError, match="was not measured"):
        scores_by_measure(rollouts_of("-----", "", ""), [], measures)


def test_missing_text_only_rollouts_are_refused() -> None:
    with pytest.raises(ValueError, match="M verdicts"):
        scores_by_measure(rollouts_of("-----", "--", ""), [], config(Measure.drm, Measure.cde))


def test_with_chance_correction_the_uncorrected_score_is_also_computed() -> None:
    """The correction of PISM: a ratio passes only if guessing would seldom be correct so often."""
    difficulty = config(Measure.pism)
    rollouts = rollouts_of("++++-", "+----", "+---")
    evidence = gather_evidence(rollouts, [], PROBE)
    assert scores_by_measure(rollouts, [], difficulty)[Measure.pism].value is None  # never fails
    assert uncorrected_pism_scores(["a"], evidence, PROBE, difficulty.pism) == []
    difficulty.pism.chance_correction = ChanceCorrection.text_only
    assert pism.guess_rate([1, 0, 0, 0, 0]) == 2 / 7  # (1 + 1) / (5 + 2), Laplace-smoothed
    assert pism.min_correct(4, guess_rate=2 / 7) == 4  # by tau alone, one is enough
    assert scores_by_measure(rollouts, [], difficulty)[Measure.pism].value == 0.5
    (uncorrected,) = uncorrected_pism_scores(["a"], evidence, PROBE, difficulty.pism)
    assert uncorrected.value is None
    assert uncorrected.stratum is Stratum.easy


def test_with_until_stratum_a_score_may_have_a_stratum_and_no_ratio() -> None:
    # By default a sample that first fails at 0.7 or more is easy, so a pass at 0 decides.
    probe = ProbeConfig(mask_percents=[0, 70, 90], draws=4, cde_rollouts=5, until=Until.ratio)
    rollouts, difficulty = rollouts_of("+----", "", ""), config(Measure.pism)
    with pytest.raises(ValueError, match=r"does not settle ratio 0\.7"):
        scores_by_measure(rollouts, [], difficulty, probe)
    probe.until = Until.stratum
    score = scores_by_measure(rollouts, [], difficulty, probe)[Measure.pism]
    assert (score.value, score.stratum) == (None, Stratum.easy)
    rollouts = rollouts_of("-----", "", "")
    unsolved = scores_by_measure(rollouts, [], difficulty, probe)[Measure.pism]
    assert (unsolved.value, unsolved.stratum) == (0.0, Stratum.unsolved)
