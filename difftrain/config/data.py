"""Settings of the data stage, which reads samples and resizes their images."""

import re
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path

from difftrain.config.setting import Problems, setting

Source = StrEnum("Source", [
    "shapes", "jsonl", "orsta", "mm_eureka", "mulberry", "geometry3k", "ms_swift", "llama_factory",
    "easyr1", "verl", "trl", "auto",
])  # fmt: skip
"""shapes: synthetic images drawn by difftrain/shapes. auto: each row is recognized by its columns.
Others: the format of a file or folder."""
Mix = StrEnum("Mix", ["paper_reasoning", "paper_perception", "paper", "even"])
"""Which samples source=shapes generates: the paper's shares of difficulties, or all families."""
TextOnly = StrEnum("TextOnly", ["reject", "keep"])
"""What happens to a row without an image."""
Duplicates = StrEnum("Duplicates", ["drop", "keep"])
"""What happens to a row whose images, question and answer equal an earlier row's."""
WITH_RATIONALE = frozenset({Source.shapes, Source.mulberry})
"""Sources whose rows have the reasoning. In others, `solution` is only the gold answer."""
SHAPES_PIXELS = 112 * 112  # size of every shapes image; gold boxes use its pixel coordinates
TOKEN_SIDE = 28  # pixels on a side of an image token of Qwen2.5-VL
TOKEN_PIXELS = TOKEN_SIDE**2  # of one image token of Qwen2.5-VL: 2 x 2 patches of 14 x 14 pixels
AREA_RULE = f"must be at least {TOKEN_PIXELS}, one image token"  # error message of pixel limits
PIXEL_STAGES = ("files", "probe", "responses", "preflight")  # stages that depend on image sizes
FILE_SUFFIXES = (".jsonl", ".json", ".parquet")
ALL_SUFFIXES = (*FILE_SUFFIXES, ".arrow", ".csv", ".tsv")  # those that source=auto reads
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


class BoxFormat(StrEnum):
    """The coordinate system of gold boxes."""

    pixels = "pixels"  # of the original image, after its EXIF rotation
    resized = "resized"  # of the image after resizing to min_pixels..max_pixels
    relative = "relative"  # 0 to 1000 along both sides (Orsta)
    unit = "unit"  # 0 to 1 along both sides


@dataclass(kw_only=True, slots=True)
class ColumnsConfig:
    """source=auto: the columns to read where the rows' own names are not recognized.

    `a.b` is field b of column a; null: the column is recognized by its name.
    """

    question: str | None = None
    """The column with the question: text, or a list of messages."""
    images: str | None = None
    """The column with the image or the list of images."""
    answer: str | None = None
    """The column with the gold answer, or with a list of accepted answers."""
    options: str | None = None
    """The column with the list of a multiple-choice question's options."""


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """Which samples are read, and how large their images may be.

    `fingerprint` (see setting.py) names "shapes" for synthetic samples and "files" for `path`. The
    second contains a hash of the files, or the hub's commit, instead of `path` and `revision`.
    """

    source: Source = setting(Source.shapes, fingerprint=("shapes", "files"))
    """shapes generates synthetic samples; every other source reads `path` in its format."""
    path: str | None = None
    """A file, a folder, or a dataset's id on the hub (owner/name)."""
    revision: str | None = None
    """Branch, tag or commit of a hub id; null: main. A full commit hash saves a request."""
    split: str = setting("train", fingerprint=("files",))
    """Files named after another split (test, validation) are not read."""
    tasks: list[str] | None = setting(None, fingerprint=("files",))
    """Use only rows of these tasks (null: all); the manifest counts the others as other_tasks."""
    duplicates: Duplicates = setting(Duplicates.drop, fingerprint=("files",))
    """drop rejects a repeated row; keep gives it another sample id (Orsta repeats puzzles)."""
    limit: int | None = setting(
        None, fingerprint=("shapes", "files"), at_least=1, or_null="for all rows"
    )
    """Read at most this many rows, from the start; null reads all."""
    num_samples: int = setting(400, fingerprint=("shapes",), at_least=8, at_most=100_000)
    """Number of samples that source=shapes generates."""
    mix: Mix = setting(Mix.paper, fingerprint=("shapes",))
    """paper_reasoning, paper_perception, paper (both): the shares of easy, medium and hard, and
    unsolved samples in the data of Qi et al. 2026, by construction; even: all families alike."""
    world_seed: int = setting(0, fingerprint=("shapes",))
    """Seed of the synthetic samples; RunConfig.seed does not change them."""
    box_format: BoxFormat = setting(BoxFormat.pixels, fingerprint=("files",))
    """Coordinate system of gold boxes if the rows do not name it (orsta and ms_swift do)."""
    columns: ColumnsConfig = setting(default_factory=ColumnsConfig, fingerprint=("files",))
    """source=auto: the names of columns that are not recognized."""
    text_only: TextOnly = setting(TextOnly.reject, fingerprint=("files",))
    """reject or keep rows without an image; kept ones are probed, although masks change nothing."""
    min_pixels: int = setting(3136, fingerprint=PIXEL_STAGES, at_least=TOKEN_PIXELS, rule=AREA_RULE)
    """Smaller images are enlarged to this area (Qwen2.5-VL: 56 x 56 pixels, 4 tokens)."""
    max_pixels: int = setting(1_254_400, fingerprint=PIXEL_STAGES)
    """Larger images are shrunk to this area (Qi et al. 2026, section 4): 1600 tokens."""
    token_side: int | None = setting(
        None, fingerprint=(), at_least=1, rule="must be at least 1, or null"
    )
    """Pixels on a side of an image token; images get whole tokens. null: as in config.json of
    model.name, 28 if it cannot be read (Qwen2.5-VL; Qwen3-VL and Qwen3.5 have 32)."""

    def check(self) -> Problems:
        yield from self._path_problems()
        if self.tasks == []:
            yield "tasks", "must name a task, or be null for all"
        if not self.split:
            yield "split", "must name a split, such as train"
        if self.source is not Source.auto:
            for entry in fields(self.columns):
                if getattr(self.columns, entry.name) is not None:
                    yield f"columns.{entry.name}", "is used only with source=auto"
        if self.max_pixels < self.min_pixels:
            yield "max_pixels", f"must not be below min_pixels={self.min_pixels}"
        if self.source is Source.shapes:
            size = f"{SHAPES_PIXELS}, the number of pixels of a source=shapes image"
            if self.min_pixels > SHAPES_PIXELS:
                yield "min_pixels", f"must not be above {size}"
            if self.max_pixels < SHAPES_PIXELS:
                yield "max_pixels", f"must not be below {size}"

    def _path_problems(self) -> Problems:
        if self.path is None:
            if self.source is Source.jsonl:
                yield "path", "source=jsonl needs a file: data.path=FILE.jsonl"
            elif self.source is not Source.shapes:
                rule = "needs a file, a folder or a hub id: data.path=FOLDER"
                yield "path", f"source={self.source} {rule}"
        elif not Path(self.path).expanduser().exists() and not self.on_hub:
            is_file = Path(self.path).suffix in ALL_SUFFIXES
            yield "path", "there is no such file" if is_file else "there is no such file or folder"
        if self.revision is not None and not self.on_hub:
            yield "revision", "is allowed only with a hub id (data.path=owner/name)"

    @property
    def side(self) -> int:
        """token_side, or Qwen2.5-VL's if it is not set."""
        return self.token_side or TOKEN_SIDE

    @property
    def side_for_fingerprint(self) -> dict[str, int]:
        """What token_side adds to the fingerprints of PIXEL_STAGES; nothing for Qwen2.5-VL's."""
        return {} if self.side == TOKEN_SIDE else {"token_side": self.side}

    @property
    def on_hub(self) -> bool:
        """Whether `path` is a hub id (owner/name) and not a local folder of that name."""
        path = self.path or ""
        is_file = path.endswith(ALL_SUFFIXES)
        is_id = HUB_ID.fullmatch(path) is not None and not is_file
        return is_id and not Path(path).exists()
