"""Settings of LoRA: a low-rank addition to some weights is trained instead of all weights."""

from collections.abc import Iterator
from dataclasses import dataclass, field

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Attention and feed-forward projections of the language model."""


@dataclass(kw_only=True, slots=True)
class LoraConfig:
    """Low-rank adaptation (peft). Both papers train all weights, so it is off."""

    rank: int = 0
    """Rank of the additions; 0 trains all weights."""
    alpha: float = 32.0
    """The addition counts alpha / rank times."""
    targets: list[str] = field(default_factory=lambda: list(TARGETS))
    """Last names of the modules that get an addition."""
    vision: bool = False
    """Give it to vision tower and projector too, where they have modules of these names."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        if self.rank < 0:
            yield "rank", "must be at least 1, or 0 to train all weights"
        if not self.alpha > 0:
            yield "alpha", "must be above 0"
        if not self.targets:
            yield "targets", f"must name at least one module, such as {', '.join(TARGETS[:4])}"
        if any("head" in name for name in self.targets):
            yield "targets", "may not name the head: TRL reads its weights past the addition"
