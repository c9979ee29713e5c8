"""When two pictures are the same picture, and two questions the same question. Pure.

A difference hash (D. Krawetz, "Kind of Like That", 2013) finds candidates: is each cell of a gray
16 x 17 thumbnail brighter than its right neighbor, 256 bits. On plain drawings it is blind to
colour and to much else, so candidates are held against each other as small colour pictures too.
What survives: another format, JPEG losses, another size. What does not: crops, frames, mirroring.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from difftrain import images

THUMBNAIL = 32
BLOCK = 4
MOST_DIFFERENCE = 5.0
"""Of 255: the largest mean difference of a block of 4 x 4 thumbnail pixels between copies."""
FEWEST_WORDS = 20
"""Shorter questions are the same by habit ("what is written in the image?")."""
_TAG = re.compile(r"<image(?: \d+)?>")
_OPTIONS = re.compile(r"\n\s*(?:choices|options)\s*:")
_HINT = re.compile(r"^hint:.*?\nquestion:", re.DOTALL)
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Look:
    """A picture's identity, its difference hash (32 bytes), and itself at 32 x 32 x 3."""

    pixels: bytes
    bits: np.ndarray
    thumbnail: np.ndarray


def look(image: Image.Image) -> Look:
    """What is compared of a picture."""
    rgb = image.convert("RGB")
    bits = np.frombuffer(images.dhash(rgb, images.CONTAMINATION_MARGIN), dtype=np.uint8)
    small = rgb.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return Look(images.pixel_hash(rgb), bits, np.asarray(small, dtype=np.uint8))


def difference(one: np.ndarray, two: np.ndarray) -> float:
    """The largest mean difference of any block between two thumbnails, 0 to 255."""
    blocks = THUMBNAIL // BLOCK
    apart = np.abs(one.astype(np.int16) - two.astype(np.int16))
    mean = apart.reshape(blocks, BLOCK, blocks, BLOCK, 3).mean(axis=(1, 3))
    return float(mean.max())


class Gallery:
    """Pictures that others are held against; `near` gives their places."""

    def __init__(self, looks: Iterable[Look]) -> None:
        self._looks = list(looks)
        self._bits = np.array([each.bits for each in self._looks], dtype=np.uint8)

    def same(self, found: Look) -> list[int]:
        """The places of pictures with the very same pixels."""
        return [at for at in self.near(found) if self._looks[at].pixels == found.pixels]

    def near(self, found: Look) -> list[int]:
        """The places of pictures that look the same, the very same ones included."""
        if not self._looks:
            return []
        apart = np.bitwise_count(self._bits ^ found.bits).sum(axis=1)
        return [
            int(at)
            for at in np.flatnonzero(apart <= images.CONTAMINATION_MAX_BITS)
            if difference(self._looks[at].thumbnail, found.thumbnail) <= MOST_DIFFERENCE
        ]


def plain_words(question: str) -> str:
    """A question's words alone: no case, no marks, no picture tags, no hint, no options."""
    text = _TAG.sub(" ", unicodedata.normalize("NFKC", question).casefold())
    text = _HINT.sub(" ", _OPTIONS.split(text)[0])
    return " ".join(_WORD.findall(text))
