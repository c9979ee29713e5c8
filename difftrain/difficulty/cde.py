"""CDE: does the answer come from the picture, or from what the words alone suggest? (T, CDE)

Axes: M rollouts with the picture, and as many without. A verdict is 1 right, 0 not.
"""

import numpy as np


def rights(verdicts_M: np.ndarray) -> tuple[int, int]:
    """How many of how many rollouts are right.

    Raises ValueError for an empty list or a rollout that was not drawn (-1): a mean over nothing,
    or over part of what was asked, is no score.
    """
    drawn = np.asarray(verdicts_M)
    if drawn.ndim != 1 or drawn.size == 0 or not np.isin(drawn, (0, 1)).all():
        raise ValueError(f"want M verdicts of 0 or 1, not {drawn.tolist()}")
    return int(drawn.sum()), len(drawn)


def discrepancy(with_image_M: np.ndarray, text_only_M: np.ndarray, absolute: bool = False) -> float:
    """Mean correctness with the picture minus mean correctness without it, from -1 to 1.

    The potential outcomes Y1 (picture and words) and Y0 (words alone). One division only, so that
    3/5 is the very float 0.6. `absolute` gives |D|. Raises ValueError as `rights` does.
    """
    right, asked = rights(with_image_M)
    right_without, asked_without = rights(text_only_M)
    if asked == asked_without:
        found = (right - right_without) / asked
    else:
        found = (right * asked_without - right_without * asked) / (asked * asked_without)
    return abs(found) if absolute else found
