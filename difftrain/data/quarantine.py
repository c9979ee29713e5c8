"""Rows that cannot become samples, and why. Every row becomes a sample or a RejectedRow."""

from dataclasses import dataclass


class RowError(ValueError):
    """A row cannot become a sample; the message is "SHORT REASON: DETAILS".

    The short reason is one of a few, such as "empty question"; rejected rows are counted by it.
    """


class EmptyDatasetError(ValueError):
    """The source holds no usable row, or a file of it is damaged or cannot be reached."""


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that did not become a sample: `source` is its location, "FILE.jsonl:LINE"."""

    source: str
    reason: str

    @property
    def short_reason(self) -> str:
        """The reason without its details, such as "missing file"; rows are counted by it."""
        return self.reason.split(":", 1)[0]
