"""Generates a checkpoint's responses to benchmark items and stores them on disk.

A later run generates only the responses that are missing, such as those to new benchmarks or items.
If only the rules or the judge change, it generates none. An item whose image is missing or broken
is skipped. An item to which the engine gave no response has failed. Failed items are stored in
their own folder: ranks of this run do not wait for them, and the next run requests them again.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

from tqdm import tqdm

from difftrain.config.evaluate import EvaluateConfig, SystemPrompt
from difftrain.data import prompts
from difftrain.evaluate import build_prompt
from difftrain.evaluate.loading import BenchmarkItem, decode_image, image_identity
from difftrain.images import ImageError, PixelBudget
from difftrain.model.engines.types import Engine, GenerationError, Request, write_engine_info
from difftrain.pipeline import coordination, manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.stage import Heartbeat

FAILED_FOLDER = "failed"  # in the store: items to which the engine gave no response
ResponseKey = tuple[str, str, str]  # benchmark, item id, hash of the prompt


class ResponseStatus(StrEnum):
    """Whether the model responded. The next run requests failed items again, not skipped ones."""

    generated = "generated"
    skipped = "skipped"
    failed = "failed"


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """One checkpoint's response to one item; without a response, `error` is the reason."""

    benchmark: str
    item_id: str
    prompt_hash: str
    response: str | None
    status: ResponseStatus = ResponseStatus.generated
    error: str | None = None

    @property
    def key(self) -> ResponseKey:
        return self.benchmark, self.item_id, self.prompt_hash


def response_key(item: BenchmarkItem) -> ResponseKey:
    """The key of an item's response; a changed text or image gives a new key."""
    digest = hashlib.blake2b(digest_size=8)
    for part in build_prompt(item.benchmark, item.row):
        part_type, value = part["type"], part["value"]
        is_image = part_type == "image"
        # "surrogatepass": a text from JSON may contain half of a surrogate pair.
        content = image_identity(value) if is_image else value.encode("utf-8", "surrogatepass")
        digest.update(f"{part_type}:{len(content)}:".encode() + content)
    return (*item.key, digest.hexdigest())


def item_hashes(keys: Iterable[ResponseKey]) -> dict[str, str]:
    """Benchmark -> hash of its items, which changes with their number, texts or images."""
    by_benchmark: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, item_id, prompt_hash in keys:
        by_benchmark[name].append((item_id, prompt_hash))
    return {name: manifest.fingerprint(sorted(pairs)) for name, pairs in by_benchmark.items()}


class ResponseStore:
    """The responses in a folder. Every rank writes its own parquet parts and reads all parts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._parts_read: set[Path] = set()
        self._stored: dict[ResponseKey, StoredResponse] = {}  # generated or skipped
        self._failed: dict[ResponseKey, StoredResponse] = {}

    def add(self, rank: int, rows: Sequence[StoredResponse]) -> None:
        """Write rows as a new part; rows of failed items go into the folder for failed items."""
        for folder, failed in ((self.folder, False), (self.folder / FAILED_FOLDER, True)):
            if part := [row for row in rows if (row.status is ResponseStatus.failed) is failed]:
                parquet.write_part(folder, parquet.next_part_name(folder, rank), part)

    def refresh(self) -> None:
        """Read parts written since the last call, and all failed items of this run."""
        for path in parquet.parts(self.folder):
            if path not in self._parts_read:
                for row in parquet.read_part(path, StoredResponse):
                    self._stored.setdefault(row.key, row)
                self._parts_read.add(path)
        self._failed = {}
        for path in parquet.parts(self.folder / FAILED_FOLDER):
            with suppress(FileNotFoundError):  # a rank that restarts deletes its part
                if path.stat().st_mtime >= coordination.STARTED:  # else an earlier run wrote it
                    rows = parquet.read_part(path, StoredResponse)
                    self._failed |= {row.key: row for row in rows}

    def forget_failed(self, world: World) -> None:
        """Delete this rank's failed items. Rank 0 also deletes those of ranks >= world.size."""
        for path in parquet.parts(self.folder / FAILED_FOLDER):
            rank = int(path.stem.split("-")[1].removeprefix("r"))  # part-r003-00000-a1b2c3
            if rank == world.rank or (world.is_first and rank >= world.size):
                path.unlink(missing_ok=True)

    def is_complete(self, keys: Sequence[ResponseKey]) -> bool:
        """Whether every item of these keys has a response, was skipped, or failed in this run."""
        self.refresh()
        return all(key in self._stored or key in self._failed for key in keys)

    def missing(self, keys: Sequence[ResponseKey]) -> set[ResponseKey]:
        """The keys of the items that have no response and were not skipped."""
        self.refresh()
        return {key for key in keys if key not in self._stored}

    def __getitem__(self, key: ResponseKey) -> StoredResponse:
        """The row of a response, or of a skipped or failed item. Raises KeyError if missing."""
        return self._stored[key] if key in self._stored else self._failed[key]


def pixel_budgets(config: EvaluateConfig, data_pixels: tuple[int, ...]) -> dict[str, PixelBudget]:
    """The pixel limits of each benchmark; shapes/ ones default to `data_pixels`.

    `data_pixels` are the smallest and largest area and, if it is not 28, an image token's side.
    """
    smallest, largest, *side = data_pixels
    return {
        name: PixelBudget(*config.pixels(name, (smallest, largest)), *side)
        for name in config.benchmarks
    }


def widest_budget(budgets: Mapping[str, PixelBudget]) -> tuple[int, int]:
    """The engine's pixel limits (min, max): it must not resize any benchmark's images again."""
    smallest = min(budget.min_pixels for budget in budgets.values())
    return smallest, max(budget.max_pixels for budget in budgets.values())


def stream_responses(
    engine: Engine,
    items: Iterable[tuple[ResponseKey, BenchmarkItem]],
    config: EvaluateConfig,
    budgets: Mapping[str, PixelBudget],
    on_idle: Callable[[], None] = lambda: None,
) -> Iterator[StoredResponse]:
    """Yield the engine's response to each item as soon as it is generated, in any order.

    The engine must have the pixel limits of `widest_budget`. An image is read only when its item is
    requested. The engine calls `on_idle` regularly, and raises an error if it cannot continue.
    """
    waiting, skipped = iter(items), list[StoredResponse]()
    system = prompts.SYSTEM if config.system is SystemPrompt.think else None
    max_new_tokens = config.max_new_tokens

    def next_requests(max_requests: int) -> list[tuple[ResponseKey, Request]]:
        requests: list[tuple[ResponseKey, Request]] = []
        while len(requests) < max_requests and (next_pair := next(waiting, None)):
            key, item = next_pair
            parts, budget = [], budgets[item.benchmark]
            try:
                for part in build_prompt(item.benchmark, item.row):
                    is_image, value = part["type"] == "image", part["value"]
                    parts.append(decode_image(value, budget) if is_image else value)
            except ImageError as error:
                skipped.append(StoredResponse(*key, None, ResponseStatus.skipped, str(error)))
                continue
            request = Request(parts=tuple(parts), system=system, max_new_tokens=max_new_tokens)
            requests.append((key, request))
        return requests

    for key, completion in engine.stream(next_requests, on_idle):
        if isinstance(completion, GenerationError):
            yield StoredResponse(*key, None, ResponseStatus.failed, completion.reason)
        else:
            yield StoredResponse(*key, completion.text)
        while skipped:
            yield skipped.pop(0)
    yield from skipped


def generate_responses(
    make_engine: Callable[[int, int], Engine],
    items: Sequence[tuple[ResponseKey, BenchmarkItem]],
    store: ResponseStore,
    config: EvaluateConfig,
    data_pixels: tuple[int, ...],
    heart: Heartbeat,
    rows_per_part: int,
) -> None:
    """Generate responses to these items. Write them often, so that a killed process loses few."""
    budgets = pixel_budgets(config, data_pixels)
    with heart.in_background():
        engine = make_engine(*widest_budget(budgets))
    write_engine_info(store.folder, engine.info)
    world = heart.world
    buffer = parquet.PartBuffer[StoredResponse](partial(store.add, world.rank), rows_per_part)

    def on_idle() -> None:
        heart.beat()
        buffer.write_if_late()

    rows = stream_responses(engine, items, config, budgets, on_idle)
    try:
        bar = tqdm(rows, "evaluate", len(items), unit="item", disable=not world.is_first)
        for num_done, row in enumerate(bar, 1):
            buffer.add(row)
            heart.progress(num_done, len(items))
            on_idle()
    finally:
        buffer.write()
