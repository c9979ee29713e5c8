"""Settings of the export."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from difftrain.config.fingerprint import setting

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class ExportFormat(StrEnum):
    """Formats of the selection; the scores of all samples are always written."""

    trl = "trl"
    ms_swift = "ms_swift"
    easyr1 = "easyr1"
    verl = "verl"
    llama_factory = "llama_factory"


@dataclass(kw_only=True, slots=True)
class ExportConfig:
    """Which formats the selection is written in, and where it is published."""

    formats: list[ExportFormat] = field(default_factory=lambda: list(ExportFormat))
    """Formats that the selection is written in."""
    push_to_hub: str | None = setting(None, fingerprint=())
    """A dataset's id on the hub (owner/name) to publish the folder as; null publishes nothing."""
    private: bool = setting(True, fingerprint=())
    """Whether the published dataset is private."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        if len(set(self.formats)) < len(self.formats):
            yield "formats", "must not repeat"
        if self.push_to_hub is not None and not REPOSITORY.fullmatch(self.push_to_hub):
            yield "push_to_hub", "must be owner/name, or null"
