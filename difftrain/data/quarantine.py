"""Rows that cannot be used, and why. No row is dropped: it becomes a sample or it is rejected."""

from dataclasses import dataclass


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
