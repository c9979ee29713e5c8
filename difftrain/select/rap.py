"""RAP: the few samples that awaken multimodal reasoning (T, CDE + ACE + DRM). Pure.

CDE keeps what the picture decides, ACE drops what hangs on one token, DRM replaces what is easy by
as many of the hardest that are still solved now and then. Axes: N samples of the pool.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from difftrain import seeds
from difftrain.config.difficulty import AceConfig, CdeConfig
from difftrain.records import Measure, Selection, TrainStage
from difftrain.select.strata import EmptySelectionError

DECISIONS_FOLDER = "decisions"
"""Below the picks' folder: a Decision for every sample of the pool."""

THRESHOLD_KEYS = {
    Measure.cde: ("difficulty.cde.lambda_c",),
    Measure.ace: ("difficulty.ace.lambda_a", "difficulty.ace.min_rows"),
}
"""The settings that let more samples through a step; DRM has none."""


class Outcome(StrEnum):
    """What became of a sample of the pool."""

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
    """One sample of the pool: its fate, why, and the numbers that decided (None: not asked)."""

    sample_id: str
    filter_outcome: Outcome
    reason: str
    discrepancy: float | None
    bias: float | None
    difficulty: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolScores:
    """The scores of a pool. A measure that is None takes no part in the choice.

    `bias` is ACE's largest log psi; None within it where the response is too short for one, and
    such a sample is not called biased.
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
            raise ValueError("a sample stands in the table twice")
        if self.draws < 1 or not self.lambda_a > 0:
            raise ValueError(f"draws={self.draws} and lambda_a={self.lambda_a} must be above 0")
        for name in ("discrepancy_N", "bias_N", "difficulty_N"):
            column = getattr(self, name)
            if column is None:
                continue
            if len(column) != len(ids):
                raise ValueError(f"{name} has {len(column)} numbers for {len(ids)} samples")
            if name != "bias_N" and any(each is None or math.isnan(each) for each in column):
                raise ValueError(f"{name} lacks a number")

    def discrepancy(self, place: int) -> float | None:
        """CDE's D of a sample; None where CDE takes no part."""
        return None if self.discrepancy_N is None else float(self.discrepancy_N[place])

    def bias(self, place: int) -> float | None:
        """ACE's largest log psi of a sample; None where there is none or ACE takes no part."""
        found = None if self.bias_N is None else self.bias_N[place]
        return None if found is None or math.isnan(found) else float(found)

    def wrong(self, place: int) -> int | None:
        """How many of the draws were wrong, an integer: in floats 1 - 4/5 is below 1/5."""
        if self.difficulty_N is None:
            return None
        return round(float(self.difficulty_N[place]) * self.draws)

    def is_prior(self, place: int) -> bool:
        """Whether the picture adds too little to the accuracy: D is not above lambda_c."""
        found = self.discrepancy(place)
        return found is not None and not CdeConfig(lambda_c=self.lambda_c).keeps(found)

    def is_biased(self, place: int) -> bool:
        """Whether the response hangs on one of its tokens: log psi above log lambda_a."""
        return AceConfig(lambda_a=self.lambda_a).biased(self.bias(place))

    def numbers(self, place: int) -> str:
        """What the measures said, in words."""
        told = []
        if (found := self.discrepancy(place)) is not None:
            sign = "not above" if self.is_prior(place) else "above"
            told.append(f"D = {found:.2f}, {sign} {self.lambda_c:g}")
        if self.bias_N is not None:
            found, bound = self.bias(place), math.log(self.lambda_a)
            sign = "above" if self.is_biased(place) else "not above"
            number = "no ACE value (response too short)"
            told.append(number if found is None else f"log psi = {found:.2f}, {sign} {bound:.2f}")
        if (wrong := self.wrong(place)) is not None:
            told.append(f"{self.draws - wrong} of {self.draws} right")
        return "; ".join(told)


@dataclass(frozen=True, slots=True)
class RapResult:
    """A decision for each sample of the pool, in its order.

    `candidates` are how many could have been brought in; `without_bias`, how many ACE was asked
    about and had no value for.
    """

    decisions: list[Decision]
    candidates: int
    without_bias: int

    @property
    def picks(self) -> list[Selection]:
        """The samples that train."""
        return [
            Selection(sample_id=each.sample_id, stage=TrainStage.grpo, reason=each.reason)
            for each in self.decisions
            if each.fate in (Outcome.kept, Outcome.brought_in)
        ]

    def funnel(self) -> dict[str, int]:
        """How many samples each step left, from the pool to the chosen set.

        Every sample that is brought in was dropped by CDE before.
        """
        count = {fate: sum(each.fate is fate for each in self.decisions) for fate in Outcome}
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


def filter_outcome(table: PoolScores, place: int) -> Outcome:
    """What the filters and the removal of easy samples make of one sample."""
    if table.is_prior(place):
        return Outcome.prior
    if table.is_biased(place):
        return Outcome.biased
    return Outcome.easy if table.wrong(place) == 0 else Outcome.kept


def run_rap(table: PoolScores) -> RapResult:
    """The whole choice, with a reason for each sample of the pool.

    As many as were removed for being easy are brought in from outside the chosen set: wrong at
    least once, right at least once, not attention-biased, the hardest first, ties by a hash of the
    sample id. If there are fewer, all of them are.
    """
    ids, draws = list(table.sample_id_N), table.draws
    fates = [filter_outcome(table, place) for place in range(len(ids))]
    outside: list[tuple[int, tuple[int, str], int]] = []
    for place, found in enumerate(fates):
        wrong = table.wrong(place)
        cognitive = found in (Outcome.kept, Outcome.easy)
        if wrong is None or cognitive or not 1 <= wrong < draws or table.is_biased(place):
            continue
        outside.append((-wrong, tie_break(ids[place]), place))
    removed = sum(found is Outcome.easy for found in fates)
    brought = [place for *_, place in sorted(outside)[:removed]]
    told = {
        place: f"brought in by DRM for an easy one, number {number} of {removed}"
        for number, place in enumerate(brought, start=1)
    }
    for place in brought:
        fates[place] = Outcome.brought_in
    decisions = [
        Decision(
            sample_id=ids[place],
            fate=found,
            reason=f"{told.get(place) or OUTCOME_PHRASES[found]}: {table.numbers(place)}",
            discrepancy=table.discrepancy(place),
            bias=table.bias(place),
            difficulty=None if table.difficulty_N is None else float(table.difficulty_N[place]),
        )
        for place, found in enumerate(fates)
    ]
    asked = table.bias_N is not None
    without_bias = sum(asked and table.bias(place) is None for place in range(len(ids)))
    return RapResult(decisions, len(outside), without_bias)


def choose(
    sample_id_N: Sequence[str],
    discrepancy_N: Sequence[float] | None,
    bias_N: Sequence[float | None] | None,
    difficulty_N: Sequence[float] | None,
    draws: int,
    lambda_c: float = 0.5,
    lambda_a: float = 0.1,
) -> list[Selection]:
    """The chosen samples, in the pool's order, each with its reason (arm grpo).

    `bias_N` holds largest log psi and is compared with log lambda_a; difficulties are compared as
    round(d * draws). None in place of a column leaves that measure out: the ablations. Raises
    ValueError for columns that do not fit.
    """
    columns = {"discrepancy_N": discrepancy_N, "bias_N": bias_N, "difficulty_N": difficulty_N}
    table = PoolScores(
        sample_id_N=sample_id_N, draws=draws, lambda_c=lambda_c, lambda_a=lambda_a, **columns
    )
    return run_rap(table).picks


def funnel_phrase(funnel: dict[str, int], steps: Sequence[str]) -> str:
    """What the steps that took part made of the pool, as one line, for messages."""
    by_step = {
        Measure.cde: f"CDE leaves {funnel['after_cde']}",
        Measure.ace: f"ACE leaves {funnel['after_ace']}",
        Measure.drm: f"DRM removes {funnel['removed_easy']} as easy and brings in "
        f"{funnel['brought_in']} of {funnel['candidates']} candidates",
    }
    told = "; ".join(said for step, said in by_step.items() if step in steps)
    if funnel["without_bias"]:
        told += f"; {funnel['without_bias']} responses are too short for an ACE value"
    return f"of {funnel['pool']} samples {told}"


def require_min(
    picks: list[Selection], least: int, funnel: dict[str, int], steps: Sequence[str]
) -> list[Selection]:
    """The same picks. Raises NothingChosen with the counts if there are fewer than `least`.

    `steps` are the measures that chose (select.rap).
    """
    if len(picks) < least:
        moved = " or ".join(
            key for step, keys in THRESHOLD_KEYS.items() if step in steps for key in keys
        )
        ways = f"move {moved}, add data" if moved else "add data"
        raise EmptySelectionError(
            f"RAP chooses {len(picks)} samples, but a step needs {least} different prompts: "
            f"{funnel_phrase(funnel, steps)}; {ways}, or lower grpo.prompts_per_step"
        )
    return picks
