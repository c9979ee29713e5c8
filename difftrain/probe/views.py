"""Prepares the images of the probe's requests in worker processes, ahead of the engine.

A masked image costs decoding, masking and, for a server, encoding: tens of milliseconds of a core
at the papers' size (1120 x 1120). The workers prepare the requests that come next while the engine
answers others, so that it need not wait. A view's images depend on its spec alone, so the number of
workers changes no result.
"""

import base64
import logging
import struct
import zlib
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from PIL import Image

from difftrain import images
from difftrain.grade.pool import WorkerContext
from difftrain.model.engines.types import DataUrl
from difftrain.probe import masks

logger = logging.getLogger(__name__)

MAX_DECODED = 64  # decoded images that a process keeps: 4 MB for each at 1120 x 1120
AHEAD = 4  # views that each worker prepares beyond those that the engine has room for

ViewImages = tuple[Image.Image | DataUrl, ...]
ViewKey = tuple[str | int, ...]  # identifies a view of a sample; the sample's id comes first


@dataclass(frozen=True, slots=True)
class ViewSpec:
    """Images of a sample, and how to prepare them.

    `mask_seeds` has a seed for each image; empty means unmasked. With a `png_level`, an image
    becomes a data URL for a server, else a PIL image.
    """

    pngs: tuple[bytes, ...] = field(repr=False)
    percent: int = 0
    mask_seeds: tuple[int, ...] = ()
    mask: str = "pixels"
    png_level: int | None = None


def prepare(spec: ViewSpec) -> ViewImages:
    """The images of a view, as the engine takes them."""
    pixels = [_decoded(png) for png in spec.pngs]
    if spec.mask_seeds:
        pixels = [
            masks.mask(image, spec.percent, seed, spec.mask)
            for image, seed in zip(pixels, spec.mask_seeds, strict=True)
        ]
    if spec.png_level is None:
        return tuple(Image.fromarray(image) for image in pixels)
    return tuple(data_url(image, spec.png_level) for image in pixels)


@lru_cache(maxsize=MAX_DECODED)
def _decoded(png: bytes) -> np.ndarray:
    return np.asarray(images.from_png(png))


def data_url(pixels_HWC: np.ndarray, png_level: int) -> DataUrl:
    """An RGB image as the data URL of a PNG file.

    Level 0 stores the pixels unchanged, because a masked image hardly shrinks and compressing it
    takes longer than sending it to a server on the same machine.
    """
    height, width, _ = pixels_HWC.shape
    png = (
        stored_png(pixels_HWC)
        if png_level == 0
        else images.to_png(Image.fromarray(pixels_HWC), png_level)
    )
    return DataUrl(f"data:image/png;base64,{base64.b64encode(png).decode()}", (width, height))


def stored_png(pixels_HWC: np.ndarray) -> bytes:
    """An RGB image as a PNG file without compression (PNG specification, sections 5 and 10)."""
    height, width, _ = pixels_HWC.shape
    rows = np.zeros((height, 1 + 3 * width), dtype=np.uint8)  # the first byte: no filter
    rows[:, 1:] = pixels_HWC.reshape(height, 3 * width)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows.data, level=0)), (b"IEND", b"")]
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, content in chunks:
        checksum = zlib.crc32(content, zlib.crc32(name))
        parts += [struct.pack(">I", len(content)), name, content, struct.pack(">I", checksum)]
    return b"".join(parts)


class ViewPool:
    """Worker processes that prepare views ahead of time; with none, it prepares nothing.

    All views of a sample go to one worker, which decodes its images once while it keeps them. If a
    worker dies (out of memory), its views are prepared by the caller from then on.
    """

    def __init__(self, num_workers: int) -> None:
        self._workers = [ProcessPoolExecutor(1, WorkerContext()) for _ in range(num_workers)]
        self._open: dict[ViewKey, Future[ViewImages]] = {}

    @property
    def num_ahead(self) -> int:
        """How many views to submit beyond those that the engine has room for."""
        return AHEAD * len(self._workers)

    def is_new(self, key: ViewKey) -> bool:
        """Whether `submit` would start to prepare this view."""
        return bool(self._workers) and key not in self._open

    def submit(self, key: ViewKey, spec: ViewSpec) -> None:
        """Start to prepare a view."""
        worker = self._workers[zlib.crc32(str(key[0]).encode()) % len(self._workers)]
        try:
            self._open[key] = worker.submit(prepare, spec)
        except BrokenProcessPool:
            self._give_up()

    def take(self, key: ViewKey) -> ViewImages | None:
        """A view's images, waiting for its worker; None if no worker has prepared it."""
        if key not in self._open:
            return None
        try:
            return self._open.pop(key).result()
        except (BrokenProcessPool, CancelledError):
            self._give_up()
            return None

    def _give_up(self) -> None:
        logger.warning("a process that prepares images died; this process prepares them now")
        self.close()
        self._workers, self._open = [], {}

    def is_ready(self, key: ViewKey) -> bool:
        """Whether `take` need not wait for a worker."""
        future = self._open.get(key)
        return future is None or future.done()

    def drop(self, key: ViewKey) -> None:
        """Forget a view that is not needed."""
        if future := self._open.pop(key, None):
            future.cancel()

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.shutdown(wait=False, cancel_futures=True)
