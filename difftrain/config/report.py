"""Settings of the report."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Tracker(StrEnum):
    """Where curves and marks are sent besides the report's own files."""

    none = "none"
    wandb = "wandb"
    tensorboard = "tensorboard"


@dataclass(kw_only=True, slots=True)
class ReportConfig:
    """What the report shows and whom it tells."""

    project: str = "difftrain"
    """The W&B project."""
    examples: int = 4
    """Samples shown with their pictures for each stratum."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        if self.examples < 0:
            yield "examples", "must not be negative"
        if not self.project:
            yield "project", "must not be empty"
