"""What a row says about a picture (path, bytes, data URI) becomes the picture's file bytes.

Nothing is downloaded. Not here: decoding (images.py).
"""

import base64
import binascii
from pathlib import Path
from typing import Any

from difftrain.data.quarantine import Unusable

MOST_BYTES = 1 << 29
"""Larger files are refused unread; no picture under the pixel cap needs as much."""


def fetched(reference: Any, folder: Path) -> bytes:
    """The bytes behind a reference; paths are relative to `folder`. Raises Unusable."""
    if isinstance(reference, dict):
        if isinstance(inline := reference.get("bytes"), str):
            return unpacked(inline.removeprefix("data:").rpartition("base64,")[2])
        reference = reference.get("path")
    if not isinstance(reference, str) or not reference:
        raise Unusable('no picture: an entry is neither a path, a data: URI nor {"bytes", "path"}')
    if reference.startswith("data:"):
        head, comma, body = reference.partition(",")
        if not comma or not head.endswith(";base64"):
            raise Unusable("broken picture: a data: URI must be data:image/...;base64,...")
        return unpacked(body)
    if reference.startswith(("http://", "https://")):
        raise Unusable(f"missing file: pictures are not downloaded: {shortened(reference)}")
    return from_file(folder, reference.removeprefix("file://"))


def unpacked(text: str) -> bytes:
    """Base64 text as bytes; line breaks are allowed."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Unusable(f"broken picture: not base64 ({error})") from error


def from_file(folder: Path, name: str) -> bytes:
    """A file's bytes. Devices and folders are not files."""
    try:
        path = folder / Path(name).expanduser()
        if not path.is_file():
            raise Unusable(f"missing file: {shortened(name)} (looked in {folder})")
        if path.stat().st_size > MOST_BYTES:
            raise Unusable(f"picture too large: {shortened(name)} is over {MOST_BYTES >> 20} MiB")
        return path.read_bytes()
    except Unusable:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        # ValueError: a null byte in the name; RuntimeError: a ~user that does not exist.
        raise Unusable(f"missing file: {shortened(name)} cannot be read ({error})") from error


def shortened(name: str) -> str:
    """A name that fits in one line of a report."""
    return name if len(name) <= 120 else f"{name[:117]}..."
