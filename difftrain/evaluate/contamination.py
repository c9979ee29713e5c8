"""Which training samples are in a benchmark too: by image, or by a long question word for word.

Every sample is compared with every item of the benchmarks at hand: those that are evaluated, the
official ones on disk beside them, and the miniatures. A rank takes its share of the samples.

A difference hash (D. Krawetz, "Kind of Like That", 2013) finds candidate images. It ignores color,
so candidates are compared as small color images too. Copies in another format, with JPEG losses or
scaled are found; crops, frames and mirrored copies are not.
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
from difftrain.config.evaluate import MINIATURES, OFFICIAL, ContaminationPolicy, EvaluateConfig
from difftrain.config.run_config import ConfigError
from difftrain.evaluate import build_prompt
from difftrain.evaluate.loading import BenchmarkItem, image_bytes, load_items
from difftrain.images import ImageError, PixelBudget
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.stage import Heartbeat, run_shared_stage
from difftrain.records import Sample, Selection

logger = logging.getLogger(__name__)

REPORT_FILE = "contamination.json"
ROWS_PER_PART = 500
NAMED_HITS = 20  # in an error message; contamination.json has all
UNREADABLE = (ValueError, OSError, LookupError, TypeError, SyntaxError)
"""What reading a damaged data set raises, SchemaError and Arrow's errors among them."""
THUMBNAIL, BLOCK = 32, 4  # pixels per side
MAX_DIFFERENCE = 5.0  # of 255, the mean of a block of 4 x 4 thumbnail pixels, between copies
MIN_WORDS = 20  # shorter questions are often equal by chance ("what is written in the image?")
_TAG = re.compile(r"<image(?: \d+)?>")
_OPTIONS = re.compile(r"\n\s*(?:choices|options)\s*:")
_HINT = re.compile(r"^hint:.*?\nquestion:", re.DOTALL)


class Overlap(StrEnum):
    """What a sample shares with a benchmark item, the surest first."""

    same_image = "same image"
    near_image = "near image"
    same_question = "same question"


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleOverlap:
    """One sample and the first item it overlaps with, or None."""

    sample_id: str
    kind: Overlap | None
    item: str | None  # as `benchmark/item`
    items: int  # how many it overlaps with
    same_question: bool  # whether one of them has the same question, word for word


@dataclass(frozen=True, slots=True)
class ImageSignature:
    """A hash of an image's pixels, its difference hash (32 bytes), and itself at 32 x 32 x 3."""

    pixels: bytes
    dhash: np.ndarray
    thumbnail: np.ndarray


def signature(image: Image.Image) -> ImageSignature:
    """What is compared of an image."""
    rgb = image.convert("RGB")
    dhash = np.frombuffer(images.dhash(rgb, images.CONTAMINATION_MARGIN), dtype=np.uint8)
    small = rgb.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return ImageSignature(images.pixel_hash(rgb), dhash, np.asarray(small, dtype=np.uint8))


def thumbnail_difference(a: np.ndarray, b: np.ndarray) -> float:
    """The largest mean difference of any block between two thumbnails, 0 to 255."""
    blocks = THUMBNAIL // BLOCK
    difference = np.abs(a.astype(np.int16) - b.astype(np.int16))
    return float(difference.reshape(blocks, BLOCK, blocks, BLOCK, 3).mean(axis=(1, 3)).max())


class ImageIndex:
    """Images that others are compared with; results are positions in the given order."""

    def __init__(self, signatures: Iterable[ImageSignature]) -> None:
        self.signatures = list(signatures)
        self._dhashes = np.array([image.dhash for image in self.signatures], dtype=np.uint8)

    def same(self, image: ImageSignature) -> list[int]:
        """Images with the very same pixels."""
        return [i for i in self.near(image) if self.signatures[i].pixels == image.pixels]

    def near(self, image: ImageSignature) -> list[int]:
        """Images that look the same, the very same ones included."""
        if not self.signatures:
            return []
        bits = np.bitwise_count(self._dhashes ^ image.dhash).sum(axis=1)
        return [
            i
            for i in np.flatnonzero(bits <= images.CONTAMINATION_MAX_BITS).tolist()
            if thumbnail_difference(self.signatures[i].thumbnail, image.thumbnail) <= MAX_DIFFERENCE
        ]


def normalize_question(question: str) -> str:
    """A question's words alone: no case, no punctuation, no image tags, no hint, no options."""
    text = _TAG.sub(" ", unicodedata.normalize("NFKC", question).casefold())
    text = _HINT.sub(" ", _OPTIONS.split(text)[0])
    return " ".join(re.findall(r"\w+", text))


class ItemIndex:
    """The questions and images of benchmark items, but images that cannot be decoded.

    Images are compared as the data stage would store them, so that an exact copy is exact.
    """

    def __init__(self, items: Sequence[BenchmarkItem], budget: PixelBudget) -> None:
        self.checked = Counter(item.benchmark for item in items)
        self._names = ["/".join(item.key) for item in items]
        self._questions: list[str] = []
        self._by_question: dict[str, list[int]] = defaultdict(list)
        self._item_of_image, signatures = [], []
        for i, item in enumerate(items):
            text = str(item.item.get("question") or item.item.get("query") or "")
            self._questions.append(question := normalize_question(text))
            if len(question.split()) >= MIN_WORDS:
                self._by_question[question].append(i)
            for part in build_prompt(item.benchmark, item.item):
                if part["type"] == "image":
                    with suppress(ImageError):
                        stored = images.decode(image_bytes(part["value"]), budget)
                        signatures.append(signature(stored.to_pil()))
                        self._item_of_image.append(i)
        self._images = ImageIndex(signatures)

    def overlap(self, sample: Sample) -> SampleOverlap:
        """What the sample shares with the items."""
        question = normalize_question(sample.question)
        signatures = [signature(images.from_png(png)) for png in sample.images]
        same = [i for image in signatures for i in self._images.same(image)]
        near = [i for image in signatures for i in self._images.near(image)]
        shared = {
            Overlap.same_image: [self._item_of_image[i] for i in same],
            Overlap.near_image: [self._item_of_image[i] for i in near],
            Overlap.same_question: self._by_question.get(question, []),
        }
        hits = list(dict.fromkeys(i for items in shared.values() for i in items))
        return SampleOverlap(
            sample_id=sample.sample_id,
            kind=next((kind for kind, items in shared.items() if items), None),
            item=self._names[hits[0]] if hits else None,
            items=len(hits),
            same_question=any(self._questions[i] == question for i in hits),
        )


def available_items(config: EvaluateConfig) -> tuple[list[BenchmarkItem], dict[str, str]]:
    """Every item of the benchmarks that are evaluated, are on disk beside them, or are drawn.

    And name -> reason of those on disk that cannot be read. Raises what load_items raises.
    """
    names = dict.fromkeys([*config.benchmarks, *MINIATURES])
    all_items = replace(config, benchmarks=list(names), limit=None)
    items, unreadable = load_items(all_items), {}
    for name in config.also_on_disk:
        try:
            items += load_items(replace(all_items, benchmarks=[name], allow_count_mismatch=True))
        except UNREADABLE as error:
            unreadable[name] = str(error).strip().splitlines()[0] or type(error).__name__
    return items, unreadable


def compare_with_benchmarks(
    samples: Sequence[Sample],
    folder: Path,
    config: EvaluateConfig,
    budget: PixelBudget,
    world: World,
) -> None:
    """Fill the folder with SampleOverlap rows, contamination.json, manifest. Raises RankTimeout."""
    checked, unreadable = Counter[str](), dict[str, str]()

    def compare_share(heart: Heartbeat) -> None:
        items, reasons = available_items(config)
        unreadable.update(reasons)
        for name, reason in reasons.items() if world.is_first else ():
            logger.warning("contamination: not checked: %s: %s", name, reason)
        index = ItemIndex(items, budget)
        checked.update(index.checked)
        compared = done()
        share = [s for s in world.share(samples) if s.sample_id not in compared]
        bar = iter(tqdm(share, desc="contamination", unit="sample", disable=not world.is_first))
        while rows := [index.overlap(sample) for sample in islice(bar, ROWS_PER_PART)]:
            parquet.write_part(folder, parquet.next_part_name(folder, world.rank), rows)
            heart.beat()

    def done() -> set[str]:
        return {row.sample_id for row in parquet.read_rows(folder, SampleOverlap)}

    def write_report() -> dict[str, int]:
        hits = [asdict(row) for row in parquet.read_rows(folder, SampleOverlap) if row.kind]
        absent = [name for name in OFFICIAL if name not in {*checked, *unreadable}]
        content = {"samples": len(samples), "checked": dict(checked), "absent": absent}
        content |= {"not_checked": unreadable, "hits": hits}
        manifest.write_json(folder / REPORT_FILE, content)
        return {"samples": len(samples), "items": checked.total(), "hits": len(hits)}

    run_shared_stage(
        folder,
        world,
        compare_share,
        is_complete=lambda: {sample.sample_id for sample in samples} <= done(),
        close=write_report,
        settings=lambda: dict(checked),
        inputs={},
    )


def check(
    samples: Sequence[Sample],
    selections: Iterable[Path],
    folder: Path,
    config: EvaluateConfig,
    budget: PixelBudget,
    world: World,
) -> None:
    """Compare every sample with the benchmarks at hand, before the first training step.

    Raises ConfigError if one of the selections (folders of Selection rows) holds a sample that is
    in a benchmark too, unless the settings ask for a warning only.
    """
    compare_with_benchmarks(samples, folder, config, budget, world)
    if config.contamination is ContaminationPolicy.warn:
        return
    selected = {row.sample_id for path in selections for row in parquet.read_rows(path, Selection)}
    rows = parquet.read_rows(folder, SampleOverlap)
    hits = [row for row in rows if row.kind is not None and row.sample_id in selected]
    if not hits:
        return
    named = []
    for hit in hits[:NAMED_HITS]:
        also = hit.same_question and hit.kind is not Overlap.same_question
        kind = f"{hit.kind}, same question" if also else hit.kind
        more = f" and {hit.items - 1} more" if hit.items > 1 else ""
        named.append(f"{hit.sample_id} ({kind}: {hit.item}{more})")
    rest = f", and {len(hits) - NAMED_HITS} more" if len(hits) > NAMED_HITS else ""
    message = (
        f"evaluate.contamination=error: {len(hits)} of {len(selected)} samples to train on "
        f"are in benchmarks too: {', '.join(named)}{rest}; all: {folder / REPORT_FILE}. "
        "Remove them from the data, or list them in the report with evaluate.contamination=warn"
    )
    raise ConfigError([message])
