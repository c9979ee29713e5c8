"""DRM (difficulty-aware replacement; the paper RAP): how often does the model answer incorrectly?

Axes: M rollouts (graded responses) with the full image. A verdict is 1 if correct, else 0.
"""

import numpy as np

from difftrain.config.difficulty import DifficultyConfig, ProbeConfig
from difftrain.difficulty import EPS
from difftrain.difficulty.cde import count_correct
from difftrain.difficulty.definition import Definition, ProbeDraws
from difftrain.difficulty.evidence import Evidence
from difftrain.records import Stratum


def difficulty(with_image_M: np.ndarray) -> float:
    """1 - mean correctness with the image: from 0 (always correct) to 1 (never correct)."""
    correct, total = count_correct(with_image_M)
    return (total - correct) / total


def stratum(difficulty: float, hard_min: float = 0.5) -> Stratum:
    """Easy if all M rollouts are correct (RAP), unsolved if all are incorrect, hard from hard_min
    on, else medium. Only the report uses hard and medium: RAP compares the difficulties.
    """
    if difficulty <= EPS:
        return Stratum.easy
    if difficulty >= 1 - EPS:
        return Stratum.unsolved
    return Stratum.hard if difficulty >= hard_min - EPS else Stratum.medium


def score(
    evidence: Evidence, config: DifficultyConfig, _probe: ProbeConfig
) -> tuple[float | None, Stratum | None]:
    """Difficulty and stratum of one sample. Raises ValueError if rollouts are missing."""
    value = difficulty(evidence.full_image_M)
    return value, stratum(value, config.drm.hard_min)


MEASURE = Definition(
    meaning="how often the model is incorrect with the image",
    score=score,
    has_strata=True,
    draws=lambda _, probe: ProbeDraws(full_image=probe.cde_rollouts),
)
