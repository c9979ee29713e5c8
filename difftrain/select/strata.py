"""Choosing by stratum: the samples whose measure put them into one of the kept strata."""

from collections.abc import Collection, Iterable

from difftrain.records import Measure, Score, Selection, Stratum, TrainStage


class NothingChosen(ValueError):
    """The kept strata hold too few samples to train on; the message gives the counts."""


def chosen(
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
            reason=f"{measure} says {score.stratum}" + value_in_words(score),
        )
        for score in scores
        if score.measure is measure and score.stratum in keep
    ]


def value_in_words(score: Score) -> str:
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


STEP = {TrainStage.grpo: "grpo.prompts_per_step", TrainStage.sft: "sft.samples_per_step"}
"""How many samples a training stage needs at least."""
KEEP = {TrainStage.grpo: "select.strata", TrainStage.sft: "select.sft_strata"}


def enough(
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
        raise NothingChosen(
            f"{KEEP[arm]} leaves {len(picks)} samples{lost}, but a step needs {least} {what}; "
            f"the strata hold {held}: keep more strata, add data, or lower {STEP[arm]}"
        )
    return picks
