"""Selects training samples as the paper RAP ("Truth in the Few", arXiv 2506.04755) does.

CDE keeps the samples whose answer depends on the image. ACE drops the samples whose response
depends on one of its own tokens. DRM removes the easy samples and brings in as many hard ones.
Axes: N samples of the pool; 3 columns: discrepancy (CDE), bias (ACE), difficulty (DRM).
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from difftrain import seeds
from difftrain.difficulty import ace, cde
from difftrain.records import Measure, Selection, TrainStage
from difftrain.select import EmptySelectionError

DECISIONS_FOLDER = "decisions"  # inside the selection's folder: a Decision for every sample
DRM_STEP = (
    "DRM removes {removed_easy} as easy and brings in {brought_in} of {candidates} candidates"
)
STEPS = {
    Measure.cde: ("CDE leaves {after_cde}", "difficulty.cde.lambda_c"),
    Measure.ace: ("ACE leaves {after_ace}", "difficulty.ace.lambda_a or difficulty.ace.min_rows"),
    Measure.drm: (DRM_STEP, None),
}
"""By measure: its text in the error message; settings that let more samples pass (None: none)."""


class Outcome(StrEnum):
    """What RAP does with a sample of the pool."""

    kept = "kept"
    brought_in = "brought_in"  # in place of an easy sample
    prior = "prior"  # dropped by CDE: the text alone suggests the answer
    biased = "biased"  # dropped by ACE: the response depends on one of its own tokens
    easy = "easy"  # removed by DRM: always correct


PHRASES = {  # the beginning of a reason
    Outcome.kept: "kept",
    Outcome.brought_in: "brought in by DRM for an easy one",
    Outcome.prior: "dropped by CDE",
    Outcome.biased: "dropped by ACE",
    Outcome.easy: "removed by DRM as easy",
}


@dataclass(frozen=True, slots=True)
class Decision:
    """A sample's outcome, the reason for it, and the sample's values (None: not measured)."""

    sample_id: str
    outcome: Outcome
    reason: str
    discrepancy: float | None
    bias: float | None
    difficulty: float | None


@dataclass(frozen=True, slots=True)
class RapResult:
    """A decision for each sample, in the pool's order, and how many samples each step left."""

    decisions: list[Decision]
    funnel: dict[str, int]

    @property
    def selections(self) -> list[Selection]:
        """The samples to train on."""
        return [
            Selection(sample_id=decision.sample_id, stage=TrainStage.grpo, reason=decision.reason)
            for decision in self.decisions
            if decision.outcome in (Outcome.kept, Outcome.brought_in)
        ]


def _numbers(name: str, column_N: Sequence[float | None] | None, size: int) -> list[float | None]:
    if column_N is None:
        return [None] * size
    if len(column_N) != size:
        raise ValueError(f"{name} has {len(column_N)} numbers for {size} samples")
    numbers = [None if value is None or math.isnan(value) else float(value) for value in column_N]
    if name != "bias_N" and None in numbers:  # a short response has no bias
        raise ValueError(f"{name} lacks a number for at least one sample")
    return numbers


def run_rap(
    sample_id_N: Sequence[str],
    discrepancy_N: Sequence[float] | None,
    bias_N: Sequence[float | None] | None,
    difficulty_N: Sequence[float] | None,
    draws: int,
    lambda_c: float = 0.5,
    lambda_a: float = 0.1,
) -> RapResult:
    """Decide on every sample of the pool, with a reason.

    For each sample removed as easy, DRM brings in one candidate, the hardest first, until there are
    none left. A candidate was dropped by CDE, is not attention-biased, and has both correct and
    incorrect responses. A hash of the sample id, the same in every run, breaks ties.

    `bias_N` has ACE's largest log psi, which is high if the response depends on one of its tokens;
    None (a response that is too short) does not count as biased. `draws` is the number of responses
    behind a difficulty; lambda_c and lambda_a are RAP's thresholds. A measure whose column is None
    is not applied. Raises ValueError for unequal lengths, a repeated id or a missing number.
    """
    size = len(sample_id_N)
    if len(set(sample_id_N)) < size:
        raise ValueError("a sample is in the pool twice")
    if draws < 1 or not lambda_a > 0:
        raise ValueError(f"draws={draws} and lambda_a={lambda_a} must be above 0")
    columns = {"discrepancy_N": discrepancy_N, "bias_N": bias_N, "difficulty_N": difficulty_N}
    columns_3N = [_numbers(name, column_N, size) for name, column_N in columns.items()]
    decisions: list[Decision] = []
    candidates: list[tuple[int, int, str]] = []
    for sample_id, *values_3 in zip(sample_id_N, *columns_3N, strict=True):
        discrepancy, bias, difficulty = values_3
        is_dropped_by_cde = discrepancy is not None and not cde.is_kept(discrepancy, lambda_c)
        is_biased = ace.is_biased(bias, lambda_a)
        # Incorrect draws are compared as integers: in floats 1 - 4/5 is below 1/5.
        num_incorrect = None if difficulty is None else round(difficulty * draws)
        reasons = []
        if discrepancy is not None:
            relation = "not above" if is_dropped_by_cde else "above"
            reasons.append(f"D = {discrepancy:.2f}, {relation} {lambda_c:g}")
        if bias is not None:
            relation = "above" if is_biased else "not above"
            reasons.append(f"log psi = {bias:.2f}, {relation} {math.log(lambda_a):.2f}")
        elif bias_N is not None:
            reasons.append("no ACE value (response too short)")
        if num_incorrect is not None:
            reasons.append(f"{draws - num_incorrect} of {draws} correct")
            if 0 < num_incorrect < draws and is_dropped_by_cde and not is_biased:
                candidates.append((-num_incorrect, seeds.derive(0, "rap", sample_id), sample_id))
        outcome = Outcome.easy if num_incorrect == 0 else Outcome.kept
        if is_dropped_by_cde or is_biased:
            outcome = Outcome.prior if is_dropped_by_cde else Outcome.biased
        decisions.append(Decision(sample_id, outcome, "; ".join(reasons), *values_3))
    num_easy = sum(decision.outcome is Outcome.easy for decision in decisions)
    ranks = {key: rank for rank, (_, _, key) in enumerate(sorted(candidates)[:num_easy], start=1)}
    for i, decision in enumerate(decisions):
        outcome, position = decision.outcome, ""
        if rank := ranks.get(decision.sample_id):
            outcome, position = Outcome.brought_in, f", number {rank} of {num_easy}"
        reason = f"{PHRASES[outcome]}{position}: {decision.reason}"
        decisions[i] = replace(decision, outcome=outcome, reason=reason)
    counts = Counter(decision.outcome for decision in decisions)
    # The samples that DRM brings in are among those that CDE drops.
    after_cde = size - counts[Outcome.prior] - counts[Outcome.brought_in]
    funnel = {
        "pool": size,
        "after_cde": after_cde,
        "after_ace": after_cde - counts[Outcome.biased],
        "removed_easy": num_easy,
        "candidates": len(candidates),
        "brought_in": counts[Outcome.brought_in],
        "chosen": counts[Outcome.kept] + counts[Outcome.brought_in],
        "without_bias": 0 if bias_N is None else columns_3N[1].count(None),
    }
    return RapResult(decisions, funnel)


def choose(
    sample_id_N: Sequence[str],
    discrepancy_N: Sequence[float] | None,
    bias_N: Sequence[float | None] | None,
    difficulty_N: Sequence[float] | None,
    draws: int,
    lambda_c: float = 0.5,
    lambda_a: float = 0.1,
) -> list[Selection]:
    """The samples that `run_rap` selects, in the pool's order, each with its reason."""
    columns = (discrepancy_N, bias_N, difficulty_N)
    return run_rap(sample_id_N, *columns, draws, lambda_c, lambda_a).selections


def require_min(
    selections: list[Selection], minimum: int, funnel: dict[str, int], measures: Sequence[str]
) -> list[Selection]:
    """The same selections. Raises EmptySelectionError with the counts if fewer than `minimum`.

    `measures` (select.rap) are the measures that `run_rap` applied.
    """
    if len(selections) < minimum:
        applied = [step for measure, step in STEPS.items() if measure in measures]
        steps = [text.format(**funnel) for text, _ in applied]
        keys = [key for _, key in applied if key]
        if funnel["without_bias"]:
            steps.append(f"{funnel['without_bias']} responses are too short for an ACE value")
        advice = f"move {' or '.join(keys)}, add data" if keys else "add data"
        raise EmptySelectionError(
            f"RAP selects {len(selections)} samples, but a step needs {minimum} different prompts: "
            f"of {funnel['pool']} samples {'; '.join(steps)}; {advice}, or lower "
            f"grpo.prompts_per_step"
        )
    return selections
