"""Images: opening files safely, resizing into one pixel budget, and hashing content.

The size follows the rule of Qwen's image processors, so their own resize changes nothing: the model
gets the stored pixels, and the boxes of a gold answer refer to them.
"""

import hashlib
import json
import math
import struct
import warnings
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from io import BytesIO

import numpy as np
from PIL import Image, ImageOps

from difftrain.config.data import TOKEN_SIDE

MAX_ASPECT_RATIO = 200  # the processor refuses images whose sides differ by more
MAX_PIXELS = 100_000_000  # larger images are refused by their header, before they are decoded
MAX_FILE_BYTES = 1 << 29  # larger files are refused unread; no image of MAX_PIXELS needs as much
# Pillow reads other formats by starting a program (EPS) or with rarely tested code.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
# What a file that is no image probably is, by its first bytes.
NOT_IMAGES = {
    b"version https://git-lfs": "a Git LFS pointer, not the image; run `git lfs pull`",
    b"<": "a web page or SVG, not pixels; download it again or convert it to PNG",
    b"%PDF": "a PDF; convert the page to PNG",
}
# What Pillow raises for damaged files, format by format.
DECODE_ERRORS = (OSError, SyntaxError, ValueError, LookupError, TypeError, EOFError)
DECODE_ERRORS += (ArithmeticError, struct.error, zlib.error)

# Margin of dhash() for near-duplicate rows. No second comparison confirms them, so the compression
# noise on an empty background must set no bit.
DEDUP_MARGIN = 4
DEDUP_MAX_BITS = 6  # near-duplicates differ in at most 6 of 256 dhash bits
# Margin of dhash() for benchmark images in the training data. A color thumbnail confirms every
# candidate, so equal neighbors may set a bit too: few candidates are missed.
CONTAMINATION_MARGIN = -1
# A compressed and scaled copy differs in fewer dhash bits than this, another image in far more.
CONTAMINATION_MAX_BITS = 12

Size = tuple[int, int]  # width and height in pixels


class ImageError(ValueError):
    """An image that cannot be used; the message is "problem: cause; what to do"."""


@dataclass(frozen=True, slots=True)
class PixelBudget:
    """Smallest and largest area of an image, and the side of an image token, in pixels."""

    min_pixels: int
    max_pixels: int
    side: int = TOKEN_SIDE


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An image as the model sees it."""

    png: bytes = field(repr=False)
    rgb: bytes = field(repr=False)
    size: Size
    original_size: Size  # before the resize and after EXIF rotation; gold boxes refer to it
    side: int = TOKEN_SIDE  # of an image token

    @property
    def num_tokens(self) -> int:
        """Number of image tokens that the model gets."""
        return self.size[0] * self.size[1] // self.side**2

    @property
    def is_white(self) -> bool:
        """Whether every pixel is white."""
        return self.rgb.count(b"\xff") == len(self.rgb)

    def to_pil(self) -> Image.Image:
        """The image as RGB."""
        return Image.frombytes("RGB", self.size, self.rgb)


def decode(raw: bytes, budget: PixelBudget) -> DecodedImage:
    """An image file's first frame, upright, as RGB on white, resized once. Raises ImageError."""
    image = open_image(raw)
    try:
        image.load()
        image = _to_rgb(ImageOps.exif_transpose(image))
    except ImageError:
        raise
    except DECODE_ERRORS as error:
        raise ImageError(f"broken image: damaged or cut short ({error}); fetch it again") from error
    resized = resize_to_budget(image, budget)
    return DecodedImage(to_png(resized), resized.tobytes(), resized.size, image.size, budget.side)


def open_image(raw: bytes) -> Image.Image:
    """An image of an allowed format and area; only its header has been read. Raises ImageError."""
    if not raw:
        raise ImageError("broken image: the file is empty; fetch it again")
    try:
        with warnings.catch_warnings():
            # MAX_PIXELS is our limit; Pillow's lower warning would only be noise.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(BytesIO(raw), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError(f"image too large: {error}; shrink it first") from error
    except DECODE_ERRORS as error:
        start = raw[:512].lstrip()
        hints = (hint for magic, hint in NOT_IMAGES.items() if start.startswith(magic))
        hint = next(hints, f"no readable image of the formats {', '.join(FORMATS)}")
        raise ImageError(f"broken image: {hint}") from error
    check_size(image.size)
    return image


def check_size(size: Size) -> None:
    """Raises ImageError for an image without pixels or with more than MAX_PIXELS."""
    width, height = size
    if width * height > MAX_PIXELS:
        limit = f"{MAX_PIXELS // 10**6} megapixels"
        raise ImageError(f"image too large: {width} x {height} is over {limit}; shrink it first")
    if not width * height:
        raise ImageError("broken image: it has no pixels")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Scale 0..65535 to 0..255, rounded: Pillow's conversion clips, so nearly all becomes white.
        levels = np.asarray(image).astype(np.int64)
        if levels.min() < 0 or levels.max() > 65535:
            raise ImageError("broken image: 32-bit gray has no known white; store it as 8 bit")
        image = Image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode == "F":
        raise ImageError("broken image: floating-point gray has no known white; store it as 8 bit")
    if image.has_transparency_data:  # Pillow's black background would hide line drawings
        canvas = Image.new("RGBA", image.size, "white")
        canvas.alpha_composite(image.convert("RGBA"))
        image = canvas
    return image.convert("RGB")


def resize_to_budget(image: Image.Image, budget: PixelBudget) -> Image.Image:
    """The image resized (bicubic) to fit_size, if it is not that size yet. Raises ImageError."""
    size = fit_size(image.size, budget)
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)


def fit_size(size: Size, budget: PixelBudget) -> Size:
    """A size in the budget that the model's processor does not change. Raises ImageError."""
    # One pass is enough, except for thin images, whose short side cannot shrink further: at most 8.
    for _ in range(8):
        if max(size) > MAX_ASPECT_RATIO * min(size):
            rule = f"sides may differ by {MAX_ASPECT_RATIO} to 1 at most; crop or split it"
            narrow = f"{size[0]} x {size[1]} after rounding to whole tokens"
            raise ImageError(f"image too narrow: {narrow}, but {rule}")
        previous, size = size, _smart_resize(size, budget)
        if previous == size:
            return size
    raise ImageError(
        f"image outside the budget: no size near {size[0]} x {size[1]} lies between "
        f"{budget.min_pixels} and {budget.max_pixels} pixels; set data.max_pixels higher"
    )


def _smart_resize(size: Size, budget: PixelBudget) -> Size:
    """The size that Qwen2-VL's processor (smart_resize of transformers) would give an image."""
    factor = budget.side
    width, height = (round(side / factor) * factor for side in size)
    if width * height > budget.max_pixels:
        shrink = math.sqrt(math.prod(size) / budget.max_pixels)
        width, height = (max(factor, int(side / shrink / factor) * factor) for side in size)
    elif width * height < budget.min_pixels:
        grow = math.sqrt(budget.min_pixels / math.prod(size))
        width, height = (math.ceil(side * grow / factor) * factor for side in size)
    return width, height


def to_png(image: Image.Image, compress_level: int = 1) -> bytes:
    """The image as a PNG file."""
    buffer = BytesIO()
    image.save(buffer, format="PNG", compress_level=compress_level)
    return buffer.getvalue()


def from_png(png: bytes) -> Image.Image:
    """A stored sample's image as RGB."""
    return Image.open(BytesIO(png)).convert("RGB")


def png_size(png: bytes) -> Size:
    """A stored sample's image size, from the header alone."""
    return Image.open(BytesIO(png)).size


def file_hash(raw: bytes) -> bytes:
    """A hash of 16 bytes over a file's bytes."""
    return hashlib.blake2b(raw, digest_size=16).digest()


def pixel_hash(image: Image.Image) -> bytes:
    """A hash of 16 bytes over an image's size and pixels, independent of the file format."""
    return file_hash(f"{image.size}".encode() + image.tobytes())


def dhash(image: Image.Image, margin: int) -> bytes:
    """A difference hash: 32 bytes that hardly change when an image is re-encoded or resized.

    Each of 16 x 16 gray cells sets a bit if it is brighter than its right neighbor by more than
    `margin`, on a scale of 0 to 255 (D. Krawetz, "Kind of Like That", 2013).
    """
    cells = image.convert("L").resize((17, 16), Image.Resampling.BOX)
    levels = np.asarray(cells, dtype=np.int16)
    return np.packbits(levels[:, :-1] - levels[:, 1:] > margin).tobytes()


def sample_id(pixels: Iterable[tuple[Size, bytes]], question: str, answer: str) -> str:
    """Sixteen hex digits from content alone: (size, RGB bytes) of each image, question, answer."""
    digest = hashlib.blake2b(digest_size=8)
    for (width, height), rgb in pixels:
        digest.update(f"{width}x{height}:".encode() + rgb)
    digest.update(json.dumps([question, answer]).encode())
    return digest.hexdigest()


def copy_id(sample_id: str, number: int) -> str:
    """The id of a repeated sample; `number` is 1 for its first repetition."""
    return hashlib.blake2b(f"{sample_id}/copy/{number}".encode(), digest_size=8).hexdigest()
