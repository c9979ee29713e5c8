"""A mask hides the requested percentage of an image: pixels, one rectangle, or whole patches.

Hidden pixels are black. The kind of mask is "pixels" by default.
"""

import itertools

import numpy as np
import pytest

from difftrain.probe.masks import mask

RNG = np.random.default_rng(0)


def image(height: int, width: int) -> np.ndarray:
    """Random pixels, none of them black, so that black pixels are hidden ones."""
    return RNG.integers(1, 256, (height, width, 3), dtype=np.uint8)


def hidden_pixels(masked: np.ndarray) -> np.ndarray:
    """Which pixels are hidden, as an array of bool."""
    return (masked == 0).all(axis=2)


@pytest.mark.parametrize("size", [(28, 28), (112, 112), (85, 1), (57, 93)])
@pytest.mark.parametrize("percent", [0, 10, 30, 50, 70, 90, 100])
def test_a_pixel_mask_hides_exactly_its_share(size: tuple[int, int], percent: int) -> None:
    total = size[0] * size[1]
    num_hidden = hidden_pixels(mask(image(*size), percent, seed=3)).sum()
    assert num_hidden == (percent * total + 50) // 100  # rounded to the nearest, halves up


def test_half_a_pixel_is_rounded_up() -> None:
    assert 5 * 17 * 30 / 100 == 25.5
    assert hidden_pixels(mask(image(5, 17), 30, seed=0)).sum() == 26


@pytest.mark.parametrize("percent", [0, 10, 40, 70, 90, 100])
def test_a_rectangle_mask_is_one_block_of_nearly_the_requested_share(percent: int) -> None:
    is_hidden = hidden_pixels(mask(image(112, 196), percent, seed=5, kind="rectangle"))
    assert abs(is_hidden.mean() - percent / 100) < 0.005
    if percent:
        rows, columns = np.flatnonzero(is_hidden.any(1)), np.flatnonzero(is_hidden.any(0))
        assert is_hidden[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()


@pytest.mark.parametrize("percent", [0, 10, 40, 70, 90, 100])
def test_a_patch_mask_hides_whole_patches_of_nearly_the_requested_share(percent: int) -> None:
    is_hidden = hidden_pixels(mask(image(112, 112), percent, seed=5, kind="patches"))
    # 112 x 112 pixels are 4 x 4 patches of 28 x 28.
    patch_shares = is_hidden.reshape(4, 28, 4, 28).mean(axis=(1, 3))
    assert set(np.unique(patch_shares)) <= {0.0, 1.0}
    assert patch_shares.sum() == (percent * 16 + 50) // 100  # rounded to the nearest, halves up


@pytest.mark.parametrize("kind", ["pixels", "rectangle", "patches"])
def test_a_mask_depends_on_its_seed_alone_and_does_not_change_the_image(kind: str) -> None:
    pixels = image(112, 112)
    before = pixels.copy()
    masked, repeated, other = (mask(pixels, 40, seed, kind) for seed in (1, 1, 2))
    assert (masked == repeated).all()
    assert (masked != other).any()
    assert (pixels == before).all()
    assert masked is not pixels


@pytest.mark.parametrize("kind", ["pixels", "patches"])
def test_with_one_seed_a_higher_percent_hides_all_that_a_lower_percent_hides(kind: str) -> None:
    pixels = image(112, 112)
    hidden = [hidden_pixels(mask(pixels, percent, 9, kind)) for percent in range(0, 100, 10)]
    assert all((lower <= higher).all() for lower, higher in itertools.pairwise(hidden))


def test_an_invalid_image_percent_or_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        mask(np.zeros((4, 4, 3)), 10, 0)
    with pytest.raises(ValueError, match="between 0 and 100"):
        mask(image(4, 4), 101, 0)
    with pytest.raises(ValueError, match="must be one of"):
        mask(image(4, 4), 10, 0, "blur")
