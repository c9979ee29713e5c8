"""Selects training samples: by difficulty stratum, as the paper RAP does (rap.py), or at random."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from difftrain import seeds
from difftrain.records import Measure, Score, Selection, Stratum, TrainStage

MIN_SIZE_KEYS = {TrainStage.grpo: "grpo.prompts_per_step", TrainStage.sft: "sft.samples_per_step"}
STRATA_KEYS = {TrainStage.grpo: "select.strata", TrainStage.sft: "select.sft_strata"}


class EmptySelectionError(ValueError):
    """Too few samples are selected to train on; the message gives the counts."""


def select_by_stratum(
    scores: Iterable[Score],
    measure: Measure,
    strata: Collection[Stratum],
    stage: TrainStage = TrainStage.grpo,
) -> list[Selection]:
    """A Selection for each sample whose stratum by `measure` is in `strata`; keeps the order."""
    return [
        Selection(sample_id=score.sample_id, stage=stage, reason=_reason(score))
        for score in scores
        if score.measure is measure and score.stratum in strata
    ]


def select_by_id(
    scores: Iterable[Score], measure: Measure, sample_ids: Collection[str], where: str
) -> list[Selection]:
    """A Selection for each of these samples, in the order of the scores.

    Raises EmptySelectionError if a sample has no score by `measure`; `where` names the list.
    """
    reasons = {score.sample_id: _reason(score) for score in scores if score.measure is measure}
    if unknown := [sample_id for sample_id in sample_ids if sample_id not in reasons]:
        raise EmptySelectionError(
            f"{where} lists {len(unknown)} of {len(sample_ids)} ids that are not scored samples, "
            f"such as {unknown[0]!r}: export the list from these scores, or remove the ids"
        )
    listed = {*sample_ids}
    return [
        Selection(sample_id=key, stage=TrainStage.grpo, reason=f"listed in select.ids: {reason}")
        for key, reason in reasons.items()
        if key in listed
    ]


def _reason(score: Score) -> str:
    """Why the sample is selected. PISM's value is the smallest mask ratio at which it fails."""
    label = f"{score.stratum} by {score.measure}"
    if score.measure is not Measure.pism:
        return label if score.value is None else f"{label}: {score.value:.3g}"
    if score.value is None:  # no probed ratio fails, or the stratum was certain before the ratio
        is_easy = score.stratum is Stratum.easy
        text = "fails at no probed mask ratio" if is_easy else "exact mask ratio not probed"
        return f"{label}: {text}"
    if score.stratum is Stratum.unsolved:
        return f"{label}: fails with the full image, or is not correct more often than guessing"
    return f"{label}: first fails with {score.value:.0%} of the image hidden"


def count_strata(scores: Iterable[Score], measure: Measure) -> dict[str, int]:
    """The size of each of the four strata, and of `unplaced` (no stratum) if it is not empty."""
    strata = (score.stratum for score in scores if score.measure is measure)
    counts = Counter(stratum.value if stratum else "unplaced" for stratum in strata)
    return {stratum.value: 0 for stratum in Stratum} | counts


def require_min_size(
    selections: list[Selection],
    minimum: int,
    counts: dict[str, int],
    stage: TrainStage = TrainStage.grpo,
    dropped: str = "",
) -> list[Selection]:
    """The same selections. Raises EmptySelectionError if there are fewer than `minimum`.

    The message has the strata's `counts`, and the text `dropped` on dropped samples (see sft.py).
    """
    if len(selections) < minimum:
        sizes = ", ".join(f"{stratum} {count}" for stratum, count in counts.items())
        unit = "different prompts" if stage is TrainStage.grpo else "samples"
        raise EmptySelectionError(
            f"{STRATA_KEYS[stage]} leaves {len(selections)} samples{dropped}, but a step needs "
            f"{minimum} {unit}; the strata hold {sizes}: keep more strata "
            f"({STRATA_KEYS[stage]}=[easy,medium,hard]), add data, or lower {MIN_SIZE_KEYS[stage]}"
        )
    return selections


def random_control(
    sample_ids: Sequence[str], size: int, seed: int, name: str, stage: TrainStage = TrainStage.grpo
) -> list[Selection]:
    """A random set of `size` samples from all strata; the same on every machine.

    Sets with different names are independent. With the same name, a larger set contains a smaller.
    Raises ValueError if there are fewer than `size` samples.
    """
    if size > len(sample_ids):
        raise ValueError(f"cannot draw {size} random samples from a pool of {len(sample_ids)}")

    def sort_key(sample_id: str) -> tuple[int, str]:
        return seeds.derive(seed, "select", name, "random", sample_id), sample_id

    control = set(sorted(sample_ids, key=sort_key)[:size])
    return [
        Selection(sample_id=sample_id, stage=stage, reason=f"drawn at random, one of {size}")
        for sample_id in sample_ids
        if sample_id in control
    ]
