"""Any image becomes an RGB PNG within the pixel budget, or an error says why not."""

import struct
import zlib
from contextlib import suppress
from io import BytesIO
from random import Random

import numpy as np
import pytest
from PIL import Image, ImageDraw
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from difftrain import images
from difftrain.images import ImageError, PixelBudget

MIN_PIXELS = 4 * 28 * 28  # four image tokens of 28 x 28 pixels
BUDGET = PixelBudget(MIN_PIXELS, 1600 * 28 * 28)


def open_image(raw):
    """The image in the bytes of an image file."""
    return Image.open(BytesIO(raw))


def pixel(decoded, position) -> tuple[int, int, int]:
    """The stored color at (x, y)."""
    red, green, blue = np.asarray(open_image(decoded.png))[position[1], position[0]].tolist()
    return red, green, blue


def noise(size, seed=0):
    """An image of random pixels; `size` is (width, height)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("size", "max_pixels", "expected"),
    [
        ((800, 600), 12_845_056, (812, 588)),
        ((1920, 1080), 1_254_400, (1484, 812)),
        ((4000, 3000), 1_003_520, (1148, 840)),
        ((640, 360), 200_704, (588, 336)),
        ((30, 20), 1_254_400, (84, 56)),
    ],
)
def test_fit_size_of_common_sizes_is_that_of_qwens_processor(size, max_pixels, expected):
    assert images.fit_size(size, PixelBudget(MIN_PIXELS, max_pixels)) == expected
    width, height = size
    assert smart_resize(height, width, 28, MIN_PIXELS, max_pixels) == expected[::-1]


@pytest.mark.parametrize("max_pixels", [200_704, 1_003_520, 1_254_400, 12_845_056])
def test_fit_size_is_the_processors_size_and_the_processor_does_not_change_it_again(max_pixels):
    rng = Random(max_pixels)
    for _ in range(2000):
        width = rng.choice([rng.randint(1, 60), rng.randint(20, 3000)])
        height = rng.randint(20, 3000)
        if max(width, height) > 100 * min(width, height):
            continue  # the next test is about thin images
        size = images.fit_size((width, height), PixelBudget(MIN_PIXELS, max_pixels))
        processor_size = smart_resize(height, width, 28, MIN_PIXELS, max_pixels)
        assert size == processor_size[::-1]  # the processor's sizes are (height, width)
        assert smart_resize(size[1], size[0], 28, MIN_PIXELS, max_pixels) == processor_size


@pytest.mark.parametrize(
    ("size", "expected"),
    [((800, 600), (800, 608)), ((448, 448), (448, 448)), ((112, 112), (128, 128))],
)
def test_images_get_whole_tokens_of_another_familys_size(size, expected):
    budget = PixelBudget(4096, 1_638_400, side=32)  # Qwen3-VL: patches of 16, merged 2 x 2
    assert images.fit_size(size, budget) == expected
    assert smart_resize(size[1], size[0], 32, 4096, 1_638_400) == expected[::-1]
    assert images.DecodedImage(b"", b"", expected, size, 32).num_tokens == (
        expected[0] * expected[1] // 1024
    )


@pytest.mark.parametrize(
    "budget", [PixelBudget(3136, 3136), PixelBudget(3136, 12544), PixelBudget(784, 100_352)]
)
def test_a_thin_image_gets_a_size_that_the_processor_keeps_or_is_refused(budget):
    rng = Random(7)
    num_stable = 0
    for _ in range(3000):
        width, height = rng.randint(1, 4000), rng.randint(1, 60)
        try:
            size = images.fit_size((width, height), budget)
        except ImageError:
            continue
        num_stable += 1
        min_pixels, max_pixels = budget.min_pixels, budget.max_pixels
        assert min_pixels <= size[0] * size[1] <= max_pixels
        assert smart_resize(size[1], size[0], 28, min_pixels, max_pixels) == size[::-1]
    assert num_stable > 0


def test_an_image_that_becomes_too_narrow_by_rounding_is_refused():
    # 8200 to 41 is exactly the limit of 200 to 1; rounded to multiples of 28 it is 293 to 1.
    assert smart_resize(41, 8200) == (28, 8204)
    with pytest.raises(ImageError, match="image too narrow: 8204 x 28"):
        images.fit_size((8200, 41), BUDGET)


def test_sides_that_differ_by_more_than_200_to_1_are_refused(encode):
    with pytest.raises(ImageError, match="image too narrow: 2010 x 10"):
        images.decode(encode(Image.new("RGB", (2010, 10))), BUDGET)


def test_a_decoded_image_is_an_rgb_png_with_its_size_and_original_size(encode, red_square):
    decoded = images.decode(encode(red_square, "JPEG"), BUDGET)
    stored = open_image(decoded.png)
    assert (stored.format, stored.mode, stored.size) == ("PNG", "RGB", (812, 588))
    assert (decoded.size, decoded.original_size) == ((812, 588), (800, 600))
    assert decoded.rgb == stored.tobytes()


def test_an_image_that_fits_keeps_every_pixel(encode):
    image = noise((84, 56))
    assert images.decode(encode(image), BUDGET).rgb == image.tobytes()


def test_the_resize_is_bicubic(encode):
    image = noise((100, 90))
    expected = image.resize((112, 84), Image.Resampling.BICUBIC)
    assert images.decode(encode(image), BUDGET).rgb == expected.tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(encode, orientation):
    image = Image.new("RGB", (84, 56), "white")
    ImageDraw.Draw(image).rectangle((0, 0, 27, 27), fill=(255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = orientation  # the tag Orientation
    decoded = images.decode(encode(image, "JPEG", exif=exif, quality=95), BUDGET)
    assert decoded.original_size == ((84, 56) if orientation < 5 else (56, 84))
    width, height = decoded.original_size
    corner = {  # the position (x, y) of the red corner in the upright image
        1: (5, 5),
        2: (width - 6, 5),
        3: (width - 6, height - 6),
        4: (5, height - 6),
        5: (5, 5),
        6: (width - 6, 5),
        7: (width - 6, height - 6),
        8: (5, height - 6),
    }[orientation]
    red, green, _ = pixel(decoded, corner)
    assert red > 200
    assert green < 60


def test_cmyk_is_read_as_colors(encode):
    cyan = Image.new("CMYK", (56, 56), (255, 0, 0, 0))
    red, green, blue = pixel(images.decode(encode(cyan, "JPEG"), BUDGET), (9, 9))
    assert red < 60
    assert green > 150
    assert blue > 150


def test_a_palette_is_read_as_colors(encode):
    image = Image.new("RGB", (56, 56), (10, 200, 30)).convert("P", palette=Image.Palette.ADAPTIVE)
    assert pixel(images.decode(encode(image), BUDGET), (9, 9)) == (10, 200, 30)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L"])
def test_transparent_pixels_become_white_and_not_black(encode, mode):
    if mode in ("RGBA", "LA"):
        raw = encode(Image.new(mode, (56, 56)))
    else:
        black = Image.new(mode, (56, 56))
        raw = encode(black, transparency={"P": 0, "L": 0, "RGB": (0, 0, 0)}[mode])
    assert pixel(images.decode(raw, BUDGET), (9, 9)) == (255, 255, 255)


def test_half_transparent_black_becomes_gray(encode):
    raw = encode(Image.new("RGBA", (56, 56), (0, 0, 0, 128)))
    # An alpha of 128 of 255 over white.
    assert pixel(images.decode(raw, BUDGET), (9, 9)) == (127, 127, 127)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_a_sixteen_bit_image_is_scaled_and_not_clipped(encode, file_format):
    levels = np.full((56, 56), 128 * 257, dtype=np.uint16)  # 257 maps 0..255 to 0..65535
    levels[:, 28:] = 65535
    decoded = images.decode(encode(Image.fromarray(levels), file_format), BUDGET)
    assert pixel(decoded, (9, 9)) == (128, 128, 128)
    assert pixel(decoded, (40, 9)) == (255, 255, 255)


def test_a_rotated_sixteen_bit_image_is_rotated_and_scaled(encode):
    exif = Image.Exif()
    exif[0x0112] = 6  # the tag Orientation; 6 is a rotation by 90 degrees
    levels = np.zeros((56, 84), dtype=np.uint16)
    decoded = images.decode(encode(Image.fromarray(levels), exif=exif), BUDGET)
    assert decoded.original_size == (56, 84)


def test_a_one_bit_image_is_read(encode):
    decoded = images.decode(encode(Image.new("1", (56, 56), 1)), BUDGET)
    assert pixel(decoded, (0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(("mode", "message"), [("F", "floating-point gray"), ("I", "32-bit gray")])
def test_grays_without_a_known_white_are_refused(encode, mode, message):
    with pytest.raises(ImageError, match=message):
        # 70000 is beyond 16 bits.
        images.decode(encode(Image.new(mode, (56, 56), 70000), "TIFF"), BUDGET)


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation_is_used(encode, file_format):
    frames = [Image.new("RGB", (56, 56), color) for color in ("red", "blue")]
    options = {"lossless": True} if file_format == "WEBP" else {}
    raw = encode(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
    assert getattr(open_image(raw), "n_frames", 1) == 2
    assert pixel(images.decode(raw, BUDGET), (9, 9)) == (255, 0, 0)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_file_cut_short_is_refused(encode, file_format, share):
    raw = encode(noise((200, 150)), file_format)
    with pytest.raises(ImageError, match="broken image"):
        images.decode(raw[: int(len(raw) * share)], BUDGET)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_bytes_give_an_image_or_an_image_error(encode, file_format):
    rng = Random(file_format)
    whole = encode(noise((60, 40)), file_format)
    for _ in range(150):
        raw = bytearray(whole)
        for _ in range(rng.randint(1, 8)):
            # Half of the damage is in the first 64 bytes, the header.
            raw[rng.choice([rng.randrange(len(raw)), rng.randrange(64)])] = rng.randrange(256)
        with suppress(ImageError):
            images.decode(bytes(raw), BUDGET)


def test_an_empty_file_is_refused():
    with pytest.raises(ImageError, match="broken image: the file is empty"):
        images.decode(b"", BUDGET)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"hello", "no readable image of the formats BMP, GIF, JPEG"),
        (b"version https://git-lfs.github.com/spec/v1\noid ...", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>404</html>", "a web page or SVG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no readable image"),
    ],
)
def test_the_error_for_a_file_that_is_no_image_says_what_it_may_be(raw, message):
    with pytest.raises(ImageError, match=message):
        images.decode(raw, BUDGET)


def png_of_size(width, height):
    """A PNG whose header claims this size, but whose data are a few bytes."""

    def chunk(name, body):
        """A chunk of a PNG: length, name, body, checksum."""
        check = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB
    body = chunk(b"IDAT", zlib.compress(b"\0" * 10)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body


@pytest.mark.parametrize("size", [(10_001, 10_000), (30_000, 30_000), (2**31 - 1, 2**31 - 1)])
@pytest.mark.filterwarnings("error")
def test_a_decompression_bomb_is_refused_by_its_header(size):
    with pytest.raises(ImageError, match="image too large"):
        images.decode(png_of_size(*size), BUDGET)
