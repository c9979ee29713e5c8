"""Hiding a share of a picture, exactly and by seed alone. Black fill, in pixel space (P, Fig. 1).

Axes: H W C pixels.
"""

from collections.abc import Callable

import numpy as np

from difftrain.config.difficulty import MaskKind

PATCH = 28
"""Side of a patch in pixels: one image token of Qwen2.5-VL after merging."""


def share_of(total: int, percent: int) -> int:
    """percent of total, rounded half up in integers (floats round wrongly on some sizes)."""
    return (percent * total + 50) // 100


def pixels(height: int, width: int, percent: int, rng: np.random.Generator) -> np.ndarray:
    """Exactly the share of single pixels, without replacement."""
    hidden = np.zeros(height * width, dtype=bool)
    hidden[rng.permutation(height * width)[: share_of(height * width, percent)]] = True
    return hidden.reshape(height, width)


def patches(height: int, width: int, percent: int, rng: np.random.Generator) -> np.ndarray:
    """Whole 28 x 28 patches, as many as come nearest to the share."""
    rows, columns = -(-height // PATCH), -(-width // PATCH)
    chosen = pixels(rows, columns, percent, rng)
    return np.kron(chosen, np.ones((PATCH, PATCH), dtype=bool))[:height, :width]


def rectangle(height: int, width: int, percent: int, rng: np.random.Generator) -> np.ndarray:
    """One rectangle about as oblong as the picture, at a random place, of the nearest area."""
    across, down = rng.random(2)
    target = share_of(height * width, percent)
    high, wide = sides(height, width, target)
    left, top = int(across * (width - wide + 1)), int(down * (height - high + 1))
    hidden = np.zeros((height, width), dtype=bool)
    hidden[top : top + high, left : left + wide] = True
    return hidden


def sides(height: int, width: int, target: int) -> tuple[int, int]:
    """Height and width of the rectangle whose area comes nearest to target pixels."""
    if target == 0:
        return 0, 0
    middle = width * (target / (height * width)) ** 0.5
    slack = max(2, round(middle / 8))
    low, high = max(1, int(middle) - slack), min(width, int(middle) + slack)
    candidates = [
        (min(height, max(1, (target + wide // 2) // wide)), wide) for wide in range(low, high + 1)
    ]
    return min(
        candidates, key=lambda side: (abs(side[0] * side[1] - target), abs(side[1] - middle))
    )


HIDDEN: dict[MaskKind, Callable[[int, int, int, np.random.Generator], np.ndarray]] = {
    MaskKind.pixels: pixels,
    MaskKind.rectangle: rectangle,
    MaskKind.patches: patches,
}


def mask(pixels_HWC: np.ndarray, percent: int, seed: int, kind: str = "pixels") -> np.ndarray:
    """A copy with `percent` of its pixels black; the picture itself is not changed.

    The share is exact for pixels, (percent * H * W + 50) // 100 of them, and the nearest possible
    for rectangle and patches. The same seed hides the same places; with one seed for all percents
    the pixels and patches hidden at a lower percent are among those hidden at a higher one.
    Raises ValueError for another shape or type than uint8 H W C, or a percent outside 0..100.
    """
    if pixels_HWC.dtype != np.uint8 or pixels_HWC.ndim != 3:
        raise ValueError(
            f"pixels must be uint8 of shape H W C, not {pixels_HWC.dtype} {pixels_HWC.shape}"
        )
    if not 0 <= percent <= 100:
        raise ValueError(f"percent={percent}: must lie between 0 and 100")
    if kind not in list(MaskKind):
        raise ValueError(f"kind={kind!r}: must be one of {', '.join(MaskKind)}")
    height, width, _ = pixels_HWC.shape
    rng = np.random.Generator(np.random.PCG64(seed))
    hidden = HIDDEN[MaskKind(kind)](height, width, percent, rng)
    masked = pixels_HWC.copy()
    masked[hidden] = 0
    return masked
