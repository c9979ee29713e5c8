"""What a row says about a picture (path, bytes, data URI) becomes the picture's file bytes.

Nothing is downloaded but from the dataset itself. Not here: decoding (images.py), and where files
lie (store.py).
"""

import base64
import binascii
from typing import Any

from difftrain.data import find, tars
from difftrain.data.store import Store, shortened
from difftrain.images import ImageError


def fetched(
    reference: Any, store: Store, anywhere: bool = False, within: str | None = None
) -> bytes:
    """The bytes behind a reference; paths are relative to the store. Raises ImageError.

    `anywhere` also looks for a path's tail in the folder and its zips (foreign prefixes); `within`
    names the folder that paths are relative to, loose or in a tar.
    """
    if isinstance(reference, dict):
        inline = reference.get("bytes")
        if isinstance(inline, bytes):
            return inline
        if isinstance(inline, str):
            return unpacked(inline.removeprefix("data:").rpartition("base64,")[2])
        reference = reference.get("path")
    if isinstance(reference, bytes):
        return reference
    if not isinstance(reference, str) or not reference:
        raise ImageError('no image: an entry is neither a path, a data: URI nor {"bytes", "path"}')
    if reference.startswith("data:"):
        head, comma, body = reference.partition(",")
        if not comma or not head.endswith(";base64"):
            raise ImageError("broken image: a data: URI must be data:image/...;base64,...")
        return unpacked(body)
    if reference.startswith(("http://", "https://")):
        raise ImageError(f"missing file: images are not downloaded: {shortened(reference)}")
    name = reference.removeprefix("file://")
    if within is not None:
        return tars.inside(store, within, name)
    return find.anywhere(store, name) if anywhere else store.picture(name)


def path_of(reference: Any) -> str | None:
    """The path that a reference names, or None where the row itself holds the picture."""
    if isinstance(reference, dict):
        reference = None if reference.get("bytes") is not None else reference.get("path")
    if not isinstance(reference, str) or reference.startswith(("data:", "http://", "https://")):
        return None
    return reference.removeprefix("file://")


def unpacked(text: str) -> bytes:
    """Base64 text as bytes; line breaks are allowed."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"broken image: not base64 ({error})") from error
