"""Settings of the probe: what the model is shown and how often it is asked."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum


class MaskKind(StrEnum):
    """What a mask hides."""

    pixels = "pixels"
    rectangle = "rectangle"
    patches = "patches"


class Grid(StrEnum):
    """How much of the ratio-by-draw table is asked."""

    early = "early"
    full = "full"


@dataclass(kw_only=True, slots=True)
class ProbeConfig:
    """The ladder of masks and the draws on each rung (P, Eq. 1 to 3)."""

    mask_percents: list[int] = field(default_factory=lambda: list(range(0, 100, 10)))
    """Mask ratios in whole percent, rising from 0 (P: 0.0, 0.1, ... 0.9)."""
    draws: int = 10
    """Answers asked at each ratio (P: K = 10)."""
    cde_rollouts: int = 5
    """Answers with the whole picture, and as many without any, for CDE and DRM (T: M = 5)."""
    retest_samples: int = 0
    """So many samples are asked once more with other seeds, for the report's reliability."""
    temperature: float = 0.7
    """Sampling temperature (P, released; T samples at 1.0)."""
    max_new_tokens: int = 1024
    """Longest answer (P, released)."""
    mask: MaskKind = MaskKind.pixels
    """pixels is the paper's wording, rectangle its release, patches its abstract's 'semantic'."""
    nested: bool = False
    """Let masks grow along the ladder; the paper draws each independently."""
    grid: Grid = Grid.early
    """early stops at the first failing ratio, with the very label the full grid gives."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        rising = all(
            a < b for a, b in zip(self.mask_percents, self.mask_percents[1:], strict=False)
        )
        inside = all(0 <= percent <= 100 for percent in self.mask_percents)
        if not self.mask_percents or not rising or not inside or self.mask_percents[0] != 0:
            yield "mask_percents", "must rise from 0 and stay at or below 100"
        for name in ("draws", "cde_rollouts"):
            if getattr(self, name) < 1:
                yield name, "must be at least 1"
        if self.retest_samples < 0:
            yield "retest_samples", "must be at least 0"
        if not 0 < self.temperature <= 2:
            yield "temperature", "must lie above 0 and at or below 2"
        if self.max_new_tokens < 1:
            yield "max_new_tokens", "must be at least 1"
