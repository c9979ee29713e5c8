"""Hide a share of an image, exactly and by seed alone; black, in pixels (Qi et al. 2026, Fig. 1).

Axes: H W C pixels.
"""

from collections.abc import Callable

import numpy as np

from difftrain.config.difficulty import MaskKind

PATCH = 28
"""Side of a patch in pixels: one image token of Qwen2.5-VL after merging."""


def count_share(total: int, percent: int) -> int:
    """percent of total, rounded half up; in integers, as floats round wrongly on some sizes."""
    return (percent * total + 50) // 100


def hide_pixels(height: int, width: int, percent: int, rng: np.random.Generator) -> np.ndarray:
    """Which pixels are hidden: exactly the share, single ones, without replacement."""
    hidden = np.zeros(height * width, dtype=bool)
    hidden[rng.permutation(height * width)[: count_share(height * width, percent)]] = True
    return hidden.reshape(height, width)


def hide_patches(height: int, width: int, percent: int, rng: np.random.Generator) -> np.ndarray:
    """Whole 28 x 28 patches, as many as come nearest to the share."""
    rows, columns = -(-height // PATCH), -(-width // PATCH)
    hidden = hide_pixels(rows, columns, percent, rng)
    return np.kron(hidden, np.ones((PATCH, PATCH), dtype=bool))[:height, :width]


def hide_rectangle(height: int, width: int, percent: int, rng: np.random.Generator) -> np.ndarray:
    """One rectangle of about the image's aspect ratio and the nearest area, at a random place."""
    x, y = rng.random(2)
    target = count_share(height * width, percent)
    rect_height, rect_width = rectangle_sides(height, width, target)
    left, top = int(x * (width - rect_width + 1)), int(y * (height - rect_height + 1))
    hidden = np.zeros((height, width), dtype=bool)
    hidden[top : top + rect_height, left : left + rect_width] = True
    return hidden


def rectangle_sides(height: int, width: int, target: int) -> tuple[int, int]:
    """Height and width of the rectangle whose area comes nearest to target pixels."""
    if target == 0:
        return 0, 0
    ideal_width = width * (target / (height * width)) ** 0.5
    slack = max(2, round(ideal_width / 8))
    low, high = max(1, int(ideal_width) - slack), min(width, int(ideal_width) + slack)
    candidates = [(min(height, max(1, (target + w // 2) // w)), w) for w in range(low, high + 1)]
    return min(
        candidates, key=lambda side: (abs(side[0] * side[1] - target), abs(side[1] - ideal_width))
    )


MASKS: dict[MaskKind, Callable[[int, int, int, np.random.Generator], np.ndarray]] = {
    MaskKind.pixels: hide_pixels,
    MaskKind.rectangle: hide_rectangle,
    MaskKind.patches: hide_patches,
}


def mask(pixels_HWC: np.ndarray, percent: int, seed: int, kind: str = "pixels") -> np.ndarray:
    """A copy with `percent` of its pixels black; the image itself is not changed.

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
    hidden = MASKS[MaskKind(kind)](height, width, percent, rng)
    masked = pixels_HWC.copy()
    masked[hidden] = 0
    return masked
