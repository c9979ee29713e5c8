"""Rows that cannot be used, and why. A row is never dropped: it is a sample or it is one of these.

Not here: who decides that a row is unusable (images, golds, boxes, jsonl).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice


class Unusable(ValueError):
    """A picture or a row that cannot become a sample; `reason` is "kind: what to act on"."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NothingUsable(ValueError):
    """No row of the source became a sample; the message counts the reasons."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One row that was set aside: where it stands ("FILE.jsonl:LINE") and why."""

    source: str
    reason: str

    @property
    def kind(self) -> str:
        """The reason without its particulars, so that rows can be counted by it."""
        return self.reason.split(":", 1)[0]


def summary(quarantined: Iterable[Quarantined]) -> dict[str, int]:
    """Reason -> number of rows, the most common first, then by name."""
    counts = Counter(each.kind for each in quarantined)
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def told(reasons: dict[str, int]) -> str:
    """A summary in one line: "3 missing file, 1 not JSON"."""
    return ", ".join(f"{number} {reason}" for reason, number in reasons.items())


def page(rows: int, quarantined: Sequence[Quarantined], shown: int = 3) -> str:
    """A readable summary in Markdown: each reason with its rows, its share and a few of them."""
    if not quarantined:
        return f"# Quarantine\n\nNone of {rows} rows was set aside.\n"
    lines = [f"# Quarantine\n\n{len(quarantined)} of {rows} rows were set aside.\n"]
    lines += ["| reason | rows | share |", "|---|--:|--:|"]
    found = summary(quarantined)
    lines += [f"| {kind} | {number} | {number / rows:.1%} |" for kind, number in found.items()]
    for kind in found:
        lines.append(f"\n## {kind}\n")
        own = (each for each in quarantined if each.kind == kind)
        lines += [f"* `{each.source}` {each.reason}" for each in islice(own, shown)]
    return "\n".join(lines) + "\n"
