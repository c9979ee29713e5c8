"""Settings of the selection."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from difftrain.records import Measure, Stratum

STEPS = (Measure.cde, Measure.ace, Measure.drm)
"""What the second paper chooses by; leaving one out is an ablation."""


@dataclass(kw_only=True, slots=True)
class SelectConfig:
    """Which samples train: those of some strata, or those that RAP chooses."""

    strata: list[Stratum] = field(default_factory=lambda: [Stratum.hard])
    """The strata given to GRPO; empty where `rap` chooses."""
    rap: list[Measure] = field(default_factory=list)
    """The measures that choose in the second paper's way (T): cde, ace, drm, or some of them."""
    random: bool = False
    """Instead of those samples, a random set of their number from the whole pool."""
    sft_strata: list[Stratum] = field(default_factory=list)
    """The strata given to SFT before it; empty where there is no SFT."""
    sft_random: bool = False
    """Instead of those, a random set of their number from all samples that SFT can learn from."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        if not self.strata and not self.rap:
            yield "strata", "must name at least one stratum, or select.rap its measures"
        if self.strata and self.rap:
            yield "strata", "must be empty ([]) where select.rap chooses"
        if len(set(self.strata)) < len(self.strata):
            yield "strata", "names a stratum twice"
        if len(set(self.sft_strata)) < len(self.sft_strata):
            yield "sft_strata", "names a stratum twice"
        if self.sft_random and not self.sft_strata:
            yield "sft_random", "needs select.sft_strata, whose size it takes"
        if len(set(self.rap)) < len(self.rap):
            yield "rap", "names a measure twice"
        if any(measure not in STEPS for measure in self.rap):
            yield "rap", f"may hold {', '.join(STEPS)}"
