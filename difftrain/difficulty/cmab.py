"""CMAB (cross-modality attention balance): attention of a response on image and text.

Source: Qi et al. 2026, Eq. 4 and Fig. 2. Axes: L decoder layers, T response tokens.
"""

import numpy as np

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
