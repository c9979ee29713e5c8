"""Rows that cannot be used, and why. A row is never dropped: it is a sample or it is one of these.

Not here: who decides that a row is unusable (images, golds, boxes, jsonl).
"""

from collections import Counter
from dataclasses import dataclass


class RowError(ValueError):
    """A row that cannot become a sample; the message is "kind: what to do about it"."""


class EmptyDatasetError(ValueError):
    """No row of the source became a sample; the message counts the reasons."""


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """One row that was set aside: where it stands ("FILE.jsonl:LINE") and why."""

    source: str
    reason: str

    @property
    def kind(self) -> str:
        """The reason without its particulars, so that rows can be counted by it."""
        return self.reason.split(":", 1)[0]


SHOWN = 3
"""Rows of each reason that the page shows."""


class RejectStats:
    """How many rows were set aside and why, with the first few of each reason.

    The rows themselves are on disk: what is held here does not grow with them.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.first: dict[str, list[RejectedRow]] = {}

    def note(self, row: RejectedRow) -> None:
        """Count one row."""
        self.counts[row.kind] += 1
        few = self.first.setdefault(row.kind, [])
        if len(few) < SHOWN:
            few.append(row)

    @property
    def number(self) -> int:
        """All rows that were set aside."""
        return self.counts.total()

    def summary(self) -> dict[str, int]:
        """Reason -> number of rows, the most common first, then by name."""
        return dict(sorted(self.counts.items(), key=lambda pair: (-pair[1], pair[0])))


def told(reasons: dict[str, int]) -> str:
    """A summary in one line: "3 missing file, 1 not JSON"."""
    return ", ".join(f"{number} {reason}" for reason, number in reasons.items())


def page(rows: int, aside: RejectStats) -> str:
    """A readable summary in Markdown: each reason with its rows, its share and a few of them."""
    if not aside.number:
        return f"# Quarantine\n\nNone of {rows} rows was set aside.\n"
    lines = [f"# Quarantine\n\n{aside.number} of {rows} rows were set aside.\n"]
    lines += ["| reason | rows | share |", "|---|--:|--:|"]
    found = aside.summary()
    lines += [f"| {kind} | {number} | {number / rows:.1%} |" for kind, number in found.items()]
    for kind in found:
        lines.append(f"\n## {kind}\n")
        lines += [f"* `{each.source}` {each.reason}" for each in aside.first[kind]]
    return "\n".join(lines) + "\n"
