"""What a comparison holds, before it is told in any format. Scores are fractions of 1."""

from dataclasses import dataclass, field
from typing import Any

MEAN = "mean"
"""The column behind the benchmarks: their unweighted mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over seeds with its 95 % interval, over `n` items of each seed.

    Where there is none, mean, low and high are None and `why` says so in words.
    """

    mean: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    left_out: int = 0
    seed_means: tuple[float, ...] = ()
    why: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference(Estimate):
    """A row minus its control on the same items. `corrected` is p by Holm over the rows."""

    p: float | None = None
    corrected: float | None = None
    test: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """What a row is held against, and by how much it differs on each benchmark and the mean.

    `seeds` are those that both sides have.
    """

    control: str
    seeds: tuple[int, ...]
    differences: dict[str, Difference]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a row took, as means over its seeds. Tokens are generated ones, both of the last four
    are what choosing took: the probe and what follows up to the choice."""

    steps: float
    samples: float
    tokens: float
    seconds: float
    choosing_tokens: float
    choosing_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A row of the table: the estimates by benchmark and `mean`, and the papers' figures beside.

    `control` is told where `against` is None; `within` marks a control that a run trained beside
    itself. `notes` say where the control was not of this row's size: then there is no verdict.
    """

    name: str
    title: str
    seeds: tuple[int, ...]
    scores: dict[str, Estimate]
    cost: Cost | None = None
    against: Against | None = None
    control: str = ""
    within: bool = False
    paper: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One table: all its rows were made under the same settings but for what their names say."""

    model: str
    data: str
    measure: str
    benchmarks: tuple[str, ...]
    base: Line
    lines: tuple[Line, ...]
    notes: tuple[str, ...]
    settings: dict[str, Any]

    @property
    def tested(self) -> int:
        """Rows that are held against a control on the mean: what p values are corrected for."""
        return sum(line.against is not None for line in self.lines)

    @property
    def title(self) -> str:
        """`pism, shapes`: what sets this table apart from others."""
        return f"{self.measure}, {self.data}"
