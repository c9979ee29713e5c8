"""CDE: does the answer depend on the image, or does the text alone suggest it? (RAP, CDE)

Axes: M rollouts with the image, and as many without. A verdict is 1 correct, 0 not.
"""

import numpy as np

from difftrain.difficulty import EPS


def count_correct(verdicts_M: np.ndarray) -> tuple[int, int]:
    """How many of how many rollouts are correct.

    Raises ValueError for an empty list or a rollout that was not drawn (-1): a mean over nothing,
    or over a part of what was requested, is not a score.
    """
    verdicts = np.asarray(verdicts_M)
    if verdicts.ndim != 1 or verdicts.size == 0 or not np.isin(verdicts, (0, 1)).all():
        raise ValueError(f"expected M verdicts of 0 or 1, not {verdicts.tolist()}")
    return int(verdicts.sum()), len(verdicts)


def discrepancy(with_image_M: np.ndarray, text_only_M: np.ndarray, absolute: bool = False) -> float:
    """Mean correctness with the image minus mean correctness without it, from -1 to 1.

    The potential outcomes Y1 (image and text) and Y0 (text alone). One division only, so that 3/5
    is exactly the float 0.6. `absolute` gives |D|. Raises ValueError as `count_correct` does.
    """
    correct_with, total_with = count_correct(with_image_M)
    correct_without, total_without = count_correct(text_only_M)
    crossed = correct_with * total_without - correct_without * total_with
    difference = crossed / (total_with * total_without)
    return abs(difference) if absolute else difference


def is_kept(discrepancy: float, lambda_c: float = 0.5) -> bool:
    """Whether the answer depends on the image: D is above lambda_c."""
    return discrepancy > lambda_c + EPS
