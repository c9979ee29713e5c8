"""RAP: the few samples that awaken multimodal reasoning (RAP, sections CDE, ACE and DRM). Pure.

CDE keeps samples whose answer depends on the image, ACE drops those whose response depends on one
of its tokens, DRM replaces the easy ones by as many of the hardest that are sometimes solved.
Axes: N samples of the pool.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from difftrain import seeds
from difftrain.difficulty import ace, cde
from difftrain.records import Measure, Selection, TrainStage
from difftrain.select import EmptySelectionError

DECISIONS_FOLDER = "decisions"
"""Inside the selection's folder: a Decision for every sample of the pool."""
THRESHOLD_KEYS = {
    Measure.cde: ("difficulty.cde.lambda_c",),
    Measure.ace: ("difficulty.ace.lambda_a", "difficulty.ace.min_rows"),
}
"""The settings that let more samples pass a step; DRM has none."""


class Outcome(StrEnum):
    """What RAP does with a sample of the pool."""

    kept = "kept"
    brought_in = "brought_in"
    prior = "prior"
    biased = "biased"
    easy = "easy"


OUTCOME_PHRASES = {
    Outcome.kept: "kept",
    Outcome.prior: "dropped by CDE",
    Outcome.biased: "dropped by ACE",
    Outcome.easy: "removed by DRM as easy",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One sample of the pool: its outcome, why, and the values behind it (None: not measured)."""

    sample_id: str
    outcome: Outcome
    reason: str
    discrepancy: float | None
    bias: float | None
    difficulty: float | None


@dataclass(frozen=True, slots=True)
class PoolScores:
    """The scores of a pool. A measure that is None takes no part in the selection.

    `bias_N` is ACE's largest log psi; it is None where the response is too short for one, and such
    a sample does not count as biased. `draws` is M, the rollouts behind each difficulty.
    """

    sample_id_N: Sequence[str]
    discrepancy_N: Sequence[float] | None
    bias_N: Sequence[float | None] | None
    difficulty_N: Sequence[float] | None
    draws: int
    lambda_c: float = 0.5
    lambda_a: float = 0.1

    def __post_init__(self) -> None:
        """Raises ValueError for columns of another length, a repeated id or a missing number."""
        ids = list(self.sample_id_N)
        if len(set(ids)) < len(ids):
            raise ValueError("a sample is in the pool twice")
        if self.draws < 1 or not self.lambda_a > 0:
            raise ValueError(f"draws={self.draws} and lambda_a={self.lambda_a} must be above 0")
        for name in ("discrepancy_N", "bias_N", "difficulty_N"):
            column = getattr(self, name)
            if column is None:
                continue
            if len(column) != len(ids):
                raise ValueError(f"{name} has {len(column)} numbers for {len(ids)} samples")
            if name != "bias_N" and any(value is None or math.isnan(value) for value in column):
                raise ValueError(f"{name} lacks a number")

    def discrepancy(self, i: int) -> float | None:
        """CDE's D of sample i; None where CDE takes no part."""
        return None if self.discrepancy_N is None else float(self.discrepancy_N[i])

    def bias(self, i: int) -> float | None:
        """ACE's largest log psi of sample i; None where there is none or ACE takes no part."""
        value = None if self.bias_N is None else self.bias_N[i]
        return None if value is None or math.isnan(value) else float(value)

    def difficulty(self, i: int) -> float | None:
        """DRM's difficulty of sample i; None where DRM takes no part."""
        return None if self.difficulty_N is None else float(self.difficulty_N[i])

    def incorrect(self, i: int) -> int | None:
        """How many of the draws are incorrect, as an integer: in floats 1 - 4/5 is below 1/5."""
        difficulty = self.difficulty(i)
        return None if difficulty is None else round(difficulty * self.draws)

    def is_prior(self, i: int) -> bool:
        """Whether the image adds too little to the accuracy: D is not above lambda_c."""
        discrepancy = self.discrepancy(i)
        return discrepancy is not None and not cde.is_kept(discrepancy, self.lambda_c)

    def is_biased(self, i: int) -> bool:
        """Whether the response depends on one of its tokens: log psi above log lambda_a."""
        return ace.is_biased(self.bias(i), self.lambda_a)

    def describe(self, i: int) -> str:
        """The values of sample i and their thresholds, for a reason."""
        parts = []
        if (discrepancy := self.discrepancy(i)) is not None:
            relation = "not above" if self.is_prior(i) else "above"
            parts.append(f"D = {discrepancy:.2f}, {relation} {self.lambda_c:g}")
        if self.bias_N is not None:
            bias, limit = self.bias(i), math.log(self.lambda_a)
            relation = "above" if self.is_biased(i) else "not above"
            missing = "no ACE value (response too short)"
            parts.append(
                missing if bias is None else f"log psi = {bias:.2f}, {relation} {limit:.2f}"
            )
        if (incorrect := self.incorrect(i)) is not None:
            parts.append(f"{self.draws - incorrect} of {self.draws} correct")
        return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class RapResult:
    """A decision for each sample of the pool, in its order.

    `candidates` are how many could have been brought in; `without_bias`, how many have no ACE value
    although ACE took part.
    """

    decisions: list[Decision]
    candidates: int
    without_bias: int

    @property
    def selections(self) -> list[Selection]:
        """The samples that train."""
        return [
            Selection(sample_id=decision.sample_id, stage=TrainStage.grpo, reason=decision.reason)
            for decision in self.decisions
            if decision.outcome in (Outcome.kept, Outcome.brought_in)
        ]

    def funnel(self) -> dict[str, int]:
        """How many samples each step left, from the pool to the selection.

        Every sample that is brought in was dropped by CDE before.
        """
        count = {
            outcome: sum(decision.outcome is outcome for decision in self.decisions)
            for outcome in Outcome
        }
        pool = len(self.decisions)
        after_cde = pool - count[Outcome.prior] - count[Outcome.brought_in]
        return {
            "pool": pool,
            "after_cde": after_cde,
            "after_ace": after_cde - count[Outcome.biased],
            "removed_easy": count[Outcome.easy],
            "candidates": self.candidates,
            "brought_in": count[Outcome.brought_in],
            "chosen": count[Outcome.kept] + count[Outcome.brought_in],
            "without_bias": self.without_bias,
        }


def tie_break(sample_id: str) -> tuple[int, str]:
    """The order among equals: a hash of the sample id, the same everywhere."""
    return seeds.derive(0, "rap", sample_id), sample_id


def filter_outcome(scores: PoolScores, i: int) -> Outcome:
    """The outcome of sample i before any sample is brought in."""
    if scores.is_prior(i):
        return Outcome.prior
    if scores.is_biased(i):
        return Outcome.biased
    return Outcome.easy if scores.incorrect(i) == 0 else Outcome.kept


def replacement_candidates(scores: PoolScores, outcomes: Sequence[Outcome]) -> list[int]:
    """Samples outside the selection that may replace an easy one, the hardest first.

    They are incorrect at least once, correct at least once and not attention-biased; ties are
    broken by a hash of the sample id.
    """
    candidates: list[tuple[int, tuple[int, str], int]] = []
    for i, outcome in enumerate(outcomes):
        incorrect = scores.incorrect(i)
        if incorrect is None or not 1 <= incorrect < scores.draws:
            continue
        if outcome not in (Outcome.kept, Outcome.easy) and not scores.is_biased(i):
            candidates.append((-incorrect, tie_break(scores.sample_id_N[i]), i))
    return [i for *_, i in sorted(candidates)]


def run_rap(scores: PoolScores) -> RapResult:
    """The whole selection, with a reason for each sample of the pool.

    As many samples are brought in as were removed for being easy; all candidates if there are
    fewer.
    """
    outcomes = [filter_outcome(scores, i) for i in range(len(scores.sample_id_N))]
    candidates = replacement_candidates(scores, outcomes)
    removed = outcomes.count(Outcome.easy)
    phrases = {}
    for number, i in enumerate(candidates[:removed], start=1):
        outcomes[i] = Outcome.brought_in
        phrases[i] = f"brought in by DRM for an easy one, number {number} of {removed}"
    decisions = [
        Decision(
            sample_id=scores.sample_id_N[i],
            outcome=outcome,
            reason=f"{phrases.get(i) or OUTCOME_PHRASES[outcome]}: {scores.describe(i)}",
            discrepancy=scores.discrepancy(i),
            bias=scores.bias(i),
            difficulty=scores.difficulty(i),
        )
        for i, outcome in enumerate(outcomes)
    ]
    without_bias = 0
    if scores.bias_N is not None:
        without_bias = sum(decision.bias is None for decision in decisions)
    return RapResult(decisions, len(candidates), without_bias)


def choose(
    sample_id_N: Sequence[str],
    discrepancy_N: Sequence[float] | None,
    bias_N: Sequence[float | None] | None,
    difficulty_N: Sequence[float] | None,
    draws: int,
    lambda_c: float = 0.5,
    lambda_a: float = 0.1,
) -> list[Selection]:
    """The selected samples, in the pool's order, each with its reason (stage grpo).

    `bias_N` is the largest log psi and compared with log lambda_a; difficulties are compared as
    round(d * draws). None in place of a column leaves that measure out: the ablations. Raises
    ValueError for columns that do not fit.
    """
    columns = (discrepancy_N, bias_N, difficulty_N)
    return run_rap(PoolScores(sample_id_N, *columns, draws, lambda_c, lambda_a)).selections


def describe_funnel(funnel: dict[str, int], measures: Sequence[str]) -> str:
    """What the measures that took part left of the pool, as one line, for messages."""
    by_measure = {
        Measure.cde: f"CDE leaves {funnel['after_cde']}",
        Measure.ace: f"ACE leaves {funnel['after_ace']}",
        Measure.drm: f"DRM removes {funnel['removed_easy']} as easy and brings in "
        f"{funnel['brought_in']} of {funnel['candidates']} candidates",
    }
    steps = "; ".join(text for measure, text in by_measure.items() if measure in measures)
    if funnel["without_bias"]:
        steps += f"; {funnel['without_bias']} responses are too short for an ACE value"
    return f"of {funnel['pool']} samples {steps}"


def require_min(
    selections: list[Selection], minimum: int, funnel: dict[str, int], measures: Sequence[str]
) -> list[Selection]:
    """The same selections. Raises EmptySelectionError with the counts if fewer than `minimum`.

    `measures` are those that select (select.rap).
    """
    if len(selections) < minimum:
        keys = [key for m, keys in THRESHOLD_KEYS.items() if m in measures for key in keys]
        advice = f"move {' or '.join(keys)}, add data" if keys else "add data"
        raise EmptySelectionError(
            f"RAP selects {len(selections)} samples, but a step needs {minimum} different prompts: "
            f"{describe_funnel(funnel, measures)}; {advice}, or lower grpo.prompts_per_step"
        )
    return selections
