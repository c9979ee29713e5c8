"""DRM: how often the model fails with the picture before it, and what to call that (T, DRM).

Axes: M rollouts with the picture. A verdict is 1 right, 0 not.
"""

import numpy as np

from difftrain.config.difficulty import EPS
from difftrain.difficulty.cde import rights
from difftrain.records import Stratum


def difficulty(with_image_M: np.ndarray) -> float:
    """1 - mean correctness with the picture, from 0 (always right) to 1 (never).

    Raises ValueError for an empty list or a rollout that was not drawn.
    """
    right, asked = rights(with_image_M)
    return (asked - right) / asked


def stratum(found: float, hard_from: float = 0.5) -> Stratum:
    """easy: all M are right (T); unsolved: none is. Between them hard_from parts hard from medium.

    The middle names are ours, for the report; the replacement compares difficulties themselves.
    """
    if found <= EPS:
        return Stratum.easy
    if found >= 1 - EPS:
        return Stratum.unsolved
    return Stratum.hard if found >= hard_from - EPS else Stratum.medium
