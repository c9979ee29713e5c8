"""Choosing by stratum: the samples whose measure put them into one of the kept strata."""

from collections.abc import Collection, Iterable, Sequence

from difftrain import seeds
from difftrain.records import Measure, Score, Selection, Stratum, TrainStage


class EmptySelectionError(ValueError):
    """The kept strata hold too few samples to train on; the message gives the counts."""


def select_by_stratum(
    scores: Iterable[Score],
    measure: Measure,
    keep: Collection[Stratum],
    arm: TrainStage = TrainStage.grpo,
) -> list[Selection]:
    """One Pick for each sample that `measure` put into a kept stratum, in the scores' order."""
    return [
        Selection(
            sample_id=score.sample_id,
            stage=arm,
            reason=f"{measure} says {score.stratum}" + value_phrase(score),
        )
        for score in scores
        if score.measure is measure and score.stratum in keep
    ]


def value_phrase(score: Score) -> str:
    """The value behind the stratum, as a reader of the picks would want it."""
    if score.measure is Measure.pism:
        if score.value is None:
            return ": never fails, up to the last ratio"
        if score.stratum is Stratum.unsolved:
            return ": fails with the whole picture, or is not more often right than guessing"
        return f": first fails with {score.value:.0%} of the picture hidden"
    return "" if score.value is None else f": {score.value:.3g}"


def count_strata(scores: Iterable[Score], measure: Measure) -> dict[str, int]:
    """How many samples each stratum holds, all four named; `unplaced` only where there are any."""
    counts = {stratum.value: 0 for stratum in Stratum}
    for score in scores:
        if score.measure is measure:
            key = score.stratum.value if score.stratum else "unplaced"
            counts[key] = counts.get(key, 0) + 1
    return counts


MIN_SIZE_KEYS = {TrainStage.grpo: "grpo.prompts_per_step", TrainStage.sft: "sft.samples_per_step"}
"""How many samples a training stage needs at least."""
STRATA_KEYS = {TrainStage.grpo: "select.strata", TrainStage.sft: "select.sft_strata"}


def require_min(
    picks: list[Selection],
    least: int,
    counts: dict[str, int],
    arm: TrainStage = TrainStage.grpo,
    lost: str = "",
) -> list[Selection]:
    """The same picks. Raises NothingChosen if there are fewer than `least`.

    `lost` says what else was dropped, where something was.
    """
    if len(picks) < least:
        held = ", ".join(f"{name} {number}" for name, number in counts.items())
        what = "different prompts" if arm is TrainStage.grpo else "samples"
        raise EmptySelectionError(
            f"{STRATA_KEYS[arm]} leaves {len(picks)} samples{lost}, but a step needs {least} "
            f"{what}; the strata hold {held}: keep more strata, add data, "
            f"or lower {MIN_SIZE_KEYS[arm]}"
        )
    return picks


def random_control(
    sample_ids: Sequence[str], size: int, seed: int, name: str, arm: TrainStage = TrainStage.grpo
) -> list[Selection]:
    """`size` samples of the whole pool, whatever their stratum; the same on every machine.

    Each name is a draw of its own; within one, a smaller set is part of a larger one. Raises
    ValueError if the pool is smaller than `size`.
    """
    if size > len(sample_ids):
        raise ValueError(f"a random control of {size} from a pool of {len(sample_ids)}")

    def luck(sample_id: str) -> tuple[int, str]:
        return seeds.derive(seed, "select", name, "random", sample_id), sample_id

    drawn = set(sorted(sample_ids, key=luck)[:size])
    return [
        Selection(sample_id=sample_id, stage=arm, reason=f"drawn at random, one of {size}")
        for sample_id in sample_ids
        if sample_id in drawn
    ]
