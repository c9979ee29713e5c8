"""The equal-size random control: what the arm's numbers must be compared with."""

from collections.abc import Sequence

from difftrain import seeds
from difftrain.records import Selection, TrainStage


def random_picks(
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
