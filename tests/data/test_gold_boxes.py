"""Gold boxes in every notation and coordinate system become pixels of the resized image.

Axes: H height, W width, C color channels.
"""

import json
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from difftrain import images
from difftrain.config.data import BoxFormat
from difftrain.data import answers
from difftrain.data.quarantine import RowError
from difftrain.images import DecodedImage, PixelBudget


@pytest.fixture(scope="module")
def decoded(encode, red_square) -> DecodedImage:
    """The red square, resized from 800 x 600 to 504 x 364, below the limit of 200,704 pixels."""
    return images.decode(encode(red_square), PixelBudget(3136, 200_704))


def iou_with_red_square(box: list[float], decoded: DecodedImage) -> float:
    """Intersection over union of a box with the red pixels of the resized image."""
    x1, y1, x2, y2 = (round(value) for value in box)
    pixels_HWC = np.asarray(Image.open(BytesIO(decoded.png))).astype(int)
    red_HW = pixels_HWC[..., 1] < 128  # of red and white, only white has green
    inside_HW = np.zeros_like(red_HW)
    inside_HW[y1:y2, x1:x2] = True
    return float((red_HW & inside_HW).sum() / (red_HW | inside_HW).sum())


@pytest.mark.parametrize(
    ("gold", "box_format"),
    [("[200, 150, 400, 450]", BoxFormat.pixels), ("[250, 250, 500, 750]", BoxFormat.relative)],
)
def test_a_converted_box_covers_the_red_square(decoded, gold, box_format):
    (result,) = json.loads(answers.boxes_in_model_pixels(gold, decoded, box_format))
    assert iou_with_red_square(result["bbox_2d"], decoded) > 0.98


def test_width_and_height_are_scaled_separately(decoded):
    assert (decoded.original_size, decoded.size) == ((800, 600), (504, 364))
    (result,) = json.loads(
        answers.boxes_in_model_pixels("[200, 150, 400, 450]", decoded, BoxFormat.pixels)
    )
    assert result == {"bbox_2d": [126, 91, 252, 273]}


@pytest.mark.parametrize(
    "gold",
    [
        '[{"bbox_2d": [200, 150, 400, 450], "label": "child\'s kite"}]',
        "[{'bbox_2d': [200, 150, 400, 450], 'label': \"child's kite\"}]",
        "{'bbox_2d': (200, 150, 400.0, 450), 'label': \"child's kite\", 'confidence': 0.9}",
        '```json\n[{"bbox_2d": [400, 450, 200, 150], "label": "child\'s kite"}]\n```',
    ],
)
def test_every_spelling_of_a_list_of_boxes_is_read(decoded, gold):
    result = json.loads(answers.boxes_in_model_pixels(gold, decoded, BoxFormat.pixels))
    assert result == [{"bbox_2d": [126, 91, 252, 273], "label": "child's kite"}]


@pytest.mark.parametrize(
    "gold",
    [
        "red",
        "[]",
        "[[1, 2, 3]]",
        "{'label': 'x'}",
        "[{'bbox_2d': [1, 2, 3, True]}]",
        "[1, 2, 3, NaN]",
        "__import__('os').getcwd()",
        "[" * 5000,
        "7",
    ],
)
def test_anything_but_a_list_of_boxes_is_rejected(decoded, gold):
    with pytest.raises(RowError, match="unusable gold answer: not a"):
        answers.boxes_in_model_pixels(gold, decoded, BoxFormat.pixels)


@pytest.mark.parametrize(
    ("gold", "box_format", "suggested"),
    [
        ("[200, 150, 990, 999]", BoxFormat.pixels, "relative"),
        ("[200, 150, 1900, 999]", BoxFormat.relative, "pixels"),
        ("[-90, 150, 200, 300]", BoxFormat.pixels, "relative"),
    ],
)
def test_the_error_for_a_box_beyond_the_image_suggests_another_box_format(
    decoded, gold, box_format, suggested
):
    with pytest.raises(RowError, match=f"is data.box_format={suggested} meant"):
        answers.boxes_in_model_pixels(gold, decoded, box_format)


def test_a_box_one_pixel_beyond_the_image_is_clipped(decoded):
    (result,) = json.loads(
        answers.boxes_in_model_pixels("[-1, 0, 801, 600]", decoded, BoxFormat.pixels)
    )
    assert result["bbox_2d"] == [0, 0, *decoded.size]


def test_a_box_without_area_is_rejected(decoded):
    with pytest.raises(RowError, match="has no area"):
        answers.boxes_in_model_pixels("[10, 10, 10, 50]", decoded, BoxFormat.pixels)


# The limits of Qwen's processor (16384 image tokens of 784 pixels) and of Qi et al. 2026 (1600
# tokens), and two smaller limits (1280 and 256 tokens).
@pytest.mark.parametrize("max_pixels", [12_845_056, 1_254_400, 1_003_520, 200_704])
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(
    ("box_format", "frame"),
    [
        (BoxFormat.pixels, (800, 600)),
        (BoxFormat.resized, None),
        (BoxFormat.relative, (1000, 1000)),
        (BoxFormat.unit, (1, 1)),
    ],
)
def test_boxes_in_every_format_cover_the_red_square_of_the_upright_image(
    encode, red_square, box_format, frame, orientation, max_pixels
):
    exif = Image.Exif()
    exif[0x0112] = orientation  # the EXIF tag of the orientation
    # 1: the stored image is upright; 6: a viewer must turn it clockwise.
    stored = red_square if orientation == 1 else red_square.transpose(Image.Transpose.ROTATE_90)
    decoded = images.decode(encode(stored, exif=exif), PixelBudget(3136, max_pixels))
    assert decoded.original_size == (800, 600)
    width, height = frame or decoded.size
    gold = [0.25 * width, 0.25 * height, 0.5 * width, 0.75 * height]
    (result,) = json.loads(answers.boxes_in_model_pixels(json.dumps(gold), decoded, box_format))
    assert iou_with_red_square(result["bbox_2d"], decoded) > 0.98


def test_boxes_of_a_wide_image_are_scaled_once(encode):
    decoded = images.decode(encode(Image.new("RGB", (1920, 1080))), PixelBudget(3136, 1_003_520))
    (result,) = json.loads(
        answers.boxes_in_model_pixels("[480,270,960,810]", decoded, BoxFormat.pixels)
    )
    # The image shrinks below 1,003,520 pixels. The box covers 1/4 to 1/2 of its width, and 1/4 to
    # 3/4 of its height.
    assert (decoded.size, result["bbox_2d"]) == ((1316, 728), [329, 182, 658, 546])
    # Boxes that are in pixels of the resized image already stay as they are.
    unchanged = json.loads(
        answers.boxes_in_model_pixels(json.dumps([result]), decoded, BoxFormat.resized)
    )
    assert unchanged == [result]
