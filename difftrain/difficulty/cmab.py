"""CMAB (cross-modality attention balance): attention of a response on image and text.

Source: Qi et al. 2026, Eq. 4 and Fig. 2. Axes: L decoder layers, T response tokens.
"""

import numpy as np

from difftrain.config.difficulty import DifficultyConfig, ProbeConfig, Tokens
from difftrain.difficulty.definition import Definition, ProbeDraws
from difftrain.difficulty.evidence import Evidence
from difftrain.records import Stratum


def balance(image_LT: np.ndarray, text_LT: np.ndarray, epsilon: float = 1e-8) -> float:
    """The ratio of image to text attention: its geometric mean over layers, then mean over tokens.

    Eq. 4; the first and the last layer do not count, and epsilon keeps the logarithm finite. Raises
    ValueError for unsuitable shapes, or if a token has no attention on the text.
    """
    image, text = np.asarray(image_LT, dtype=float), np.asarray(text_LT, dtype=float)
    if image.shape != text.shape or image.ndim != 2:
        raise ValueError(f"image {image.shape} and text {text.shape} must both be L x T")
    if image.shape[0] < 3 or image.shape[1] == 0:
        raise ValueError(f"need at least three layers and one response token, not {image.shape}")
    if not (text[1:-1] > 0).all():
        raise ValueError("a token has no attention on the text, so there is no ratio")
    rho_LT = image[1:-1] / text[1:-1]
    rho_T = np.exp(np.log(rho_LT + epsilon).mean(axis=0))
    return float(rho_T.mean())


def stratum(
    rho: float | None,
    solved: bool,
    easy_below: float = 0.1,
    hard_min: float = 0.4,
    hard_max: float = 1.6,
    easy_above: float = 1.9,
) -> Stratum:
    """The difficulty stratum for a balance rho (section 3.2); unsolved if no response is correct.

    Raises ValueError if a solved sample has no finite balance.
    """
    if not solved:
        return Stratum.unsolved
    if rho is None or not np.isfinite(rho):
        raise ValueError(f"a solved sample needs a finite balance, not {rho}")
    if hard_min <= rho <= hard_max:
        return Stratum.hard
    return Stratum.medium if easy_below <= rho <= easy_above else Stratum.easy


def score(
    evidence: Evidence, config: DifficultyConfig, _probe: ProbeConfig
) -> tuple[float | None, Stratum | None]:
    """Balance and stratum of the first correct response to the full image.

    A text-only sample has neither. Raises ValueError if a solved sample has no attention row.
    """
    cmab, value = config.cmab, None
    correct = np.flatnonzero(evidence.correct_RK[0] == 1)  # draws at ratio 0
    if len(correct) and (row := evidence.attention.get(int(correct[0]))):
        if not row.image_tokens:
            return None, None
        value = balance(np.array(row.image_LT), np.array(row.text_LT), cmab.epsilon)
        if cmab.tokens is Tokens.mean:  # attention per token, not in total
            value *= row.text_tokens / row.image_tokens
    limits = cmab.easy_below, cmab.hard_min, cmab.hard_max, cmab.easy_above
    return value, stratum(value, bool(len(correct)), *limits)


MEASURE = Definition(
    meaning="how the model's attention is balanced between image and text",
    score=score,
    has_strata=True,
    draws=lambda _config, _probe: ProbeDraws(first_correct=True),
)
