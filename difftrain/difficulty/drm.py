"""DRM: how often the model fails with the full image (RAP, DRM).

Axes: M rollouts with the image. A verdict is 1 if correct, else 0.
"""

import numpy as np

from difftrain.difficulty import EPS
from difftrain.difficulty.cde import count_correct
from difftrain.records import Stratum


def difficulty(with_image_M: np.ndarray) -> float:
    """1 - mean correctness with the image, from 0 (always correct) to 1 (never).

    Raises ValueError if the list is empty or a rollout is missing (-1).
    """
    correct, total = count_correct(with_image_M)
    return (total - correct) / total


def stratum(difficulty: float, hard_min: float = 0.5) -> Stratum:
    """easy: all M are correct (RAP); unsolved: none is. Between them hard_min divides hard from
    medium, for the report only: RAP compares the difficulties themselves.
    """
    if difficulty <= EPS:
        return Stratum.easy
    if difficulty >= 1 - EPS:
        return Stratum.unsolved
    return Stratum.hard if difficulty >= hard_min - EPS else Stratum.medium
