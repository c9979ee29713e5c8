"""Settings of the plan: the machine that it assumes. They change no result."""

from collections.abc import Iterator
from dataclasses import dataclass


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
