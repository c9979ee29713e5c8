"""Rows that cannot be used, and why. No row is dropped: it becomes a sample or it is rejected."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

MAX_EXAMPLES = 3
"""Rows of each reason that the page shows."""


class RowError(ValueError):
    """A row that cannot become a sample; the message is "kind: what to do about it"."""


class EmptyDatasetError(ValueError):
    """No row of the source became a sample; the message counts the reasons."""


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that did not become a sample: its place ("FILE.jsonl:LINE") and the reason."""

    source: str
    reason: str

    @property
    def kind(self) -> str:
        """The reason without its particulars, by which rows are counted."""
        return self.reason.split(":", 1)[0]


@dataclass(frozen=True, slots=True)
class RejectStats:
    """How many rows were rejected for which reason, with the first few rows of each.

    The rows themselves are on disk, so memory does not grow with them.
    """

    counts: Counter[str] = field(default_factory=Counter)
    examples: defaultdict[str, list[RejectedRow]] = field(default_factory=lambda: defaultdict(list))

    def add(self, row: RejectedRow) -> None:
        """Count one row."""
        self.counts[row.kind] += 1
        if self.counts[row.kind] <= MAX_EXAMPLES:
            self.examples[row.kind].append(row)

    @property
    def total(self) -> int:
        """All rejected rows."""
        return self.counts.total()

    def by_reason(self) -> dict[str, int]:
        """Reason -> number of rows, the most common first, then by name."""
        return dict(sorted(self.counts.items(), key=lambda pair: (-pair[1], pair[0])))


def format_reasons(reasons: dict[str, int]) -> str:
    """Counts by reason in one line: "3 missing file, 1 not JSON"."""
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items())


def render_page(num_rows: int, stats: RejectStats) -> str:
    """A readable summary in Markdown: each reason with its rows, its share and a few examples."""
    if not stats.total:
        return f"# Quarantine\n\nNone of {num_rows} rows was rejected.\n"
    lines = [f"# Quarantine\n\n{stats.total} of {num_rows} rows were rejected.\n"]
    lines += ["| reason | rows | share |", "|---|--:|--:|"]
    reasons = stats.by_reason()
    lines += [f"| {kind} | {count} | {count / num_rows:.1%} |" for kind, count in reasons.items()]
    for kind in reasons:
        lines.append(f"\n## {kind}\n")
        lines += [f"* `{row.source}` {row.reason}" for row in stats.examples[kind]]
    return "\n".join(lines) + "\n"
