"""Image gain: the gold answer's log-probability with the image minus that without."""

import pytest

from difftrain.config.difficulty import DifficultyConfig, ProbeConfig
from difftrain.difficulty.evidence import AnswerLikelihood, Evidence
from difftrain.difficulty.score import score_sample
from difftrain.records import Measure, Score

CONFIG = DifficultyConfig(extra_measures=[Measure.image_gain])


def score_of(likelihood: AnswerLikelihood | None) -> Score:
    evidence = Evidence(1, 1, 1, 1)
    evidence.likelihood = likelihood
    return score_sample("a", Measure.image_gain, evidence, ProbeConfig(), CONFIG)


def likelihood(with_image: float | None, without_image: float | None) -> AnswerLikelihood:
    return AnswerLikelihood(
        sample_id="a", num_tokens=2, with_image=with_image, without_image=without_image
    )


def test_the_gain_is_the_difference_of_the_log_probabilities_and_has_no_stratum() -> None:
    score = score_of(likelihood(-1.0, -3.5))
    assert (score.value, score.stratum) == (2.5, None)
    assert score_of(likelihood(-3.5, -1.0)).value == -2.5  # the image misleads


def test_a_sample_without_an_image_has_no_gain() -> None:
    assert score_of(likelihood(None, None)).value is None


def test_a_likelihood_that_was_not_measured_is_no_gain_of_zero() -> None:
    with pytest.raises(ValueError, match="image_gain of sample a: the likelihood"):
        score_of(None)
