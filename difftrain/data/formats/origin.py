"""Where a row comes from: some formats say more in the file's name or in a file beside it."""

from dataclasses import dataclass

from difftrain.data.store import Store


@dataclass(frozen=True, slots=True)
class Origin:
    """The store that a row was read from, and the file's name in it."""

    store: Store
    file: str
