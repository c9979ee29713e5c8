"""Settings of the report."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


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
