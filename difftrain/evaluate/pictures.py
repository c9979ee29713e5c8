"""Pictures of benchmark items: read when they are asked for, decoded as the reference does it.

An item holds where its picture is, not the picture: a benchmark's pictures are never all in
memory. Not here: where they are (tsv.py, hub.py).
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

LONGEST_REFERENCE = 64
"""A longer text is base64, a shorter one names something (the reference's rule)."""


@runtime_checkable
class Stored(Protocol):
    """Where a picture is."""

    def read(self) -> Any:
        """The picture's cell: bytes, base64, or a data set's {bytes, path}."""
        ...


@dataclass(frozen=True, slots=True)
class NoPicture:
    """Stands where a picture should be: its item is not asked, and counted."""

    reason: str

    def read(self) -> Any:
        """Raises ImageError with the reason."""
        raise ImageError(self.reason)


def identity(value: Any) -> bytes:
    """What changes when a picture does: the bytes of its file, hashed; why there is none."""
    try:
        return images.file_hash(raw(value))
    except ImageError as error:
        return str(error).encode()


def raw(value: Any) -> bytes:
    """The bytes of a picture's file from whatever a cell holds. Raises ImageError."""
    if isinstance(value, Stored):
        value = value.read()
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str) and len(value) > LONGEST_REFERENCE and not _is_file(value):
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


def listed(cell: str) -> list[str]:
    """The base64 texts of an image cell: one, or a list of them. Raises ImageError if damaged."""
    if not cell.startswith("["):
        return [cell]
    try:
        return [str(each) for each in ast.literal_eval(cell)]
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        told = f"the cell begins as a list of pictures and is none ({type(error).__name__})"
        raise ImageError(f"broken image: {told}") from error


def _is_file(text: str) -> bool:
    return len(text) < 1024 and Path(text).is_file()


def shown(value: Any, budget: PixelBudget) -> Image.Image:
    """The picture as RGB inside the budget. Raises ImageError.

    Transparency is dropped without a white ground, as in the reference. It is resized once, to the
    size that the model's own processor would choose, which therefore leaves it alone.
    """
    image = value if isinstance(value, Image.Image) else images.open_image(raw(value))
    try:
        image = image.convert("RGB")
    except images.DECODE_ERRORS as error:
        raise ImageError(f"broken image: damaged or cut short ({error})") from error
    return images.resize_to_budget(image, budget)
