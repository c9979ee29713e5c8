"""How many answers the probe will ask: expected from the paper's stratum mix, or a pilot's.

Expected draws of the ladder with R rungs of K draws, of a sample whose first failing ratio is f
(METHODS, section 1): every rung before f passes after as many draws as a right answer takes, and
the rung f costs all K. At a rung that passes a draw is taken to be right with p = 1/2, so passing
with `least` right answers takes min(K, least / p) draws. On the first paper's mix that is about an
eighth of the full grid, as METHODS says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from difftrain.records import Measure, Stratum, TaskSet

RIGHT = 0.5
"""Chance that a draw is right where its rung passes."""
MIX: dict[Measure, dict[TaskSet, dict[Stratum, int]]] = {
    Measure.pism: {
        TaskSet.perception: {
            Stratum.easy: 7827, Stratum.medium: 4872, Stratum.hard: 1454, Stratum.unsolved: 6480,
        },
        TaskSet.reasoning: {
            Stratum.easy: 5048, Stratum.medium: 1061, Stratum.hard: 1618, Stratum.unsolved: 19406,
        },
    },
    Measure.cmab: {
        TaskSet.perception: {
            Stratum.easy: 6753, Stratum.medium: 6029, Stratum.hard: 1001, Stratum.unsolved: 6850,
        },
        TaskSet.reasoning: {
            Stratum.easy: 2170, Stratum.medium: 3604, Stratum.hard: 2166, Stratum.unsolved: 19193,
        },
    },
}  # fmt: skip
"""Samples of the first paper in each stratum (P, section 4; Qwen2.5-VL-7B)."""


@dataclass(frozen=True, slots=True)
class Ladder:
    """What the probe's needs come to, in plain numbers.

    `rungs` are the mask ratios of the ladder (none where PISM is not asked for), `least` how many
    right answers pass a rung, `first_right` whether the first rung is asked for CMAB's sake.
    """

    percents: Sequence[int]
    draws: int
    least: int
    hard_upto: float
    easy_from: float
    climbs: bool
    full: bool
    first_right: bool
    whole: int
    text_only: int

    def failing(self, stratum: Stratum) -> list[int | None]:
        """The rungs at which a sample of this stratum may fail first; None: it never does."""
        ratio = [percent / 100 for percent in self.percents]
        if stratum is Stratum.unsolved:
            return [0]
        if stratum is Stratum.hard:
            return [row for row, each in enumerate(ratio) if 0 < each <= self.hard_upto] or [0]
        if stratum is Stratum.medium:
            between = (self.hard_upto, self.easy_from)
            rows = [row for row, each in enumerate(ratio) if between[0] < each < between[1]]
            return [*rows] or [None]
        return [None]

    @property
    def passing(self) -> float:
        """Draws that a rung takes to pass."""
        return min(self.draws, self.least / RIGHT)

    def expected(self, stratum: Stratum) -> float:
        """Answers asked of a sample of this stratum, by all needs together."""
        if self.full:
            ladder = float(self.draws * len(self.percents))
            first = float(self.draws)
        elif self.climbs:
            ends = self.failing(stratum)
            costs = [
                self.passing * len(self.percents)
                if row is None
                else self.passing * row + self.draws
                for row in ends
            ]
            ladder = sum(costs) / len(costs)
            first = self.draws if ends == [0] else self.passing
        else:
            solved = stratum is not Stratum.unsolved
            first = (min(self.draws, 1 / RIGHT) if solved else self.draws) * self.first_right
            ladder = first
        return ladder - first + max(first, self.whole) + self.text_only


def expected(ladder: Ladder, measure: Measure, samples: Mapping[TaskSet, int]) -> float:
    """Answers asked of so many samples of each task set, mixed as the first paper's are."""
    mixes = MIX[Measure.cmab if measure is Measure.cmab else Measure.pism]
    total = 0.0
    for task_set, number in samples.items():
        mix = mixes[task_set]
        per_sample = sum(ladder.expected(stratum) * share for stratum, share in mix.items())
        total += number * per_sample / sum(mix.values())
    return total
