"""Which training samples are in a benchmark too: by picture, or by a long question word for word.

Every sample is held against every item of the benchmarks that are at hand: those that are
evaluated, the official ones that lie on disk beside them, and the miniatures. A rank takes its
share of the samples.
"""

import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from difftrain import images
from difftrain.config.evaluate import MINIATURES, OFFICIAL, EvaluateConfig
from difftrain.evaluate import asking, likeness, pictures, scoring
from difftrain.evaluate.asking import Asked
from difftrain.evaluate.likeness import Gallery, Look
from difftrain.pipeline import coordination, manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.records import Sample

FOUND = "contamination.json"
ROWS_PER_PART = 500
UNREADABLE = (ValueError, OSError, LookupError, TypeError, SyntaxError)
"""What reading a damaged data set raises, SchemaError and Arrow's errors among them."""


class Overlap(StrEnum):
    """What a sample shares with a benchmark item, the surest first."""

    same_picture = "same picture"
    near_picture = "near picture"
    same_words = "same words"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One sample and the first item it overlaps with, as `benchmark/item`, or None.

    `items` counts the items. `same_question`: one of them asks the same in the same words.
    """

    sample_id: str
    kind: Overlap | None
    item: str | None
    items: int
    same_question: bool


class Index:
    """The pictures and the words of benchmark items."""

    def __init__(self, wanted: Sequence[Asked], budget: images.PixelBudget) -> None:
        self.checked = Counter(asked.benchmark for asked in wanted)
        self._names = ["/".join(asked.key) for asked in wanted]
        self._words = [likeness.plain_words(question(asked)) for asked in wanted]
        self._by_words: dict[str, list[int]] = defaultdict(list)
        for at, words in enumerate(self._words):
            if len(words.split()) >= likeness.FEWEST_WORDS:
                self._by_words[words].append(at)
        looks: list[Look] = []
        self._item_of: list[int] = []
        for at, asked in enumerate(wanted):
            for picture in looked_at(asked, budget):
                looks.append(likeness.look(picture))
                self._item_of.append(at)
        self._gallery = Gallery(looks)

    def compared(self, sample: Sample) -> Compared:
        """What the sample shares with the items."""
        words = likeness.plain_words(sample.question)
        looks = [likeness.look(images.from_png(png)) for png in sample.images]
        shared = {
            Overlap.same_picture: self._items(looks, self._gallery.same),
            Overlap.near_picture: self._items(looks, self._gallery.near),
            Overlap.same_words: self._by_words.get(words, []),
        }
        every = list(dict.fromkeys(at for found in shared.values() for at in found))
        return Compared(
            sample_id=sample.sample_id,
            kind=next((kind for kind, found in shared.items() if found), None),
            item=self._names[every[0]] if every else None,
            items=len(every),
            same_question=any(self._words[at] == words for at in every),
        )

    def _items(self, looks: Sequence[Look], places: Callable[[Look], list[int]]) -> list[int]:
        return [self._item_of[at] for each in looks for at in places(each)]


def question(asked: Asked) -> str:
    """The item's question as its column has it."""
    return str(asked.item.get("question") or asked.item.get("query") or "")


def looked_at(asked: Asked, budget: images.PixelBudget) -> Iterator[Image.Image]:
    """The item's pictures as the data stage would store them, so that an exact copy is exact.

    Those that cannot be decoded, or do not fit, are left out.
    """
    for part in scoring.build_prompt(asked.benchmark, asked.item):
        if part["type"] == "image":
            try:
                stored = images.decode(pictures.raw(part["value"]), budget)
            except images.ImageError:
                continue
            yield stored.to_pil()


def at_hand(config: EvaluateConfig) -> tuple[list[Asked], dict[str, str]]:
    """Every item of the benchmarks that are evaluated, lie on disk beside them, or are drawn.

    And name -> reason of those beside them that cannot be read. Raises what asking.items raises for
    one that is evaluated.
    """
    names = dict.fromkeys([*config.benchmarks, *MINIATURES])
    every = replace(config, benchmarks=list(names), limit=None)
    found, broken = asking.items(every), {}
    for name in config.also_on_disk:
        try:
            found += asking.items(replace(every, benchmarks=[name], allow_count_mismatch=True))
        except UNREADABLE as error:
            broken[name] = str(error).strip().splitlines()[0] or type(error).__name__
    return found, broken


def run(
    samples: Sequence[Sample],
    folder: Path,
    config: EvaluateConfig,
    budget: images.PixelBudget,
    world: World,
) -> None:
    """Fill the folder with a Compared for every sample, then contamination.json, manifest.json.

    Raises RankTimeout if another rank stops writing.
    """
    if manifest.read_manifest(folder) is not None:
        return
    started = time.time()
    coordination.beat(folder, world)
    wanted_items, broken = at_hand(config)
    if world.is_first:
        for name, why in broken.items():
            print(f"contamination: not checked: {name}: {why}", file=sys.stderr, flush=True)
    index = Index(wanted_items, budget)
    known = {row.sample_id for row in parquet.read(folder, Compared)}
    share = [each for each in world.share(samples) if each.sample_id not in known]
    bar = tqdm(total=len(share), desc="contamination", unit="sample", disable=not world.is_first)
    for start in range(0, len(share), ROWS_PER_PART):
        rows = [index.compared(each) for each in share[start : start + ROWS_PER_PART]]
        parquet.write_part(folder, parquet.next_part(folder, world.rank), rows)
        coordination.beat(folder, world)
        bar.update(len(rows))
    bar.close()
    if not world.is_first:
        return coordination.wait(folder, world, lambda: manifest.read_manifest(folder) is not None)
    wanted = {each.sample_id for each in samples}

    def complete() -> bool:
        return wanted <= {row.sample_id for row in parquet.read(folder, Compared)}

    coordination.wait(folder, world, complete)
    close(folder, index.checked, broken, len(samples), started)


def close(
    folder: Path, checked: Counter[str], broken: dict[str, str], samples: int, started: float
) -> None:
    """Write contamination.json and manifest.json: what was compared, what not, and every hit."""
    rows = parquet.read(folder, Compared)
    hits = [asdict(row) for row in rows if row.kind is not None]
    absent = [name for name in OFFICIAL if name not in checked and name not in broken]
    found = {"samples": samples, "checked": dict(checked), "absent": absent, "hits": hits}
    found |= {"not_checked": broken}
    manifest.write_json(folder / FOUND, found)
    counts = {"samples": samples, "items": checked.total(), "hits": len(hits)}
    manifest.write_manifest(
        folder, settings=dict(checked), inputs={}, seconds=time.time() - started, counts=counts
    )
    coordination.remove_heartbeats(folder)


def trained_on(folder: Path, picked: Iterable[str]) -> list[Compared]:
    """The hits among samples that are to be trained on."""
    wanted = set(picked)
    rows = parquet.read(folder, Compared)
    return [row for row in rows if row.kind is not None and row.sample_id in wanted]


def told(hit: Compared) -> str:
    """A hit in words: `3f2a (same picture, same question: shapes/MMStar/12 and 2 more)`."""
    asks = ", same question" if hit.same_question and hit.kind is not Overlap.same_words else ""
    more = f" and {hit.items - 1} more" if hit.items > 1 else ""
    return f"{hit.sample_id} ({hit.kind}{asks}: {hit.item}{more})"
