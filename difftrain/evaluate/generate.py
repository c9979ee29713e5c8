"""Responses of one checkpoint to benchmark items: requests, an engine, and a store on disk.

The store only grows: other benchmarks, or more items, generate what is missing; other rules or
another judge generate nothing. An item whose image is missing or broken is skipped. An item for
which the engine gave no response has failed: this is noted apart, so that no rank waits for it, and
forgotten by the next run, which requests it again.
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
from difftrain.evaluate import build_prompt, loading
from difftrain.evaluate.loading import BenchmarkItem
from difftrain.images import ImageError, PixelBudget
from difftrain.model.engines.types import Engine, GenerationError, Request, write_engine_info
from difftrain.pipeline import coordination, manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.stage import Heartbeat

FAILED = "failed"  # folder in the store: the items without a response in the last run
ResponseKey = tuple[str, str, str]  # benchmark, item id, and a hash of the prompt


class ResponseStatus(StrEnum):
    """Whether there is a response, and if not, whether the next run requests it again (failed)."""

    generated = "generated"
    skipped = "skipped"
    failed = "failed"


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """One checkpoint's response to one item; or None, and the `error` that says why."""

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
    """What identifies a response in its store; an item whose text or image changed is new."""
    digest = hashlib.blake2b(digest_size=8)
    for part in build_prompt(item.benchmark, item.item):
        kind, value = part["type"], part["value"]
        is_image = kind == "image"
        content = loading.identity(value) if is_image else value.encode("utf-8", "surrogatepass")
        digest.update(f"{kind}:{len(content)}:".encode() + content)
    return (*item.key, digest.hexdigest())


def item_hashes(keys: Iterable[ResponseKey]) -> dict[str, str]:
    """A hash for each benchmark that changes when an item does, or its text or images."""
    by_benchmark: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, item_id, prompt_hash in keys:
        by_benchmark[name].append((item_id, prompt_hash))
    return {name: manifest.fingerprint(sorted(pairs)) for name, pairs in by_benchmark.items()}


class ResponseStore:
    """The responses in a folder, read part by part as they come in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._parts_read: set[Path] = set()
        self._kept: dict[ResponseKey, StoredResponse] = {}
        self._failed: dict[ResponseKey, StoredResponse] = {}

    def add(self, rank: int, rows: Sequence[StoredResponse]) -> None:
        """Write rows as a part, failed ones as a part of their own folder."""
        for folder, failed in ((self.folder, False), (self.folder / FAILED, True)):
            if part := [row for row in rows if (row.status is ResponseStatus.failed) is failed]:
                parquet.write_part(folder, parquet.next_part_name(folder, rank), part)

    def refresh(self) -> None:
        """Read the parts that are new."""
        for path in parquet.parts(self.folder):
            if path not in self._parts_read:
                for row in parquet.read_part(path, StoredResponse):
                    self._kept.setdefault(row.key, row)
                self._parts_read.add(path)
        self._failed = {}
        for path in parquet.parts(self.folder / FAILED):
            with suppress(FileNotFoundError):  # its rank has just begun again
                if path.stat().st_mtime >= coordination.STARTED:  # else an earlier run wrote it
                    rows = parquet.read_part(path, StoredResponse)
                    self._failed |= {row.key: row for row in rows}

    def forget_failed(self, world: World) -> None:
        """Drop failed items of earlier runs: this rank's, and those of ranks that are gone."""
        for path in parquet.parts(self.folder / FAILED):
            rank = int(path.stem.split("-")[1].removeprefix("r"))
            if rank == world.rank or (world.is_first and rank >= world.size):
                path.unlink(missing_ok=True)

    def is_complete(self, keys: Sequence[ResponseKey]) -> bool:
        """Whether each of these has a response now, or has failed in this run."""
        self.refresh()
        return all(key in self._kept or key in self._failed for key in keys)

    def missing(self, keys: Sequence[ResponseKey]) -> set[ResponseKey]:
        """Those of the keys that have no response."""
        self.refresh()
        return {key for key in keys if key not in self._kept}

    def __getitem__(self, key: ResponseKey) -> StoredResponse:
        """A response, or the row that says why there is none. Raises KeyError without either."""
        return self._kept[key] if key in self._kept else self._failed[key]


def pixel_budgets(config: EvaluateConfig, data_pixels: tuple[int, int]) -> dict[str, PixelBudget]:
    """The pixel limits of each requested benchmark; `data_pixels` are those of miniatures."""
    return {name: PixelBudget(*config.pixels(name, data_pixels)) for name in config.benchmarks}


def widest_budget(budgets: Mapping[str, PixelBudget]) -> tuple[int, int]:
    """The limits of an engine that leaves the images of all these benchmarks alone."""
    smallest = min(budget.min_pixels for budget in budgets.values())
    return smallest, max(budget.max_pixels for budget in budgets.values())


def stream_responses(
    engine: Engine,
    items: Iterable[tuple[ResponseKey, BenchmarkItem]],
    config: EvaluateConfig,
    budgets: Mapping[str, PixelBudget],
    on_idle: Callable[[], None] = lambda: None,
) -> Iterator[StoredResponse]:
    """What an engine with the widest limits responds to each item, in any order, as it comes.

    An image is read when its item is requested, not before. `on_idle` is called now and then
    meanwhile. Raises what the engine raises when it is gone for good.
    """
    waiting, skipped = iter(items), list[StoredResponse]()
    system = prompts.SYSTEM if config.system is SystemPrompt.think else None
    tokens = config.max_new_tokens

    def next_requests(room: int) -> list[tuple[ResponseKey, Request]]:
        requests: list[tuple[ResponseKey, Request]] = []
        while len(requests) < room and (following := next(waiting, None)):
            key, item = following
            parts, budget = [], budgets[item.benchmark]
            try:
                for part in build_prompt(item.benchmark, item.item):
                    is_image, value = part["type"] == "image", part["value"]
                    parts.append(loading.decoded(value, budget) if is_image else value)
            except ImageError as error:
                skipped.append(StoredResponse(*key, None, ResponseStatus.skipped, str(error)))
                continue
            request = Request(parts=tuple(parts), system=system, max_new_tokens=tokens)
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
    data_pixels: tuple[int, int],
    heart: Heartbeat,
    rows_per_part: int,
) -> None:
    """Generate responses to these items; each is written soon, so that a kill loses few."""
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
        for row in tqdm(rows, "evaluate", len(items), unit="item", disable=not world.is_first):
            buffer.add(row)
            on_idle()
    finally:
        buffer.write()
