"""Settings of the data stage."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from difftrain.config.fingerprint import setting


class Source(StrEnum):
    """Where samples come from: the embedded world, or a format that a file or folder is read in."""

    shapes = "shapes"
    jsonl = "jsonl"
    orsta = "orsta"
    mm_eureka = "mm_eureka"
    mulberry = "mulberry"
    geometry3k = "geometry3k"
    ms_swift = "ms_swift"
    llama_factory = "llama_factory"
    easyr1 = "easyr1"
    verl = "verl"
    trl = "trl"


WITH_RATIONALE = frozenset({Source.shapes, Source.mulberry})
"""Sources whose rows say how their answer is found (Sample.solution). The `solution` column of
others is the gold alone."""


class BoxFormat(StrEnum):
    """What the numbers of a gold box count."""

    pixels = "pixels"  # of the original picture, upright
    resized = "resized"  # of the picture as resized to this very budget
    relative = "relative"  # 0 to 1000 along both sides (Orsta)
    unit = "unit"  # 0 to 1 along both sides


class Duplicates(StrEnum):
    """What becomes of a row whose pictures, words and gold equal an earlier row's."""

    drop = "drop"
    keep = "keep"


SHAPES_PIXELS = 112 * 112
"""Every picture of the shapes world; its golds are already in these pixels."""
TOKEN_PIXELS = 28 * 28
"""Pixels of one image token: patches of 14, merged 2 x 2."""
FILE_SUFFIXES = (".jsonl", ".json", ".parquet")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """What is asked, and how large its pictures may be."""

    source: Source = Source.shapes
    """shapes draws the embedded world; every other source reads `path` in its format."""
    path: str | None = None
    """A file, a folder, or a dataset's id on the hub (owner/name)."""
    revision: str | None = None
    """Branch, tag or commit of a hub id; null takes main. A full commit is not asked for again."""
    split: str = "train"
    """Files that bear another split's name (test, validation) are not read."""
    tasks: list[str] | None = None
    """Only rows of these tasks; null takes all. Rows of others are counted as left_out."""
    duplicates: Duplicates = Duplicates.drop
    """keep gives a repeated row a sample id of its own (Orsta repeats puzzles on purpose)."""
    limit: int | None = None
    """At most this many rows, from the front; null takes all."""
    num_samples: int = 400
    """Samples drawn by the shapes world."""
    world_seed: int = 0
    """Which shapes world is drawn; the run's own seed does not change the pool."""
    box_format: BoxFormat = BoxFormat.pixels
    """What gold boxes count where the format does not say (orsta and ms_swift rows do)."""
    min_pixels: int = setting(3136, fingerprint=("probe", "responses", "preflight"))
    """Smaller pictures are enlarged to this (Qwen2.5-VL: 56 x 56, 4 tokens)."""
    max_pixels: int = setting(1_254_400, fingerprint=("probe", "responses", "preflight"))
    """Larger pictures are shrunk to this, once, here (P, section 4): 1600 tokens of 784 pixels."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        yield from self.check_path()
        if self.limit is not None and self.limit < 1:
            yield "limit", "must be at least 1, or null for all rows"
        if self.tasks is not None and not self.tasks:
            yield "tasks", "must name a task, or be null for all"
        if not self.split:
            yield "split", "must name a split, such as train"
        if not 8 <= self.num_samples <= 100_000:
            yield "num_samples", "must lie between 8 and 100000"
        if self.min_pixels < TOKEN_PIXELS:
            yield "min_pixels", f"must be at least {TOKEN_PIXELS}, one image token"
        if self.max_pixels < self.min_pixels:
            yield "max_pixels", f"must not be below min_pixels={self.min_pixels}"
        if self.source is Source.shapes:
            told = f"{SHAPES_PIXELS}, the pixels of a shapes picture"
            if self.min_pixels > SHAPES_PIXELS:
                yield "min_pixels", f"must not be above {told}"
            if self.max_pixels < SHAPES_PIXELS:
                yield "max_pixels", f"must not be below {told}"

    def check_path(self) -> Iterator[tuple[str, str]]:
        """Problems of where the rows lie."""
        if self.path is None:
            if self.source is Source.jsonl:
                yield "path", "source=jsonl needs a file: data.path=FILE.jsonl"
            elif self.source is not Source.shapes:
                told = "needs a file, a folder or a hub id: data.path=FOLDER"
                yield "path", f"source={self.source.value} {told}"
        elif not Path(self.path).expanduser().exists() and not self.on_hub:
            file = Path(self.path).suffix in FILE_SUFFIXES
            yield "path", "there is no such file" if file else "there is no such file or folder"
        if self.revision is not None and not self.on_hub:
            yield "revision", "belongs to a hub id (data.path=owner/name)"

    @property
    def on_hub(self) -> bool:
        """Whether `path` names a dataset on the hub: owner/name, and no such folder here."""
        if self.path is None or self.path.endswith(FILE_SUFFIXES):
            return False
        return bool(HUB_ID.fullmatch(self.path)) and not Path(self.path).exists()

    @property
    def budget_in_tokens(self) -> tuple[int, int]:
        """The pixel budget in image tokens of 28 x 28 pixels: least and most."""
        return -(-self.min_pixels // TOKEN_PIXELS), self.max_pixels // TOKEN_PIXELS
