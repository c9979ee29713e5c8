"""What a checkpoint said to each item, kept apart from what that is worth.

The folder is a store that only grows: other benchmarks, or more items, ask what is missing, and
other rules or another judge ask nothing at all.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from difftrain import artefacts
from difftrain.evaluate import pictures, scoring
from difftrain.evaluate.asking import Asked

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


class Store:
    """The responses in a folder, read part by part as they come in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: set[Path] = set()
        self._said: dict[Key, str] = {}

    def refresh(self) -> None:
        """Read the parts that are new."""
        for path in artefacts.parts(self.folder):
            if path not in self._read:
                for row in artefacts.read_part(path, Response):
                    self._said.setdefault((row.benchmark, row.item_id, row.asked), row.response)
                self._read.add(path)

    def holds(self, wanted: Sequence[Key]) -> Callable[[], bool]:
        """A question that looks at the folder: are all of these there?"""

        def complete() -> bool:
            self.refresh()
            return all(each in self._said for each in wanted)

        return complete

    def missing(self, wanted: Sequence[Key]) -> set[Key]:
        """Those of the wanted that are not there."""
        self.refresh()
        return {each for each in wanted if each not in self._said}

    def of(self, wanted: Key) -> str:
        """A response. Raises KeyError if it is not there."""
        return self._said[wanted]
