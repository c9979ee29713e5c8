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
"""Sources whose rows give the steps to their answer (Sample.rationale). The `solution` column of
others is the gold answer alone."""


class BoxFormat(StrEnum):
    """The coordinate system of gold boxes."""

    pixels = "pixels"  # of the original image, upright
    resized = "resized"  # of the image as resized to this pixel budget
    relative = "relative"  # 0 to 1000 along both sides (Orsta)
    unit = "unit"  # 0 to 1 along both sides


class Duplicates(StrEnum):
    """What happens to a row whose images, question and answer equal an earlier row's."""

    drop = "drop"
    keep = "keep"


SHAPES_PIXELS = 112 * 112
"""Every image of the shapes world; its gold boxes are already in these pixels."""
TOKEN_PIXELS = 28 * 28
"""Pixels of one image token: patches of 14, merged 2 x 2."""
FILE_SUFFIXES = (".jsonl", ".json", ".parquet")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """Which samples are read, and how large their images may be.

    The fingerprints `shapes` and `files` are of samples drawn and read; the contents of the files
    count there instead of `path` and `revision`.
    """

    source: Source = setting(Source.shapes, fingerprint=("shapes", "files"))
    """shapes draws the embedded world; every other source reads `path` in its format."""
    path: str | None = None
    """A file, a folder, or a dataset's id on the hub (owner/name)."""
    revision: str | None = None
    """Branch, tag or commit of a hub id; null takes main. A full commit needs no request."""
    split: str = setting("train", fingerprint=("files",))
    """Files named after another split (test, validation) are not read."""
    tasks: list[str] | None = setting(None, fingerprint=("files",))
    """Only rows of these tasks; null takes all. Rows of others are counted as other_tasks."""
    duplicates: Duplicates = setting(Duplicates.drop, fingerprint=("files",))
    """drop rejects a repeated row; keep gives it an id of its own (Orsta repeats puzzles)."""
    limit: int | None = setting(None, fingerprint=("shapes", "files"))
    """At most this many rows, from the start; null takes all."""
    num_samples: int = setting(400, fingerprint=("shapes",))
    """Samples drawn by the shapes world."""
    world_seed: int = setting(0, fingerprint=("shapes",))
    """Seed of the shapes world; the run's own seed does not change the samples."""
    box_format: BoxFormat = setting(BoxFormat.pixels, fingerprint=("files",))
    """Coordinate system of gold boxes where rows do not give it (orsta and ms_swift do)."""
    min_pixels: int = setting(3136, fingerprint=("files", "probe", "responses", "preflight"))
    """Smaller images are enlarged to this (Qwen2.5-VL: 56 x 56, 4 tokens)."""
    max_pixels: int = setting(1_254_400, fingerprint=("files", "probe", "responses", "preflight"))
    """Larger images are shrunk to this (Qi et al. 2026, section 4): 1600 tokens of 784 pixels."""

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
            size = f"{SHAPES_PIXELS}, the pixels of an image of the shapes world"
            if self.min_pixels > SHAPES_PIXELS:
                yield "min_pixels", f"must not be above {size}"
            if self.max_pixels < SHAPES_PIXELS:
                yield "max_pixels", f"must not be below {size}"

    def check_path(self) -> Iterator[tuple[str, str]]:
        """Problems of path and revision."""
        if self.path is None:
            if self.source is Source.jsonl:
                yield "path", "source=jsonl needs a file: data.path=FILE.jsonl"
            elif self.source is not Source.shapes:
                rule = "needs a file, a folder or a hub id: data.path=FOLDER"
                yield "path", f"source={self.source.value} {rule}"
        elif not Path(self.path).expanduser().exists() and not self.on_hub:
            is_file = Path(self.path).suffix in FILE_SUFFIXES
            yield "path", "there is no such file" if is_file else "there is no such file or folder"
        if self.revision is not None and not self.on_hub:
            yield "revision", "belongs to a hub id (data.path=owner/name)"

    @property
    def on_hub(self) -> bool:
        """Whether `path` names a dataset on the hub: owner/name, and no such folder here."""
        if self.path is None or self.path.endswith(FILE_SUFFIXES):
            return False
        return bool(HUB_ID.fullmatch(self.path)) and not Path(self.path).exists()
