"""Masks that black out a given share of an image, chosen by a seed (Qi et al. 2026, Fig. 1).

Axes: H height, W width, C color channels.
"""

import numpy as np

from difftrain.config.difficulty import MaskKind

PATCH = 28  # pixels on a side: one image token of Qwen2.5-VL after merging


def _count_share(total: int, percent: int) -> int:
    """percent of total, rounded half up; computed in integers, because floats can round wrongly."""
    return (percent * total + 50) // 100


def _hide_pixels(height: int, width: int, percent: int, rng: np.random.Generator) -> np.ndarray:
    """Which pixels are hidden: exactly `percent` of them, drawn without replacement.

    Every pixel draws a 32-bit key, and those with the smallest keys are hidden (of equal keys, the
    first in reading order). Only keys near the expected threshold are sorted, which is fast.
    """
    total = height * width
    count = _count_share(total, percent)
    keys = rng.integers(0, 1 << 32, total, dtype=np.uint32)
    # Eight standard deviations of the number of keys below a threshold.
    slack = int((4.0 * total**0.5 + 8) / max(total, 1) * 2**32)
    threshold = (count << 32) // max(total, 1)
    low = min((1 << 32) - 1, max(0, threshold - slack))
    high = min((1 << 32) - 1, threshold + slack)
    hidden = keys < np.uint32(low)
    near = np.flatnonzero((keys <= np.uint32(high)) & ~hidden)
    missing = count - int(np.count_nonzero(hidden))
    if not 0 <= missing <= len(near):
        hidden[:], near, missing = False, np.arange(total), count
    hidden[near[np.argsort(keys[near], kind="stable")[:missing]]] = True
    return hidden.reshape(height, width)


def _hide_patches(height: int, width: int, percent: int, rng: np.random.Generator) -> np.ndarray:
    """Which pixels are hidden: those of whole patches, `percent` of all patches (rounded)."""
    rows, columns = -(-height // PATCH), -(-width // PATCH)  # rounded up
    hidden = _hide_pixels(rows, columns, percent, rng)
    return hidden.repeat(PATCH, axis=0)[:height].repeat(PATCH, axis=1)[:, :width]


def _hide_rectangle(height: int, width: int, percent: int, rng: np.random.Generator) -> np.ndarray:
    """Which pixels are hidden: a rectangle of about the image's aspect ratio, randomly placed."""
    x, y = rng.random(2)
    hidden = np.zeros((height, width), dtype=bool)
    if target := _count_share(height * width, percent):
        ideal_width = width * (target / (height * width)) ** 0.5
        slack = max(2, round(ideal_width / 8))  # enough widths to come near the target area
        widths = range(max(1, int(ideal_width) - slack), min(width, int(ideal_width) + slack) + 1)
        sides = [(min(height, max(1, (target + w // 2) // w)), w) for w in widths]
        h, w = min(sides, key=lambda hw: (abs(hw[0] * hw[1] - target), abs(hw[1] - ideal_width)))
        left, top = int(x * (width - w + 1)), int(y * (height - h + 1))
        hidden[top : top + h, left : left + w] = True
    return hidden


MASKS = {
    MaskKind.pixels: _hide_pixels,
    MaskKind.rectangle: _hide_rectangle,
    MaskKind.patches: _hide_patches,
}


def mask(pixels_HWC: np.ndarray, percent: int, seed: int, kind: str = "pixels") -> np.ndarray:
    """A copy of the image with `percent` of its pixels black; the original is not changed.

    The kind pixels hides exactly (percent * H * W + 50) // 100 pixels; rectangle and patches come
    as near as they can. The same seed gives the same mask. With one seed, a higher percent hides
    all that a lower percent hides (pixels and patches only). Raises ValueError unless the image is
    uint8 of shape H W C, percent is in 0..100 and `kind` is a MaskKind.
    """
    dtype, shape = pixels_HWC.dtype, pixels_HWC.shape
    if dtype != np.uint8 or len(shape) != 3:
        raise ValueError(f"pixels must be uint8 of shape H W C, not {dtype} {shape}")
    if not 0 <= percent <= 100:
        raise ValueError(f"percent={percent}: must lie between 0 and 100")
    if kind not in list(MaskKind):
        raise ValueError(f"kind={kind!r}: must be one of: {', '.join(MaskKind)}")
    rng = np.random.Generator(np.random.PCG64(seed))
    hidden = MASKS[MaskKind(kind)](shape[0], shape[1], percent, rng)
    masked = np.empty_like(pixels_HWC)
    for channel in range(shape[2]):  # five times faster than indexing with `hidden`
        np.multiply(pixels_HWC[..., channel], ~hidden, out=masked[..., channel])
    return masked
