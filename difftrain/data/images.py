"""Bytes of any picture become RGB PNG bytes inside one pixel budget, or Unusable says why not.

The size follows the rule that Qwen's image processors use, so their own resize afterwards
changes nothing: what is stored here is what the model sees, and what gold boxes refer to.
Not here: finding the bytes (pictures.py).
"""

import math
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO

import numpy as np
from PIL import Image, ImageOps

from difftrain.config.data import TOKEN_PIXELS
from difftrain.data.quarantine import Unusable

FACTOR = 28
"""Pixels per image token and side: a patch of 14, merged 2 x 2."""
LONGEST_RATIO = 200
"""The processor refuses pictures whose sides differ by more."""
MOST_PIXELS = 100_000_000
"""Larger pictures are refused by their header, before anything is decoded."""
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""Named, because Pillow reads others by starting a program (EPS) or with rarely tested code."""
LOOK_MARGIN = 4
NOT_PICTURES = {
    b"version https://git-lfs": "a Git LFS pointer, not the picture; run `git lfs pull`",
    b"<": "a web page or SVG, not pixels; download it again or convert it to PNG",
    b"%PDF": "a PDF; convert the page to PNG",
}
UNDECODABLE = (
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    TypeError,
    EOFError,
    ArithmeticError,
    struct.error,
    zlib.error,
)
"""What Pillow raises for damaged files, format by format."""

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Budget:
    """Smallest and largest area of a stored picture, in pixels."""

    min_pixels: int
    max_pixels: int


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as the model sees it: PNG bytes, the same as RGB bytes, sizes as (width, height).

    `original` is the size before the resize and after EXIF rotation, which gold boxes refer to.
    """

    png: bytes = field(repr=False)
    rgb: bytes = field(repr=False)
    size: Size
    original: Size

    @property
    def tokens(self) -> int:
        """Image tokens that the model spends on it."""
        return self.size[0] * self.size[1] // TOKEN_PIXELS


def load(raw: bytes, budget: Budget) -> Picture:
    """Decode a file's bytes and resize once (bicubic). Raises Unusable."""
    image = decoded(raw)
    size = fitted(image.size, budget)
    stored = image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)
    buffer = BytesIO()
    stored.save(buffer, format="PNG", compress_level=1)
    return Picture(buffer.getvalue(), stored.tobytes(), size, image.size)


def is_white(picture: Picture) -> bool:
    """Whether every pixel is white."""
    return picture.rgb.count(b"\xff") == len(picture.rgb)


def look(picture: Picture) -> bytes:
    """32 bytes that hardly change when a picture is re-encoded or resized (a difference hash).

    One bit for each of 16 x 16 cells: darker than its left neighbour by more than LOOK_MARGIN of
    255. The margin keeps empty ground at 0, whatever the noise of its encoding.
    """
    page = Image.frombytes("RGB", picture.size, picture.rgb).convert("L")
    cells = np.asarray(page.resize((17, 16), Image.Resampling.BOX), dtype=np.int16)
    return np.packbits(cells[:, :-1] - cells[:, 1:] > LOOK_MARGIN).tobytes()


def snapped(side: float, rounding: Callable[[float], int]) -> int:
    """A side as a multiple of FACTOR."""
    return rounding(side / FACTOR) * FACTOR


def one_step(size: Size, budget: Budget) -> Size:
    """The size that the processor would give a picture of this size (Qwen2-VL's smart_resize)."""
    width, height = size
    nearest = snapped(width, round), snapped(height, round)
    area = nearest[0] * nearest[1]
    if area > budget.max_pixels:
        shrink = math.sqrt(width * height / budget.max_pixels)
        return (
            max(FACTOR, snapped(width / shrink, math.floor)),
            max(FACTOR, snapped(height / shrink, math.floor)),
        )
    if area < budget.min_pixels:
        grow = math.sqrt(budget.min_pixels / (width * height))
        return snapped(width * grow, math.ceil), snapped(height * grow, math.ceil)
    return nearest


def fitted(size: Size, budget: Budget) -> Size:
    """A (width, height) in the budget that the processor leaves alone. Raises Unusable.

    One step is enough for all but long, thin pictures, whose short side cannot shrink further.
    """
    for _ in range(8):
        if max(size) > LONGEST_RATIO * min(size):
            raise Unusable(
                f"picture too narrow: {size[0]} x {size[1]} after rounding to whole tokens, "
                f"but sides may differ by {LONGEST_RATIO} to 1 at most; crop or split it"
            )
        after = one_step(size, budget)
        if after == size:
            return size
        size = after
    raise Unusable(
        f"picture outside the budget: no size near {size[0]} x {size[1]} lies between "
        f"{budget.min_pixels} and {budget.max_pixels} pixels; set data.max_pixels higher"
    )


def decoded(raw: bytes) -> Image.Image:
    """The first frame, upright, as RGB, alpha on white. Raises Unusable."""
    image = opened(raw)
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise Unusable(
            f"picture too large: {width} x {height} is over {MOST_PIXELS // 10**6} megapixels; "
            "shrink it first"
        )
    if not width * height:
        raise Unusable("broken picture: it has no pixels")
    try:
        image.load()
        return in_rgb(ImageOps.exif_transpose(image))
    except Unusable:
        raise
    except UNDECODABLE as error:
        raise Unusable(f"broken picture: damaged or cut short ({error}); fetch it again") from error


def opened(raw: bytes) -> Image.Image:
    """A picture whose header was read and nothing else. Raises Unusable."""
    if not raw:
        raise Unusable("broken picture: the file is empty; fetch it again")
    try:
        with warnings.catch_warnings():
            # MOST_PIXELS is our limit; Pillow's lower warning would only be noise.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(BytesIO(raw), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise Unusable(f"picture too large: {error}; shrink it first") from error
    except UNDECODABLE as error:
        start = raw[:512].lstrip()
        hints = (hint for magic, hint in NOT_PICTURES.items() if start.startswith(magic))
        what = next(hints, f"no readable picture of the formats {', '.join(FORMATS)}")
        raise Unusable(f"broken picture: {what}") from error


def in_rgb(image: Image.Image) -> Image.Image:
    """Any mode as RGB. Line drawings on a transparent ground need white: plain gives black."""
    if image.mode.startswith("I"):
        return sixteen_bit_grey(image).convert("RGB")
    if image.mode == "F":
        raise Unusable("broken picture: floating-point grey has no known white; store it as 8 bit")
    if image.has_transparency_data:
        page = Image.new("RGBA", image.size, "white")
        page.alpha_composite(image.convert("RGBA"))
        image = page
    return image.convert("RGB")


def sixteen_bit_grey(image: Image.Image) -> Image.Image:
    """0..65535 as 0..255. Pillow's own conversion clips, which turns nearly everything white."""
    levels = np.asarray(image).astype(np.int64)
    if levels.min() < 0 or levels.max() > 65535:
        raise Unusable("broken picture: 32-bit grey has no known white; store it as 8 bit")
    return Image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8))
