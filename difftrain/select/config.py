"""Settings of the selection."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from difftrain.records import Stratum


@dataclass(kw_only=True, slots=True)
class SelectConfig:
    """Which strata train."""

    keep: list[Stratum] = field(default_factory=lambda: [Stratum.hard])
    """The strata given to GRPO."""
    random: bool = False
    """Instead of those samples, a random set of their number from the whole pool."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        if not self.keep:
            yield "keep", "must name at least one stratum"
        if len(set(self.keep)) < len(self.keep):
            yield "keep", "names a stratum twice"
