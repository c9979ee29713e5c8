"""One's own jsonl: each row is told apart by its keys, so one file may hold several shapes."""

from collections.abc import Callable, Mapping
from typing import Any

from difftrain.data.formats import (
    easyr1,
    llama_factory,
    mm_eureka,
    ms_swift,
    released,
    trl,
    verl,
)
from difftrain.data.formats.origin import Origin
from difftrain.data.rows import Asked

TELLING: tuple[tuple[str, type, Callable[[Mapping[str, Any], Origin], Asked]], ...] = (
    ("image_urls", object, mm_eureka.asked),
    ("message", str, mm_eureka.asked),
    ("messages", object, ms_swift.asked),
    ("conversations", list, llama_factory.asked),
    ("reward_model", dict, verl.asked),
    ("problem", str, easyr1.asked),
    ("prompt", list, trl.asked),
)
"""Key, type of its value, and whose row it then is; the first that fits."""


def asked(row: Mapping[str, Any], origin: Origin) -> Asked:
    """A row of whichever format its keys tell, else of the released one. Raises RowError."""
    for key, kind, read in TELLING:
        if row.get(key) is not None and isinstance(row[key], kind):
            return read(row, origin)
    return released.asked(row, origin)
