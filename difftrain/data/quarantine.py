"""Rows that cannot become samples, and why. Every row becomes a sample or a RejectedRow."""

from dataclasses import dataclass


class RowError(ValueError):
    """A row cannot become a sample. The message is "SHORT REASON: DETAILS", as in RejectedRow."""


class EmptyDatasetError(ValueError):
    """The source has no usable row, or one of its files is damaged or unreachable."""


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that did not become a sample: `source` is its location, "FILE.jsonl:LINE"."""

    source: str
    reason: str

    @property
    def short_reason(self) -> str:
        """The reason without its details, such as "missing file"; rows are counted by it."""
        return self.reason.split(":", 1)[0]
