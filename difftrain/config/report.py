"""Settings of the report, the export and the plan."""

import re
from dataclasses import dataclass, field
from enum import StrEnum

from difftrain.config.setting import Problems, setting

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
Tracker = StrEnum("Tracker", ["none", "wandb", "tensorboard"])
"""Experiment tracker that receives curves and scores besides the report's own files."""
ExportFormat = StrEnum("ExportFormat", ["trl", "ms_swift", "easyr1", "verl", "llama_factory"])
"""Formats of the selection; the scores of all samples are always written."""


@dataclass(kw_only=True, slots=True)
class ReportConfig:
    """What the report shows, and the W&B project."""

    project: str = "difftrain"
    """The W&B project."""
    examples: int = setting(4, at_least=0)
    """Samples of each stratum that are shown with their images."""

    def check(self) -> Problems:
        if not self.project:
            yield "project", "must not be empty"


@dataclass(kw_only=True, slots=True)
class ExportConfig:
    """Which formats the selection is written in, and where it is published."""

    formats: list[ExportFormat] = field(default_factory=lambda: list(ExportFormat))
    """Formats that the selection is written in."""
    push_to_hub: str | None = setting(None, fingerprint=())
    """A dataset's id on the hub (owner/name) to publish the folder as; null publishes nothing."""
    private: bool = setting(True, fingerprint=())
    """Whether the published dataset is private."""

    def check(self) -> Problems:
        if len(set(self.formats)) < len(self.formats):
            yield "formats", "must not repeat"
        if self.push_to_hub is not None and not REPOSITORY.fullmatch(self.push_to_hub):
            yield "push_to_hub", "must be owner/name, or null"


@dataclass(kw_only=True, slots=True)
class PlanConfig:
    """What launch/plan.py assumes; nothing else reads it."""

    samples_per_second: float | None = setting(None, above=0, rule="must lie above 0, or be null")
    """Samples that the probe finishes in a second on all GPUs together; null takes a pilot's."""
    gpus: int = setting(8, at_least=1)
    """GPUs over which training shards its states."""
    pilot: int = setting(200, at_least=1)
    """data.limit of the pilot run whose probe the plan looks for."""
