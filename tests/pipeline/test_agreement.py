"""How well two scorings of the same samples agree: equal labels, and equally selected samples.

PISM, CDE and ACE are measures of difficulty. PISM gives a sample a stratum; CDE and ACE have no
strata, but a threshold, which says whether the sample is kept or dropped.
"""

import math

import pytest

from difftrain.config.difficulty import DifficultyConfig
from difftrain.pipeline import retest
from difftrain.records import Measure, Score, Stratum

CONFIG = DifficultyConfig()


def score(measure: Measure, value: float | None, stratum: Stratum | None = None) -> Score:
    return Score(sample_id="a", measure=measure, value=value, stratum=stratum)


def test_the_label_of_a_score_is_its_stratum_or_whether_its_threshold_keeps_the_sample() -> None:
    def label(*row: object) -> str:
        return retest.score_label(score(*row), CONFIG)  # type: ignore[arg-type]

    assert label(Measure.pism, None, Stratum.easy) == "easy"
    assert (CONFIG.cde.lambda_c, CONFIG.ace.lambda_a) == (0.5, 0.1)
    # CDE keeps samples above lambda_c. ACE drops samples above lambda_a.
    assert label(Measure.cde, 0.6) == "kept"
    assert label(Measure.cde, 0.5) == "dropped"
    assert label(Measure.ace, math.log(0.1)) == "kept"  # ACE's value is a logarithm
    assert label(Measure.ace, 0.0) == "dropped"
    assert label(Measure.ace, None) == "no value"


def test_the_share_of_equal_labels_is_reported_with_the_share_expected_by_chance() -> None:
    first = {"a": "easy", "b": "easy", "c": "hard", "d": "hard"}
    second = {"d": "hard", "a": "easy", "b": "hard", "c": "hard"}
    result = retest.agreement(first, second)
    assert (result["n"], result["same"], result["share"]) == (4, 3, 0.75)
    # 2 and 1 of 4 are easy, 2 and 3 of 4 are hard.
    assert result["by_chance"] == (2 * 1 + 2 * 3) / 16
    assert 0 < result["low"] < 0.75 < result["high"] < 1


def test_the_interval_of_8_equal_labels_out_of_10_is_wilsons() -> None:
    first = {str(i): "easy" for i in range(10)}
    result = retest.agreement(first, first | {"0": "hard", "1": "hard"})
    # (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n) with p = 0.8, n = 10, z = 1.96
    assert result["low"] == pytest.approx(0.4902, abs=1e-4)
    assert result["high"] == pytest.approx(0.9433, abs=1e-4)
    assert retest.agreement(first, first)["high"] == 1.0


def test_labels_of_different_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="not of the same samples"):
        retest.agreement({"a": "easy"}, {"b": "easy"})
    with pytest.raises(ValueError, match="0 and 0 labels"):
        retest.agreement({}, {})


def test_the_overlap_of_two_selections_is_reported_with_the_overlap_expected_by_chance() -> None:
    result = retest.overlap(20, {"a", "b", "c", "d"}, {"c", "d", "e", "f", "g"})
    assert (result["first"], result["second"], result["common"]) == (4, 5, 2)
    assert result["common_by_chance"] == 4 * 5 / 20
    assert retest.overlap(20, set(), {"a"})["common"] == 0
