"""Settings of the report, the export and the plan."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from difftrain.config.fingerprint import setting

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class Tracker(StrEnum):
    """Experiment tracker that receives curves and scores besides the report's own files."""

    none = "none"
    wandb = "wandb"
    tensorboard = "tensorboard"


@dataclass(kw_only=True, slots=True)
class ReportConfig:
    """What the report shows, and the W&B project."""

    project: str = "difftrain"
    """The W&B project."""
    examples: int = 4
    """Samples of each stratum that are shown with their images."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        if self.examples < 0:
            yield "examples", "must not be negative"
        if not self.project:
            yield "project", "must not be empty"


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


@dataclass(kw_only=True, slots=True)
class PlanConfig:
    """What launch/plan.py assumes; nothing else reads it."""

    samples_per_second: float | None = None
    """Samples that the probe finishes in a second on all GPUs together; null takes a pilot's."""
    gpus: int = 8
    """GPUs over which training shards its states."""
    pilot: int = 200
    """data.limit of the pilot run whose probe the plan looks for."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        if self.samples_per_second is not None and not self.samples_per_second > 0:
            yield "samples_per_second", "must lie above 0, or be null"
        for key in ("gpus", "pilot"):
            if getattr(self, key) < 1:
                yield key, "must be at least 1"
