"""From rollouts and attention rows to one Score for each sample and measure."""

import pytest

from difftrain.config.difficulty import ChanceCorrection, DifficultyConfig
from difftrain.difficulty import score
from difftrain.records import Attention, Measure, Rollout, Score, Stratum, Verdict, View

PERCENTS = [0, 50]
ALL = [Measure.pism, Measure.cmab, Measure.cde, Measure.ace, Measure.drm]


def said(view: View, percent: int, draw: int, right: bool, tokens: int = 4) -> Rollout:
    return Rollout(
        sample_id="a", view=view, mask_percent=percent, draw=draw, seed=0, response="",
        num_tokens=tokens, token_ids=(1,) * tokens, hit_eos=True,
        verdict=Verdict.correct if right else Verdict.unparsable,
    )  # fmt: skip


def rows(whole: str, text_only: str, masked: str, tokens: int = 4) -> list[Rollout]:
    """Verdicts as strings: `+` right, `-` not."""
    views = ((View.full_image, 0, whole), (View.text_only, 0, text_only), (View.masked, 50, masked))
    return [
        said(view, percent, draw, mark == "+", tokens)
        for view, percent, marks in views
        for draw, mark in enumerate(marks)
    ]


def seen(draw: int, bias: float | None) -> Attention:
    table = ((0.2, 0.2), (0.2, 0.2), (0.2, 0.2))
    return Attention(
        sample_id="a", draw=draw, image_tokens=4, text_tokens=8, image_LT=table, text_LT=table,
        max_log_psi=bias,
    )  # fmt: skip


def scores(
    rollouts: list[Rollout], attention: list[Attention], config: DifficultyConfig
) -> dict[Measure, Score]:
    known = score.evidence(rollouts, attention, PERCENTS, 4, 5)
    return {each.measure: each for each in score.score_all(["a"], known, PERCENTS, config)}


def config(*measures: Measure) -> DifficultyConfig:
    return DifficultyConfig(measure=measures[0], extra_measures=list(measures[1:]))


def test_one_probe_feeds_all_measures() -> None:
    known = [seen(0, -4.5), seen(1, None)]
    found = scores(rows("-+-++", "----+", "----"), known, config(*ALL))
    assert found[Measure.pism].value == 0.5
    assert found[Measure.cmab].value == pytest.approx(1.0)
    assert found[Measure.cde].value == 0.4
    assert found[Measure.ace].value == -4.5
    assert found[Measure.drm].value == 0.4
    assert found[Measure.drm].stratum is Stratum.medium
    assert found[Measure.cde].stratum is found[Measure.ace].stratum is None


def test_a_rollout_beyond_k_is_none_of_pisms_draws() -> None:
    found = scores(rows("----+", "", ""), [], config(Measure.pism, Measure.drm))
    assert found[Measure.pism].value == 0.0
    assert found[Measure.drm].value == 0.8


def test_a_response_without_tokens_has_no_ace_value() -> None:
    rollouts = rows("-----", "", "", tokens=0)
    assert scores(rollouts, [], config(Measure.drm, Measure.ace))[Measure.ace].value is None
    with pytest.raises(ValueError, match="was not measured"):
        scores(rows("-----", "", ""), [], config(Measure.drm, Measure.ace))


def test_missing_text_only_rollouts_are_no_score() -> None:
    with pytest.raises(ValueError, match="M verdicts"):
        scores(rows("-----", "--", ""), [], config(Measure.drm, Measure.cde))


def test_the_chance_aware_label_stands_beside_the_papers() -> None:
    made = config(Measure.pism)
    rollouts = rows("++++-", "+----", "+---")
    known = score.evidence(rollouts, [], PERCENTS, 4, 5)
    assert scores(rollouts, [], made)[Measure.pism].value is None
    assert score.uncorrected_pism_scores(["a"], known, PERCENTS, made.pism) == []
    made.pism.guess = ChanceCorrection.text_only
    assert made.pism.least(4, 2 / 7) == 4
    assert scores(rollouts, [], made)[Measure.pism].value == 0.5
    (plain,) = score.uncorrected_pism_scores(["a"], known, PERCENTS, made.pism)
    assert plain.value is None
    assert plain.stratum is Stratum.easy
