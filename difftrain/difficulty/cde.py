"""CDE: does the answer depend on the image, or does the text alone suggest it? (RAP, CDE)

Axes: M rollouts (graded responses) with or without the image. A verdict is 1 if correct, else 0.
"""

import numpy as np

from difftrain.difficulty import EPS


def count_correct(verdicts_M: np.ndarray) -> tuple[int, int]:
    """The number of correct rollouts, and of all rollouts.

    Raises ValueError if the list is empty or a rollout is missing (-1): the mean of nothing, or of
    only a part of the requested rollouts, is not a score.
    """
    verdicts = np.asarray(verdicts_M)
    if verdicts.ndim != 1 or verdicts.size == 0 or not np.isin(verdicts, (0, 1)).all():
        raise ValueError(f"expected M verdicts of 0 or 1, not {verdicts.tolist()}")
    return int(verdicts.sum()), len(verdicts)


def discrepancy(with_image_M: np.ndarray, text_only_M: np.ndarray, absolute: bool = False) -> float:
    """Mean correctness with the image minus mean correctness without it, from -1 to 1.

    RAP's outcomes Y1 (image and text) and Y0 (text alone). It divides only once, so that 3/5 is
    exactly the float 0.6. `absolute` gives |D|. Raises ValueError as `count_correct` does.
    """
    correct_with, total_with = count_correct(with_image_M)
    correct_without, total_without = count_correct(text_only_M)
    numerator = correct_with * total_without - correct_without * total_with
    difference = numerator / (total_with * total_without)
    return abs(difference) if absolute else difference


def is_kept(discrepancy: float, lambda_c: float = 0.5) -> bool:
    """Whether the answer depends on the image: D is above lambda_c."""
    return discrepancy > lambda_c + EPS
