"""What has been drawn so far, read from the parts of a probe folder as they appear.

Axes: R mask ratios, K draws; a cell is 1 right, 0 not, -1 not drawn.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from difftrain import artefacts
from difftrain.probe.config import Grid, ProbeConfig
from difftrain.probe.schedule import next_draws
from difftrain.records import Rollout, Sample, Verdict, View


class Ledger:
    """The tables of all samples of a probe folder.

    `first_right` also asks for whole-image draws until one is right, which CMAB needs at any tau.
    """

    def __init__(
        self, folder: Path, config: ProbeConfig, samples: Iterable[Sample], first_right: bool
    ) -> None:
        self.folder, self.config, self.first_right = folder, config, first_right
        shape = (len(config.percents), config.draws)
        self.rows = {percent: row for row, percent in enumerate(config.percents)}
        self.tables = {sample.sample_id: np.full(shape, -1, dtype=np.int8) for sample in samples}
        self.known: set[Path] = set()
        self.generations = self.tokens = 0

    def refresh(self) -> None:
        """Read the parts that have appeared since the last look."""
        for part in artefacts.parts(self.folder):
            if part not in self.known:
                self.enter(artefacts.read_part(part, Rollout))
                self.known.add(part)

    def enter(self, rollouts: Iterable[Rollout]) -> None:
        """Note these rollouts in their samples' tables."""
        for each in rollouts:
            self.generations += 1
            self.tokens += each.tokens
            if each.view is not View.text_only and each.sample_id in self.tables:
                row = self.rows[each.mask_percent]
                right = each.verdict is Verdict.right
                self.tables[each.sample_id][row, each.draw] = int(right)

    def wanted(self, sample: Sample, tau: float) -> list[tuple[int, int]]:
        """(percent, draw) pairs to ask next of this sample; empty when it is settled."""
        table_RK = self.tables[sample.sample_id]
        if self.config.grid is Grid.full:
            cells = list(zip(*np.nonzero(table_RK == -1), strict=True))
        else:
            cells = next_draws(table_RK, tau)
        undrawn = np.flatnonzero(table_RK[0] == -1)
        if not cells and self.first_right and len(undrawn) and not (table_RK[0] == 1).any():
            cells = [(0, int(undrawn[0]))]
        return [(self.config.percents[row], int(draw)) for row, draw in cells]
