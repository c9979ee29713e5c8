"""What the judge was asked and what came of it: the counts shown beside the score."""

from collections import Counter
from collections.abc import Mapping
from threading import Lock
from typing import Any

from difftrain.model.engines.wire import Fault


class Tally:
    """Counts of one pass over one checkpoint's marks; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts: Counter[str] = Counter()
        self._faults: Counter[Fault] = Counter()
        self._words: dict[Fault, str] = {}

    def count(self, name: str, by: int = 1) -> None:
        """Add to one of calls, from_cache, unusable and failed_items."""
        with self._lock:
            self._counts[name] += by

    def counted(self, name: str) -> int:
        """What `count` has come to."""
        with self._lock:
            return self._counts[name]

    def fault(self, kind: Fault, words: str | None = None) -> None:
        """One request that brought no reply, in which words; or one that was not sent.

        The words must be fit to be shown: no key and no address.
        """
        with self._lock:
            self._faults[kind] += 1
            if words is not None:
                self._words[kind] = words

    def take_call(self, limit: int | None) -> bool:
        """Count one request if the limit allows it, and say whether it does."""
        with self._lock:
            if limit is not None and self._counts["calls"] >= limit:
                return False
            self._counts["calls"] += 1
            return True

    def plain(self) -> dict[str, Any]:
        """The counts as JSON can hold them.

        `replies` were used, `from_cache` of them came from the disk; `calls` are HTTP requests,
        the retried ones too; `unusable` replies said nothing that could be read; `failed_items`
        have no score because the judge failed; `last_words` are the last of each fault.
        """
        with self._lock:
            names = ("replies", "from_cache", "calls", "unusable", "failed_items")
            found: dict[str, Any] = {name: self._counts[name] for name in names}
            faults = {kind.value: number for kind, number in sorted(self._faults.items())}
            words = {kind.value: said for kind, said in sorted(self._words.items())}
        return found | {"faults": faults, "last_words": words}


def told(name: str, counts: Mapping[str, Any]) -> str:
    """The counts in one line, to be read beside the score."""
    faults, words = counts.get("faults", {}), counts.get("last_words", {})
    shown = ", ".join(
        f"{kind.replace('_', ' ')} {number}" + (f" ({words[kind]})" if kind in words else "")
        for kind, number in faults.items()
    )
    line = (
        f"{name}: {counts['replies']} replies ({counts['from_cache']} from the cache), "
        f"{counts['calls']} calls, {counts['unusable']} unusable replies, "
        f"{counts['failed_items']} items without a score because the judge failed; "
        f"faults: {shown or 'none'}"
    )
    stopped = counts.get("stopped")
    return f"{line}; nothing more was asked, because {stopped}" if stopped else line
