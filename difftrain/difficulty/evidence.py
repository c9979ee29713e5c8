"""What the probe measured of a sample, arranged for the measures.

Axes: R mask ratios, K draws (responses) at every ratio, M rollouts with or without the image.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from difftrain.config.difficulty import ProbeConfig
from difftrain.records import Attention, Rollout, Verdict, View


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerLikelihood:
    """The log-probability of a sample's gold answer, in nats, with and without its image.

    `num_tokens` tokens are scored. Both values are None if the sample has no image.
    """

    sample_id: str
    num_tokens: int
    with_image: float | None
    without_image: float | None


class Evidence:
    """What the probe measured of one sample. A verdict is 1 correct, 0 not, -1 not drawn.

    `full_image_M` has the first M draws at ratio 0 (M may differ from K). `first_num_tokens` is the
    length of draw 0 at ratio 0, or None if it was not drawn. `attention` has rows by draw;
    `likelihood` is None if the pass that measures it was not run.
    """

    def __init__(self, num_ratios: int, num_draws: int, num_full: int, num_text_only: int) -> None:
        self.correct_RK = np.full((num_ratios, num_draws), -1, dtype=np.int8)
        self.full_image_M = np.full(num_full, -1, dtype=np.int8)
        self.text_only_M = np.full(num_text_only, -1, dtype=np.int8)
        self.first_num_tokens: int | None = None
        self.attention: dict[int, Attention] = {}
        self.likelihood: AnswerLikelihood | None = None

    def add(self, rollout: Rollout, row: int) -> None:
        """Enter a rollout; `row` is its ratio's row. Draws from number K or M on are ignored."""
        tables = [self.correct_RK[row]]
        if rollout.view is View.text_only:
            tables = [self.text_only_M]
        elif rollout.view is View.full_image:
            tables.append(self.full_image_M)
            if rollout.draw == 0:
                self.first_num_tokens = rollout.num_tokens
        for table in tables:
            if rollout.draw < len(table):
                table[rollout.draw] = rollout.verdict is Verdict.correct


def gather_evidence(
    rollouts: Iterable[Rollout],
    attention: Iterable[Attention],
    probe: ProbeConfig,
    likelihoods: Iterable[AnswerLikelihood] = (),
) -> dict[str, Evidence]:
    """The evidence of each sample that has rollouts."""
    row_of = {percent: row for row, percent in enumerate(probe.mask_percents)}
    sizes = (len(row_of), probe.draws, probe.cde_rollouts, probe.cde_rollouts)
    evidence: dict[str, Evidence] = defaultdict(lambda: Evidence(*sizes))
    for rollout in rollouts:
        evidence[rollout.sample_id].add(rollout, row_of[rollout.mask_percent])
    for row in attention:
        if row.sample_id in evidence:
            evidence[row.sample_id].attention[row.draw] = row
    for likelihood in likelihoods:
        if likelihood.sample_id in evidence:
            evidence[likelihood.sample_id].likelihood = likelihood
    return dict(evidence)
