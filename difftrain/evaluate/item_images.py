"""Images of benchmark items: read when they are needed, decoded as the reference does it.

An item holds where its image is, not the image: a benchmark's images are never all in memory.
Not here: where they are (loading.py).
"""

import ast
import base64
import binascii
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from PIL import Image

from difftrain import images
from difftrain.images import ImageError, PixelBudget

MAX_REFERENCE_LENGTH = 64
"""A longer text is base64, a shorter one names something (the reference's rule)."""


@runtime_checkable
class ImageSource(Protocol):
    """Where an image is."""

    def read(self) -> Any:
        """The image's cell: bytes, base64, or a data set's {bytes, path}."""
        ...


@dataclass(frozen=True, slots=True)
class MissingImage:
    """Stands where an image should be: its item is skipped, and counted."""

    reason: str

    def read(self) -> Any:
        """Raises ImageError with the reason."""
        raise ImageError(self.reason)


def identity(value: Any) -> bytes:
    """A hash of the image file's bytes; for a missing image, the reason."""
    try:
        return images.file_hash(image_bytes(value))
    except ImageError as error:
        return str(error).encode()


def image_bytes(value: Any) -> bytes:
    """The bytes of an image file from whatever a cell holds. Raises ImageError."""
    if isinstance(value, ImageSource):
        value = value.read()
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str) and len(value) > MAX_REFERENCE_LENGTH and not _is_file(value):
        try:
            return base64.b64decode(value)
        except binascii.Error as error:
            raise ImageError(f"broken image: no base64 ({error})") from error
    if isinstance(value, str) and value:
        try:
            return Path(value).read_bytes()
        except OSError as error:
            raise ImageError(f"no image: {value} cannot be read ({error.strerror})") from error
    if isinstance(value, bytes) and value:
        return value
    raise ImageError("no image: the cell is empty")


def base64_texts(cell: str) -> list[str]:
    """The base64 texts of an image cell: one, or a list of them. Raises ImageError if damaged."""
    if not cell.startswith("["):
        return [cell]
    try:
        return [str(text) for text in ast.literal_eval(cell)]
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        raise ImageError(
            f"broken image: the cell begins as a list of images and is none "
            f"({type(error).__name__})"
        ) from error


def _is_file(text: str) -> bool:
    return len(text) < 1024 and Path(text).is_file()


def decoded(value: Any, budget: PixelBudget) -> Image.Image:
    """The image as RGB inside the budget. Raises ImageError.

    Transparency is dropped without a white background, as in the reference. It is resized once, to
    the size that the model's own processor would choose, which therefore leaves it alone.
    """
    if isinstance(value, Image.Image):
        images.check_size(value.size)
        image = value
    else:
        image = images.open_image(image_bytes(value))
    try:
        image = image.convert("RGB")
    except images.DECODE_ERRORS as error:
        raise ImageError(f"broken image: damaged or cut short ({error})") from error
    return images.resize_to_budget(image, budget)
