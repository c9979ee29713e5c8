"""Finds training samples that are also in a benchmark: the same image or the same long question.

Every sample is compared with every item of the available benchmarks. These are the benchmarks to
evaluate, other official benchmarks on disk, and shapes/NAME, which difftrain draws itself.

A difference hash (D. Krawetz, "Kind of Like That", 2013) finds candidate images. It ignores color,
so small color thumbnails of the candidates are compared too. This finds copies in another format,
with JPEG losses, or scaled. It does not find copies that are cropped, framed or mirrored.
"""

import logging
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from difftrain import images
from difftrain.config.evaluate import BUILT_IN, OFFICIAL, ContaminationPolicy, EvaluateConfig
from difftrain.config.run_config import ConfigError
from difftrain.evaluate import build_prompt
from difftrain.evaluate.loading import BenchmarkItem, first_line, image_bytes, load_items
from difftrain.images import ImageError, PixelBudget
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.stage import Heartbeat, run_shared_stage
from difftrain.records import Sample

logger = logging.getLogger(__name__)

REPORT_FILE = "contamination.json"
ROWS_PER_PART = 500
MAX_NAMED_HITS = 20  # in an error message; contamination.json lists all
READ_ERRORS = (ValueError, OSError, LookupError, TypeError, SyntaxError)
"""Errors from reading a damaged data set. SchemaError and Arrow's errors are subclasses."""
THUMBNAIL_SIDE, BLOCK_SIDE = 32, 4  # in pixels
MAX_DIFFERENCE = 5.0  # of 255; copies differ at most this much on average in any thumbnail block
MIN_QUESTION_WORDS = 20  # shorter questions may be equal by chance ("what is in the image?")
_IMAGE_TAG = re.compile(r"<image(?: \d+)?>")
_OPTIONS = re.compile(r"\n\s*(?:choices|options)\s*:")
_HINT = re.compile(r"^hint:.*?\nquestion:", re.DOTALL)


class Overlap(StrEnum):
    """What a sample shares with a benchmark item; the strongest evidence comes first."""

    same_image = "same image"
    near_image = "near image"
    same_question = "same question"


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleOverlap:
    """One sample, and the first benchmark item it overlaps with (None: there is no overlap)."""

    sample_id: str
    kind: Overlap | None
    item: str | None  # as `benchmark/item`
    items: int  # number of benchmark items that the sample overlaps with
    same_question: bool  # whether any of these items has the same question, of any length


@dataclass(frozen=True, slots=True)
class ImageSignature:
    """Hash of an image's pixels, its difference hash (32 bytes), its thumbnail (32 x 32 x 3)."""

    pixels: bytes
    dhash: np.ndarray
    thumbnail: np.ndarray


def signature(image: Image.Image) -> ImageSignature:
    """The signature by which an image is compared."""
    rgb = image.convert("RGB")
    dhash = np.frombuffer(images.dhash(rgb, images.CONTAMINATION_MARGIN), dtype=np.uint8)
    small = rgb.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)
    return ImageSignature(images.pixel_hash(rgb), dhash, np.asarray(small, dtype=np.uint8))


def thumbnail_difference(a: np.ndarray, b: np.ndarray) -> float:
    """The mean difference in the block where two thumbnails differ most, 0 to 255."""
    num_blocks = THUMBNAIL_SIDE // BLOCK_SIDE  # in a row or a column
    difference = np.abs(a.astype(np.int16) - b.astype(np.int16))
    shape = (num_blocks, BLOCK_SIDE, num_blocks, BLOCK_SIDE, 3)  # block row, y, block col, x, color
    return float(difference.reshape(shape).mean(axis=(1, 3)).max())


class ImageIndex:
    """A searchable collection of images. A search returns positions in `signatures`."""

    def __init__(self, signatures: Iterable[ImageSignature]) -> None:
        self.signatures = list(signatures)
        self._dhashes = np.array([image.dhash for image in self.signatures], dtype=np.uint8)

    def find_same(self, image: ImageSignature) -> list[int]:
        """Positions of the images with exactly these pixels."""
        return [i for i in self.find_near(image) if self.signatures[i].pixels == image.pixels]

    def find_near(self, image: ImageSignature) -> list[int]:
        """Positions of the images that look the same, including exact copies."""
        if not self.signatures:
            return []
        num_bits = np.bitwise_count(self._dhashes ^ image.dhash).sum(axis=1)  # that differ
        return [
            i
            for i in np.flatnonzero(num_bits <= images.CONTAMINATION_MAX_BITS).tolist()
            if thumbnail_difference(self.signatures[i].thumbnail, image.thumbnail) <= MAX_DIFFERENCE
        ]


def normalize_question(question: str) -> str:
    """The question's words in lower case, without punctuation, image tags, hint and options."""
    text = _IMAGE_TAG.sub(" ", unicodedata.normalize("NFKC", question).casefold())
    text = _HINT.sub(" ", _OPTIONS.split(text)[0])
    return " ".join(re.findall(r"\w+", text))


class ItemIndex:
    """A searchable collection of benchmark items. Images that cannot be decoded are ignored."""

    def __init__(self, items: Sequence[BenchmarkItem], budget: PixelBudget) -> None:
        self.num_items = Counter(item.benchmark for item in items)  # benchmark -> number of items
        self._names = ["/".join(item.key) for item in items]
        self._questions: list[str] = []
        self._by_question: dict[str, list[int]] = defaultdict(list)
        self._item_of_image, signatures = [], []
        for i, item in enumerate(items):
            # MathVerse's column `question` begins with an instruction.
            columns = ("question_for_eval", "question", "query")
            text = next((item.row[name] for name in columns if item.row.get(name)), "")
            self._questions.append(normalize_question(str(text)))
            if len(self._questions[i].split()) >= MIN_QUESTION_WORDS:
                self._by_question[self._questions[i]].append(i)
            for part in build_prompt(item.benchmark, item.row):
                if part["type"] == "image":
                    with suppress(ImageError):
                        # Resized like a sample's image, so that copies have the same pixels.
                        resized = images.decode(image_bytes(part["value"]), budget)
                        signatures.append(signature(resized.to_pil()))
                        self._item_of_image.append(i)
        self._images = ImageIndex(signatures)

    def overlap(self, sample: Sample) -> SampleOverlap:
        """Compare the sample with all items."""
        question = normalize_question(sample.question)
        signatures = [signature(images.from_png(png)) for png in sample.images]
        same = [i for image in signatures for i in self._images.find_same(image)]
        near = [i for image in signatures for i in self._images.find_near(image)]
        hits_by_kind = {
            Overlap.same_image: [self._item_of_image[i] for i in same],
            Overlap.near_image: [self._item_of_image[i] for i in near],
            Overlap.same_question: self._by_question.get(question, []),
        }
        hits = list(dict.fromkeys(i for items in hits_by_kind.values() for i in items))
        return SampleOverlap(
            sample_id=sample.sample_id,
            kind=next((kind for kind, items in hits_by_kind.items() if items), None),
            item=self._names[hits[0]] if hits else None,
            items=len(hits),
            same_question=any(self._questions[i] == question for i in hits),
        )


def available_items(config: EvaluateConfig) -> tuple[list[BenchmarkItem], dict[str, str]]:
    """All items of the benchmarks to evaluate, of the built-in ones, and of others on disk.

    Also returns name -> error for those on disk that cannot be read. Raises what load_items raises.
    """
    names = dict.fromkeys([*config.benchmarks, *BUILT_IN])
    unlimited = replace(config, benchmarks=list(names), limit=None)
    items, unreadable = load_items(unlimited), {}
    for name in config.also_on_disk:
        try:
            items += load_items(replace(unlimited, benchmarks=[name], allow_count_mismatch=True))
        except READ_ERRORS as error:
            unreadable[name] = first_line(error)
    return items, unreadable


def compare_with_benchmarks(
    samples: Sequence[Sample],
    folder: Path,
    config: EvaluateConfig,
    budget: PixelBudget,
    world: World,
) -> None:
    """Write SampleOverlap rows, contamination.json and manifest.json. Raises RankTimeout."""
    num_items, unreadable = Counter[str](), dict[str, str]()

    def compare_share(heart: Heartbeat) -> None:
        items, reasons = available_items(config)
        unreadable.update(reasons)
        if world.is_first:
            for name, reason in reasons.items():
                logger.warning("contamination: not checked: %s: %s", name, reason)
        index = ItemIndex(items, budget)
        num_items.update(index.num_items)
        compared = compared_ids()
        share = [s for s in world.share(samples) if s.sample_id not in compared]
        bar = iter(tqdm(share, desc="contamination", unit="sample", disable=not world.is_first))
        while rows := [index.overlap(sample) for sample in islice(bar, ROWS_PER_PART)]:
            parquet.write_part(folder, parquet.next_part_name(folder, world.rank), rows)
            heart.beat()

    def compared_ids() -> set[str]:
        return {row.sample_id for row in parquet.read_rows(folder, SampleOverlap)}

    def write_report() -> dict[str, int]:
        hits = [asdict(row) for row in parquet.read_rows(folder, SampleOverlap) if row.kind]
        absent = [name for name in OFFICIAL if name not in {*num_items, *unreadable}]
        content = {"samples": len(samples), "checked": dict(num_items), "absent": absent}
        content |= {"not_checked": unreadable, "hits": hits}
        manifest.write_json(folder / REPORT_FILE, content)
        return {"samples": len(samples), "items": num_items.total(), "hits": len(hits)}

    run_shared_stage(
        folder,
        world,
        compare_share,
        is_complete=lambda: {sample.sample_id for sample in samples} <= compared_ids(),
        close=write_report,
        settings=lambda: dict(num_items),
        inputs={},  # the folder's name has a hash of the samples and the benchmarks
    )


def check(
    samples: Sequence[Sample],
    selections: Iterable[Path],
    folder: Path,
    config: EvaluateConfig,
    budget: PixelBudget,
    world: World,
) -> None:
    """Compare every sample with the available benchmarks, before the first training step.

    Raises ConfigError if a sample to train on is also in a benchmark, unless
    evaluate.contamination=warn. `selections` has folders of rows with their sample_id.
    """
    compare_with_benchmarks(samples, folder, config, budget, world)
    if config.contamination is ContaminationPolicy.warn:
        return
    selected: set[str] = set()
    for part in (part for path in selections for part in parquet.parts(path)):
        selected.update(*parquet.read_columns(part, ["sample_id"]))
    rows = parquet.read_rows(folder, SampleOverlap)
    hits = [row for row in rows if row.kind is not None and row.sample_id in selected]
    if not hits:
        return
    descriptions = []
    for hit in hits[:MAX_NAMED_HITS]:
        is_same_image_and_question = hit.same_question and hit.kind is not Overlap.same_question
        kind = f"{hit.kind}, same question" if is_same_image_and_question else hit.kind
        more = f" and {hit.items - 1} more" if hit.items > 1 else ""
        descriptions.append(f"{hit.sample_id} ({kind}: {hit.item}{more})")
    rest = f", and {len(hits) - MAX_NAMED_HITS} more" if len(hits) > MAX_NAMED_HITS else ""
    message = (
        f"evaluate.contamination=error: {len(hits)} of {len(selected)} samples to train on "
        f"are in benchmarks too: {', '.join(descriptions)}{rest}; all: {folder / REPORT_FILE}. "
        "Remove them from the data; with evaluate.contamination=warn, the report only lists them"
    )
    raise ConfigError([message])
