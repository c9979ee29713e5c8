"""Which pictures are the same picture, and which questions the same question."""

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

MINIATURES = ("MathVista", "MMVet", "OCRBench", "HallusionBench", "MMMU", "MMStar")


def photograph(seed: int) -> Image.Image:
    """Smooth colours with grain, as a camera gives them."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((320, 240), Image.Resampling.BICUBIC), dtype=float)
    grain = rng.normal(0, 10, (240, 320, 1))
    return Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8))


def copied(image: Image.Image, quality: int, scale: float) -> Image.Image:
    """The picture scaled and saved as a JPEG."""
    buffer = BytesIO()
    size = round(image.width * scale), round(image.height * scale)
    image.resize(size).save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


PHOTOGRAPHS = [photograph(seed) for seed in range(12)]
GALLERY = ImageIndex(map(signature, PHOTOGRAPHS))


@pytest.mark.parametrize(
    ("quality", "scale"), [(95, 1.0), (60, 1.0), (30, 1.0), (95, 0.6), (60, 0.6), (60, 1.7)]
)
def test_a_compressed_and_scaled_copy_is_near_its_original_alone(
    quality: int, scale: float
) -> None:
    for at, each in enumerate(PHOTOGRAPHS):
        found = signature(copied(each, quality, scale))
        assert GALLERY.near(found) == [at]
        assert GALLERY.same(found) == []


def test_the_very_same_pixels_are_the_same_picture_in_any_format() -> None:
    buffer = BytesIO()
    PHOTOGRAPHS[3].save(buffer, "BMP")
    assert GALLERY.same(signature(Image.open(buffer))) == [3]


def test_a_mirrored_picture_and_another_one_are_not_near() -> None:
    assert GALLERY.near(signature(PHOTOGRAPHS[0].transpose(Image.Transpose.FLIP_LEFT_RIGHT))) == []
    assert GALLERY.near(signature(photograph(99))) == []


def test_a_gallery_without_pictures_holds_nothing_near() -> None:
    assert ImageIndex([]).near(signature(PHOTOGRAPHS[0])) == []


def test_drawings_that_differ_in_one_colour_are_told_apart() -> None:
    one = Image.new("RGB", (112, 112), "white")
    two = one.copy()
    one.paste((220, 40, 40), (28, 28, 56, 56))
    two.paste((40, 110, 40), (28, 28, 56, 56))
    looks = signature(one), signature(two)
    assert (looks[0].dhash == looks[1].dhash).all(), "the hash alone cannot tell them apart"
    assert ImageIndex([looks[0]]).near(looks[1]) == []
    assert thumbnail_difference(looks[0].thumbnail, looks[1].thumbnail) > 50


def test_no_drawing_of_the_default_pool_is_taken_for_a_benchmark_picture() -> None:
    pictures = [
        Image.open(BytesIO(item["image"]))
        for name in MINIATURES
        for item in benchmarks.items(name, 60)
    ]
    gallery = ImageIndex(map(signature, pictures))
    for sample in pool.samples(pool.Split.pool, 400):
        assert gallery.near(signature(Image.open(BytesIO(sample.images[0])))) == []


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
def test_a_question_is_the_same_in_every_dress(question: str) -> None:
    assert normalize_question(question) == "how many red squares are there"


def test_other_words_are_another_question() -> None:
    assert normalize_question("How many red squares?") != normalize_question(
        "How many blue squares?"
    )
