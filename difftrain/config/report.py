"""Settings of the report, the export, the plan (the cost estimate) and the explorer."""

import re
from dataclasses import dataclass, field
from enum import StrEnum

from difftrain.config.setting import Problems, setting

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
Tracker = StrEnum("Tracker", ["wandb", "tensorboard", "mlflow", "trackio"])
"""An experiment tracker, named after its Python package."""
ExportFormat = StrEnum("ExportFormat", ["trl", "ms_swift", "easyr1", "verl", "llama_factory"])
"""Trainers whose data format the export can write, always together with the scores."""


@dataclass(kw_only=True, slots=True)
class ReportConfig:
    """What the report shows, and what experiment trackers get."""

    project: str = "difftrain"
    """The project of W&B and trackio, the experiment of MLflow."""
    examples: int = setting(4, at_least=0)
    """Number of samples per stratum that are shown with their images."""
    completions: int = setting(4, at_least=0)
    """Completions with their images that trackers get from a GRPO step; 0: none."""
    completions_steps: int = setting(10, at_least=1)
    """Trackers get completions every this many steps, and from the first step."""

    def check(self) -> Problems:
        if not self.project:
            yield "project", "must not be empty"


@dataclass(kw_only=True, slots=True)
class ExportConfig:
    """In which formats the selected samples are written, and where they are published."""

    formats: list[ExportFormat] = field(default_factory=lambda: list(ExportFormat))
    """Trainers' formats in which the selected samples are written."""
    push_to_hub: str | None = setting(None, fingerprint=())
    """Publish the folder on the hub as this dataset (owner/name); null publishes nothing."""
    private: bool = setting(True, fingerprint=())
    """Whether the published dataset is private."""

    def check(self) -> Problems:
        if len(set(self.formats)) < len(self.formats):
            yield "formats", "must not repeat"
        if self.push_to_hub is not None and not REPOSITORY.fullmatch(self.push_to_hub):
            yield "push_to_hub", "must be owner/name, or null"


@dataclass(kw_only=True, slots=True)
class PlanConfig:
    """What the plan command assumes; no other command reads it."""

    samples_per_second: float | None = setting(None, above=0, rule="must lie above 0, or be null")
    """Samples per second of the probe on all GPUs together; null: measured in the pilot."""
    gpus: int = setting(8, at_least=1)
    """Number of GPUs over which training shards weights, gradients and optimizer states."""
    pilot: int = setting(200, at_least=1)
    """Samples of the pilot: the plan extrapolates from an earlier probe with this data.limit."""


@dataclass(kw_only=True, slots=True)
class ViewConfig:
    """Where the explorer (the view command) listens; no other command reads it."""

    host: str = "127.0.0.1"
    """127.0.0.1 serves this machine only, 0.0.0.0 every machine that has the address with token."""
    port: int = setting(8321, at_least=0, at_most=65535)
    """The port; 0 takes any free one."""

    def check(self) -> Problems:
        if not self.host:
            yield "host", "must not be empty"
