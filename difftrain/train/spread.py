"""Answer lengths and dead groups by task and stratum: which samples have nothing to teach.

A group is dead if all answers to its prompt are paid alike. A group whose answers lie on several
processes is not counted; how many were is in the log's line.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from difftrain.train.watch import SUM, Groups, Reward

TOKENS, WHOLE, DEAD = "tokens", "prompts", "dead"
"""The sums by group: tokens of answers, prompts with all answers at hand, dead ones among them."""
ALIKE = 1e-6
"""Pays closer than this are alike."""


def spread_counted(
    rewards: Sequence[Reward], weights: Sequence[float], groups: Groups, size: int
) -> list[Reward]:
    """The same rewards under the same names; after the last one, sums by group go to the log.

    `weights` are the rewards', in their order; `size` is how many answers a prompt gets.
    """
    paid: list[float] = []

    def counted(place: int, reward: Reward) -> Reward:
        def own(
            completions: Sequence[Any],
            sample_id: Sequence[str],
            log_metric: Callable[[str, float], None] | None = None,
            completion_ids: Sequence[Sequence[int]] | None = None,
            **rest: Any,
        ) -> list[float]:
            values = reward(
                completions=completions,
                sample_id=sample_id,
                log_metric=log_metric,
                completion_ids=completion_ids,
                **rest,
            )
            before = paid if place else [0.0] * len(values)
            paid[:] = [sum_ + weights[place] * v for sum_, v in zip(before, values, strict=True)]
            if log_metric is not None and place == len(rewards) - 1:
                for name, value in sums(paid, sample_id, completion_ids, groups, size).items():
                    log_metric(f"{SUM}{name}", value)
            return values

        own.__name__ = reward.__name__
        return own

    return [counted(place, reward) for place, reward in enumerate(rewards)]


def sums(
    paid: Sequence[float],
    sample_id: Sequence[str],
    completion_ids: Sequence[Sequence[int]] | None,
    groups: Groups,
    size: int,
) -> dict[str, float]:
    """Tokens, whole prompts and dead ones of every group that there is, its zeros too."""
    found: dict[str, float] = defaultdict(float)
    for identity, ids in zip(sample_id, completion_ids or (), strict=False):
        for group in groups.of[identity]:
            found[f"{TOKENS}/{group}"] += len(ids)
    for first in range(0, len(paid) - size + 1, size):
        answers = slice(first, first + size)
        if len({*sample_id[answers]}) > 1:
            continue
        dead = max(paid[answers]) - min(paid[answers]) < ALIKE
        for group in groups.of[sample_id[first]]:
            found[f"{WHOLE}/{group}"] += 1
            found[f"{DEAD}/{group}"] += dead
    kinds = (WHOLE, DEAD) if completion_ids is None else (TOKENS, WHOLE, DEAD)
    return {f"{kind}/{name}": found[f"{kind}/{name}"] for kind in kinds for name in groups.names}
