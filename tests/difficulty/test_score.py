"""From rollouts and attention rows to one Score for each sample and measure."""

import pytest

from difftrain.config.difficulty import ChanceCorrection, DifficultyConfig, ProbeConfig, Until
from difftrain.difficulty import pism
from difftrain.difficulty.score import gather_evidence, score_all, uncorrected_pism_scores
from difftrain.records import Attention, Measure, Rollout, Score, Stratum, Verdict, View

PROBE = ProbeConfig(mask_percents=[0, 50], draws=4, cde_rollouts=5)
ALL_MEASURES = [Measure.pism, Measure.cmab, Measure.cde, Measure.ace, Measure.drm]


def rollout(view: View, percent: int, draw: int, correct: bool, tokens: int = 4) -> Rollout:
    return Rollout(
        sample_id="a", view=view, mask_percent=percent, draw=draw, seed=0, response="",
        num_tokens=tokens, token_ids=(1,) * tokens, hit_eos=True,
        verdict=Verdict.correct if correct else Verdict.unparsable,
    )  # fmt: skip


def rows(full_image: str, text_only: str, masked: str, tokens: int = 4) -> list[Rollout]:
    """Rollouts of each view from a string of verdicts: `+` correct, `-` not."""
    views = (
        (View.full_image, 0, full_image),
        (View.text_only, 0, text_only),
        (View.masked, 50, masked),
    )
    return [
        rollout(view, percent, draw, symbol == "+", tokens)
        for view, percent, symbols in views
        for draw, symbol in enumerate(symbols)
    ]


def attention_row(draw: int, max_log_psi: float | None) -> Attention:
    table = ((0.2, 0.2), (0.2, 0.2), (0.2, 0.2))
    return Attention(
        sample_id="a", draw=draw, image_tokens=4, text_tokens=8, image_LT=table, text_LT=table,
        max_log_psi=max_log_psi,
    )  # fmt: skip


def scores(
    rollouts: list[Rollout],
    attention: list[Attention],
    config: DifficultyConfig,
    probe: ProbeConfig = PROBE,
) -> dict[Measure, Score]:
    evidence = gather_evidence(rollouts, attention, probe)
    return {score.measure: score for score in score_all(["a"], evidence, probe, config)}


def config(*measures: Measure) -> DifficultyConfig:
    return DifficultyConfig(measure=measures[0], extra_measures=list(measures[1:]))


def test_one_probe_feeds_all_measures() -> None:
    attention = [attention_row(0, -4.5), attention_row(1, None)]
    score_of = scores(rows("-+-++", "----+", "----"), attention, config(*ALL_MEASURES))
    assert score_of[Measure.pism].value == 0.5
    assert score_of[Measure.cmab].value == pytest.approx(1.0)
    assert score_of[Measure.cde].value == 0.4
    assert score_of[Measure.ace].value == -4.5
    assert score_of[Measure.drm].value == 0.4
    assert score_of[Measure.drm].stratum is Stratum.medium
    assert score_of[Measure.cde].stratum is score_of[Measure.ace].stratum is None


def test_a_rollout_beyond_draw_k_is_not_counted_by_pism() -> None:
    score_of = scores(rows("----+", "", ""), [], config(Measure.pism, Measure.drm))
    assert score_of[Measure.pism].value == 0.0
    assert score_of[Measure.drm].value == 0.8


def test_a_response_without_tokens_has_no_ace_value() -> None:
    rollouts = rows("-----", "", "", tokens=0)
    assert scores(rollouts, [], config(Measure.drm, Measure.ace))[Measure.ace].value is None
    with pytest.raises(ValueError, match="was not measured"):
        scores(rows("-----", "", ""), [], config(Measure.drm, Measure.ace))


def test_missing_text_only_rollouts_are_refused() -> None:
    with pytest.raises(ValueError, match="M verdicts"):
        scores(rows("-----", "--", ""), [], config(Measure.drm, Measure.cde))


def test_chance_correction_keeps_the_uncorrected_label_as_well() -> None:
    difficulty = config(Measure.pism)
    rollouts = rows("++++-", "+----", "+---")
    evidence = gather_evidence(rollouts, [], PROBE)
    assert scores(rollouts, [], difficulty)[Measure.pism].value is None
    assert uncorrected_pism_scores(["a"], evidence, PROBE, difficulty.pism) == []
    difficulty.pism.chance_correction = ChanceCorrection.text_only
    assert pism.min_correct(4, guess_rate=2 / 7) == 4
    assert scores(rollouts, [], difficulty)[Measure.pism].value == 0.5
    (uncorrected,) = uncorrected_pism_scores(["a"], evidence, PROBE, difficulty.pism)
    assert uncorrected.value is None
    assert uncorrected.stratum is Stratum.easy


def test_a_stratum_without_a_ratio_is_a_score_only_with_until_stratum() -> None:
    probe = ProbeConfig(mask_percents=[0, 70, 90], draws=4, cde_rollouts=5)
    rollouts, difficulty = rows("+----", "", ""), config(Measure.pism)
    with pytest.raises(ValueError, match=r"does not settle ratio 0\.7"):
        scores(rollouts, [], difficulty, probe)
    probe.until = Until.stratum
    score = scores(rollouts, [], difficulty, probe)[Measure.pism]
    assert (score.value, score.stratum) == (None, Stratum.easy)
    unsolved = scores(rows("-----", "", ""), [], difficulty, probe)[Measure.pism]
    assert (unsolved.value, unsolved.stratum) == (0.0, Stratum.unsolved)
