"""How many responses the probe will request, expected from the first paper's stratum mix.

Expected draws of PISM with K draws at each mask ratio, for a sample whose first failing ratio is f
(METHODS, section 1): every ratio before f passes after as many draws as its correct responses take,
and the ratio f costs all K. At a ratio that passes, a draw is taken to be correct with p = 1/2, so
passing with m correct responses takes min(K, m / p) draws. On the first paper's mix that is about
an eighth of the full grid, as METHODS says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from difftrain.records import Measure, Stratum, TaskSet

PASS_CHANCE = 0.5
"""Chance that a draw is correct at a ratio that passes."""
PAPER_STRATA: dict[Measure, dict[TaskSet, dict[Stratum, int]]] = {
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
"""Samples in each stratum (Qi et al. 2026, section 4; Qwen2.5-VL-7B)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeWorkload:
    """What the measures request of one sample, in plain numbers."""

    mask_percents: Sequence[int]
    draws: int
    min_correct: int
    """Correct responses with which a ratio passes."""
    hard_max: float
    easy_min: float
    masks: bool
    """Whether PISM is measured, which draws at every ratio until one fails."""
    full_grid: bool
    until_first_correct: bool
    """Whether CMAB needs one correct response under the full image."""
    full_image: int
    """Responses with the full image that CDE, DRM or ACE need."""
    text_only: int

    def first_failing(self, stratum: Stratum) -> list[int | None]:
        """Indices of the ratios at which a sample of this stratum may fail first; None: never."""
        ratios = [percent / 100 for percent in self.mask_percents]
        if stratum is Stratum.unsolved:
            return [0]
        if stratum is Stratum.hard:
            return [i for i, ratio in enumerate(ratios) if 0 < ratio <= self.hard_max] or [0]
        if stratum is Stratum.medium:
            between = [i for i, x in enumerate(ratios) if self.hard_max < x < self.easy_min]
            return [*between] or [None]
        return [None]

    @property
    def draws_to_pass(self) -> float:
        """Expected draws at a ratio that passes."""
        return min(self.draws, self.min_correct / PASS_CHANCE)

    def responses(self, stratum: Stratum) -> float:
        """Expected responses for a sample of this stratum, of all measures together."""
        if self.full_grid:
            masked = float(self.draws * len(self.mask_percents))
            at_zero = float(self.draws)
        elif self.masks:
            failing = self.first_failing(stratum)
            costs = [
                self.draws_to_pass * len(self.mask_percents)
                if index is None
                else self.draws_to_pass * index + self.draws
                for index in failing
            ]
            masked = sum(costs) / len(costs)
            at_zero = self.draws if failing == [0] else self.draws_to_pass
        else:
            is_solved = stratum is not Stratum.unsolved
            until_correct = min(self.draws, 1 / PASS_CHANCE) if is_solved else self.draws
            masked = at_zero = until_correct * self.until_first_correct
        return masked - at_zero + max(at_zero, self.full_image) + self.text_only


def expected_responses(
    workload: ProbeWorkload, measure: Measure, samples: Mapping[TaskSet, int]
) -> float:
    """Expected responses for so many samples of each task set, in the first paper's stratum mix."""
    strata = PAPER_STRATA[Measure.cmab if measure is Measure.cmab else Measure.pism]
    total = 0.0
    for task_set, count in samples.items():
        mix = strata[task_set]
        weighted = sum(workload.responses(stratum) * share for stratum, share in mix.items())
        total += count * weighted / sum(mix.values())
    return total
