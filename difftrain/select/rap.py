"""RAP: the few samples that awaken multimodal reasoning (RAP, sections CDE, ACE and DRM). Pure.

CDE keeps samples whose answer depends on the image, ACE drops those whose response depends on one
of its tokens, DRM replaces the easy ones by as many of the hardest that are sometimes solved.
Axes: N samples of the pool.
"""

import math
from collections import Counter
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
    Measure.cde: "difficulty.cde.lambda_c",
    Measure.ace: "difficulty.ace.lambda_a or difficulty.ace.min_rows",
}
"""The settings that let more samples pass a step; DRM has none."""


class Outcome(StrEnum):
    """What RAP does with a sample of the pool."""

    kept = "kept"
    brought_in = "brought_in"
    prior = "prior"
    biased = "biased"
    easy = "easy"


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
        count = Counter(decision.outcome for decision in self.decisions)
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


def run_rap(scores: PoolScores) -> RapResult:
    """The whole selection, with a reason for each sample of the pool.

    As many samples are brought in as were removed for being easy; all candidates if there are
    fewer. Candidates were dropped by CDE, are incorrect at least once, correct at least once and
    not attention-biased; the hardest come first, ties are broken by a hash of the sample id.
    """
    sample_ids, count = scores.sample_id_N, len(scores.sample_id_N)
    values_3N = [
        [None if value is None or math.isnan(value) else float(value) for value in column_N]
        for column_N in (
            [None] * count if column_N is None else column_N
            for column_N in (scores.discrepancy_N, scores.bias_N, scores.difficulty_N)
        )
    ]
    discrepancy_N, bias_N, difficulty_N = values_3N
    # Incorrect draws are compared as integers: in floats 1 - 4/5 is below 1/5.
    incorrect_N = [None if value is None else round(value * scores.draws) for value in difficulty_N]
    prior_N = [
        value is not None and not cde.is_kept(value, scores.lambda_c) for value in discrepancy_N
    ]
    biased_N = [ace.is_biased(value, scores.lambda_a) for value in bias_N]
    candidates = sorted(
        (-incorrect, seeds.derive(0, "rap", sample_ids[i]), sample_ids[i], i)
        for i, incorrect in enumerate(incorrect_N)
        if incorrect is not None and 0 < incorrect < scores.draws and prior_N[i] and not biased_N[i]
    )
    removed = sum(
        incorrect == 0 and not prior and not biased
        for incorrect, prior, biased in zip(incorrect_N, prior_N, biased_N, strict=True)
    )
    number_of = {i: number for number, (*_, i) in enumerate(candidates[:removed], start=1)}
    decisions = []
    for i, sample_id in enumerate(sample_ids):
        outcome, phrase = Outcome.kept, "kept"
        if i in number_of:
            outcome = Outcome.brought_in
            phrase = f"brought in by DRM for an easy one, number {number_of[i]} of {removed}"
        elif prior_N[i]:
            outcome, phrase = Outcome.prior, "dropped by CDE"
        elif biased_N[i]:
            outcome, phrase = Outcome.biased, "dropped by ACE"
        elif incorrect_N[i] == 0:
            outcome, phrase = Outcome.easy, "removed by DRM as easy"
        values = []
        if discrepancy_N[i] is not None:
            relation = "not above" if prior_N[i] else "above"
            values.append(f"D = {discrepancy_N[i]:.2f}, {relation} {scores.lambda_c:g}")
        if scores.bias_N is not None and bias_N[i] is None:
            values.append("no ACE value (response too short)")
        elif bias_N[i] is not None:
            relation = "above" if biased_N[i] else "not above"
            values.append(f"log psi = {bias_N[i]:.2f}, {relation} {math.log(scores.lambda_a):.2f}")
        if (incorrect := incorrect_N[i]) is not None:
            values.append(f"{scores.draws - incorrect} of {scores.draws} correct")
        decisions.append(
            Decision(
                sample_id=sample_id,
                outcome=outcome,
                reason=f"{phrase}: {'; '.join(values)}",
                discrepancy=discrepancy_N[i],
                bias=bias_N[i],
                difficulty=difficulty_N[i],
            )
        )
    without_bias = 0 if scores.bias_N is None else bias_N.count(None)
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
        keys = [key for measure, key in THRESHOLD_KEYS.items() if measure in measures]
        advice = f"move {' or '.join(keys)}, add data" if keys else "add data"
        raise EmptySelectionError(
            f"RAP selects {len(selections)} samples, but a step needs {minimum} different prompts: "
            f"{describe_funnel(funnel, measures)}; {advice}, or lower grpo.prompts_per_step"
        )
    return selections
