"""Settings of the measures: every threshold of the papers, each with its source."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from difftrain.records import Measure


class Tokens(StrEnum):
    """How attention on a group of tokens is gathered."""

    sum = "sum"
    mean = "mean"


class TextSpan(StrEnum):
    """Which prompt tokens count as text."""

    prompt = "prompt"
    before_image = "before_image"


@dataclass(kw_only=True, slots=True)
class PismConfig:
    """Progressive image semantic masking (P, Eq. 1 to 3)."""

    tau: float = 0.1
    """A ratio fails when accuracy over the draws is below this (P: 0.1)."""
    hard_upto: float = 0.4
    """A failure ratio above 0 and at or below this is hard (P: 0.4)."""
    easy_from: float = 0.7
    """A failure ratio from here on is easy (P: 0.7)."""
    easy_inclusive: bool = True
    """Exactly easy_from is easy (P, text); false makes it medium (P, Table A and Fig. 1)."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        if not 0 < self.tau < 1:
            yield "tau", "must lie strictly between 0 and 1"
        if not 0 < self.hard_upto < 1:
            yield "hard_upto", "must lie strictly between 0 and 1"
        if not self.hard_upto < self.easy_from <= 1:
            yield "easy_from", f"must lie above hard_upto={self.hard_upto} and at or below 1"


@dataclass(kw_only=True, slots=True)
class CmabConfig:
    """Cross-modality attention balance (P, Eq. 4)."""

    epsilon: float = 1e-8
    """Added inside the logarithm (P: 1e-8)."""
    easy_below: float = 0.1
    """A balance below this is easy (P: 0.1)."""
    hard_from: float = 0.4
    """Lower end of hard (P: 0.4)."""
    hard_upto: float = 1.6
    """Upper end of hard (P: 1.6)."""
    easy_above: float = 1.9
    """A balance above this is easy (P: 1.9)."""
    tokens: Tokens = Tokens.sum
    """sum is Eq. 4; mean is Fig. 2's caption and the release."""
    text: TextSpan = TextSpan.prompt
    """prompt: every input token that is no picture; before_image: the release."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        if not self.epsilon > 0:
            yield "epsilon", "must be above 0"
        bounds = ("easy_below", "hard_from", "hard_upto", "easy_above")
        for low, high in itertools.pairwise(bounds):
            if not getattr(self, low) < getattr(self, high):
                yield high, f"must be above {low}={getattr(self, low)}"


@dataclass(kw_only=True, slots=True)
class DifficultyConfig:
    """Which measures are taken, and whose strata select."""

    measure: Measure = Measure.pism
    """The measure whose strata the selection uses."""
    also: list[Measure] = field(default_factory=list)
    """Further measures to score and show beside it."""
    pism: PismConfig = field(default_factory=PismConfig)
    cmab: CmabConfig = field(default_factory=CmabConfig)

    @property
    def wanted(self) -> list[Measure]:
        """All measures to score, the selecting one first, none twice."""
        return list(dict.fromkeys([self.measure, *self.also]))

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        ready = (Measure.pism, Measure.cmab)
        if self.measure not in ready:
            yield "measure", f"has strata only for {', '.join(ready)}"
        if any(measure not in ready for measure in self.also):
            yield "also", f"may hold {', '.join(ready)}"
