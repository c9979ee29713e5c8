"""What a checkpoint said to each item, kept apart from what that is worth.

The folder is a store that only grows: other benchmarks, or more items, ask what is missing, and
other rules or another judge ask nothing at all. What the engine did not answer is noted apart, so
that no rank waits for it, and forgotten by the next run: it stays missing.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from difftrain.evaluate import pictures, scoring
from difftrain.evaluate.asking import Asked
from difftrain.pipeline import coordination, manifest, parquet
from difftrain.pipeline.coordination import World

UNANSWERED = "failed"
"""Folder in the store: the items without an answer in the last run."""
Key = tuple[str, str, str]
"""Benchmark, item id, and what was asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One checkpoint's words on one item. `asked` is a hash of the prompt's parts."""

    benchmark: str
    item_id: str
    asked: str
    response: str


def key(asked: Asked) -> Key:
    """What identifies a response in its store; an item whose words or picture changed is new."""
    digest = hashlib.blake2b(digest_size=8)
    for part in scoring.build_prompt(asked.benchmark, asked.item):
        if part["type"] == "image":
            content = pictures.identity(part["value"])
        else:
            content = part["value"].encode("utf-8", "surrogatepass")
        digest.update(f"{part['type']}:{len(content)}:".encode() + content)
    return (*asked.key, digest.hexdigest())


def items_identity(keys: Iterable[Key]) -> dict[str, str]:
    """A hash for each benchmark that changes when an item does, or its words or pictures."""
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, item_id, asked in keys:
        found[name].append((item_id, asked))
    return {name: manifest.fingerprint(sorted(own)) for name, own in found.items()}


def keep(folder: Path, rank: int, rows: Sequence[Response]) -> None:
    """Add what was said as a part, and what the engine did not answer as one apart."""
    said = [row for row in rows if not scoring.is_no_answer(row.response)]
    without = [row for row in rows if scoring.is_no_answer(row.response)]
    for place, own in ((folder, said), (folder / UNANSWERED, without)):
        if own:
            parquet.write_part(place, parquet.next_part(place, rank), own)


def of_this_run(path: Path) -> list[Response]:
    """What a part says was not answered; nothing if it is an earlier run's."""
    try:
        return (
            [] if path.stat().st_mtime < coordination.STARTED else parquet.read_part(path, Response)
        )
    except FileNotFoundError:  # its rank has just begun again
        return []


class Store:
    """The responses in a folder, read part by part as they come in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: set[Path] = set()
        self._said: dict[Key, str] = {}
        self._without: dict[Key, str] = {}

    def refresh(self) -> None:
        """Read the parts that are new."""
        for path in parquet.parts(self.folder):
            if path not in self._read:
                for row in parquet.read_part(path, Response):
                    self._said.setdefault((row.benchmark, row.item_id, row.asked), row.response)
                self._read.add(path)
        self._without = {}
        for path in parquet.parts(self.folder / UNANSWERED):
            for row in of_this_run(path):
                self._without[(row.benchmark, row.item_id, row.asked)] = row.response

    def forget(self, world: World) -> None:
        """Drop what had no answer for this rank before, or for one that there no longer is."""
        for path in parquet.parts(self.folder / UNANSWERED):
            rank = int(path.stem.split("-")[1].removeprefix("r"))
            if rank == world.rank or (world.is_first and rank >= world.size):
                path.unlink(missing_ok=True)

    def holds(self, wanted: Sequence[Key]) -> Callable[[], bool]:
        """A question that looks at the folder: is each of these there, or had no answer?"""

        def complete() -> bool:
            self.refresh()
            return all(each in self._said or each in self._without for each in wanted)

        return complete

    def missing(self, wanted: Sequence[Key]) -> set[Key]:
        """Those of the wanted that are not there."""
        self.refresh()
        return {each for each in wanted if each not in self._said}

    def of(self, wanted: Key) -> str:
        """A response, or why there is none. Raises KeyError if it is not there."""
        return self._said[wanted] if wanted in self._said else self._without[wanted]
