"""CDE (causal discrepancy; the paper RAP): does a correct answer depend on the image?

Axes: M rollouts (graded responses) with or without the image. A verdict is 1 if correct, else 0.
"""

import numpy as np

from difftrain.config.difficulty import DifficultyConfig, ProbeConfig
from difftrain.difficulty import EPS
from difftrain.difficulty.definition import Definition, ProbeDraws
from difftrain.difficulty.evidence import Evidence


def count_correct(verdicts_M: np.ndarray) -> tuple[int, int]:
    """The number of correct rollouts, and of all rollouts.

    Raises ValueError if there is no rollout or one is missing (-1): only all of them give a score.
    """
    verdicts = np.asarray(verdicts_M)
    if verdicts.ndim != 1 or verdicts.size == 0 or not np.isin(verdicts, (0, 1)).all():
        raise ValueError(f"expected M verdicts of 0 or 1, not {verdicts.tolist()}")
    return int(verdicts.sum()), len(verdicts)


def discrepancy(with_image_M: np.ndarray, text_only_M: np.ndarray, absolute: bool = False) -> float:
    """Mean correctness with the image minus mean correctness without it, from -1 to 1.

    RAP calls the two means Y1 and Y0, and the difference D. This function divides only once, so
    that 3/5 is exactly the float 0.6. With `absolute`, the result is |D|.
    """
    correct_image, total_image = count_correct(with_image_M)
    correct_text, total_text = count_correct(text_only_M)
    numerator = correct_image * total_text - correct_text * total_image
    difference = numerator / (total_image * total_text)
    return abs(difference) if absolute else difference


def is_kept(discrepancy: float, lambda_c: float = 0.5) -> bool:
    """Whether the answer depends on the image: the discrepancy is above lambda_c."""
    return discrepancy > lambda_c + EPS


def score(
    evidence: Evidence, config: DifficultyConfig, _probe: ProbeConfig
) -> tuple[float | None, None]:
    """The discrepancy of one sample. Raises ValueError if rollouts are missing."""
    tables = evidence.full_image_M, evidence.text_only_M
    return discrepancy(*tables, config.cde.absolute), None


MEASURE = Definition(
    meaning="how much more often the model is correct with the image than without it",
    score=score,
    draws=lambda _, probe: ProbeDraws(full_image=probe.cde_rollouts, text_only=probe.cde_rollouts),
    keeps=lambda value, config: is_kept(value, config.cde.lambda_c),
)
