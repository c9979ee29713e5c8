"""Contamination: when two images are the same or near, and when two questions are the same.

Images are the same if their pixels are equal. They are near if their thumbnails and their
difference hashes are similar, as those of a copy are. A difference hash (dhash) records which of
two neighboring pixels is brighter.
"""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from difftrain.evaluate.contamination import (
    ImageIndex,
    normalize_question,
    signature,
    thumbnail_difference,
)
from difftrain.shapes import benchmarks, pool

# Imitations of these benchmarks with generated questions and images come with difftrain.
BUILT_IN_BENCHMARKS = ("MathVista", "MMVet", "OCRBench", "HallusionBench", "MMMU", "MMStar")


def photograph(seed: int) -> Image.Image:
    """Smooth colors with noise, like a photograph."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((320, 240), Image.Resampling.BICUBIC), dtype=float)
    grain = rng.normal(0, 10, (240, 320, 1))
    return Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8))


def jpeg_copy(image: Image.Image, quality: int, scale: float) -> Image.Image:
    """The image, scaled and saved as a JPEG."""
    buffer = BytesIO()
    size = round(image.width * scale), round(image.height * scale)
    image.resize(size).save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


PHOTOGRAPHS = [photograph(seed) for seed in range(12)]
INDEX = ImageIndex(map(signature, PHOTOGRAPHS))


@pytest.mark.parametrize(
    ("quality", "scale"), [(95, 1.0), (60, 1.0), (30, 1.0), (95, 0.6), (60, 0.6), (60, 1.7)]
)
def test_a_compressed_or_scaled_copy_is_near_its_original_and_no_other_image(
    quality: int, scale: float
) -> None:
    for i, photo in enumerate(PHOTOGRAPHS):
        image = signature(jpeg_copy(photo, quality, scale))
        assert INDEX.find_near(image) == [i]
        assert INDEX.find_same(image) == []


def test_equal_pixels_are_the_same_image_in_any_format() -> None:
    buffer = BytesIO()
    PHOTOGRAPHS[3].save(buffer, "BMP")
    assert INDEX.find_same(signature(Image.open(buffer))) == [3]


def test_a_mirrored_image_and_an_unrelated_one_are_not_near() -> None:
    assert (
        INDEX.find_near(signature(PHOTOGRAPHS[0].transpose(Image.Transpose.FLIP_LEFT_RIGHT))) == []
    )
    assert INDEX.find_near(signature(photograph(99))) == []  # seed 99 is not in the index


def test_nothing_is_near_in_an_empty_index() -> None:
    assert ImageIndex([]).find_near(signature(PHOTOGRAPHS[0])) == []


def test_drawings_that_differ_only_in_a_color_are_not_near() -> None:
    first = Image.new("RGB", (112, 112), "white")
    second = first.copy()
    first.paste((220, 40, 40), (28, 28, 56, 56))
    second.paste((40, 110, 40), (28, 28, 56, 56))
    signatures = signature(first), signature(second)
    assert (signatures[0].dhash == signatures[1].dhash).all(), "the difference hash ignores color"
    assert ImageIndex([signatures[0]]).find_near(signatures[1]) == []
    # Color values go up to 255. Copies differ by at most 5.
    assert thumbnail_difference(signatures[0].thumbnail, signatures[1].thumbnail) > 50


def test_no_image_of_the_built_in_training_pool_is_near_a_built_in_benchmark_image() -> None:
    images = [
        Image.open(BytesIO(item["image"]))
        for name in BUILT_IN_BENCHMARKS
        for item in benchmarks.items(name, 60)  # of 300 items
    ]
    index = ImageIndex(map(signature, images))
    for sample in pool.samples(pool.Split.pool, 400):
        assert index.find_near(signature(Image.open(BytesIO(sample.images[0])))) == []


@pytest.mark.parametrize(
    "question",
    [
        "How many RED squares are there?",
        "<image>\nHow many red squares are there",
        "how many red squares are there?\nOptions: A: 1, B: 2",
        "Hint: Please answer.\nQuestion: How many red squares are there?\nChoices:\n(A) 1",
        "<image 1> How   many “red” squares\nare there?",
    ],
)
def test_a_question_is_the_same_without_tags_hint_options_and_punctuation(question: str) -> None:
    assert normalize_question(question) == "how many red squares are there"


def test_a_question_with_another_word_is_different() -> None:
    assert normalize_question("How many red squares?") != normalize_question(
        "How many blue squares?"
    )
