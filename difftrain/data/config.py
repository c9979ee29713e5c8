"""Settings of the data stage."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Source(StrEnum):
    """Where samples come from."""

    shapes = "shapes"
    jsonl = "jsonl"


class BoxScale(StrEnum):
    """What the numbers of a gold box count."""

    pixels = "pixels"
    relative = "relative"


SHAPES_PIXELS = 112 * 112
"""Every picture of the shapes world; its golds are already in these pixels."""


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """What is asked, and how large its pictures may be."""

    source: Source = Source.shapes
    """shapes draws the embedded world; jsonl reads `path`."""
    path: str | None = None
    """A .jsonl file (source=jsonl): one row a line, image paths relative to the file."""
    limit: int | None = None
    """At most this many rows, from the front; null takes all."""
    pool: int = 400
    """Samples drawn by the shapes world."""
    drawing_seed: int = 0
    """Which shapes world is drawn; the run's own seed does not change the pool."""
    boxes: BoxScale = BoxScale.pixels
    """Gold boxes of a jsonl: pixels of the original picture, or relative (0-1000, as in Orsta)."""
    min_pixels: int = 3136
    """Smaller pictures are enlarged to this (Qwen2.5-VL: 56 x 56)."""
    max_pixels: int = 1_254_400
    """Larger pictures are shrunk to this, once, here (P, section 4)."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        if self.source is Source.jsonl and self.path is None:
            yield "path", "source=jsonl needs a file: data.path=FILE.jsonl"
        if self.path is not None and not Path(self.path).expanduser().is_file():
            yield "path", "there is no such file"
        if self.limit is not None and self.limit < 1:
            yield "limit", "must be at least 1, or null for all rows"
        if not 8 <= self.pool <= 100_000:
            yield "pool", "must lie between 8 and 100000"
        if self.min_pixels < 28 * 28:
            yield "min_pixels", "must be at least 784, one image token"
        if self.max_pixels < self.min_pixels:
            yield "max_pixels", f"must not be below min_pixels={self.min_pixels}"
        if self.source is Source.shapes:
            if self.min_pixels > SHAPES_PIXELS:
                yield (
                    "min_pixels",
                    f"must not be above {SHAPES_PIXELS}, the pixels of a shapes picture",
                )
            if self.max_pixels < SHAPES_PIXELS:
                yield (
                    "max_pixels",
                    f"must not be below {SHAPES_PIXELS}, the pixels of a shapes picture",
                )
