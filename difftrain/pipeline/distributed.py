"""Which process this is among how many. Read once, at the edge; nothing here communicates."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class World:
    """Rank `rank` of `size` processes."""

    rank: int = 0
    size: int = 1

    @classmethod
    def from_environment(cls) -> Self:
        """The world that RANK and WORLD_SIZE describe (set by accelerate launch and torchrun)."""
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that prints and writes the last file."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This rank's part of the items; the union over ranks is exactly the items."""
        return items[self.rank :: self.size]
