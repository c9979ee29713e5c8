"""What has been drawn so far, read from the parts of a probe folder as they appear.

Axes: R mask ratios, K draws, M rollouts; a cell is 1 right, 0 not, -1 not drawn.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from difftrain.config.probe import ProbeConfig
from difftrain.pipeline import parquet
from difftrain.probe import aside
from difftrain.probe.needs import Needs
from difftrain.probe.rollouts import Draw
from difftrain.probe.schedule import next_draws
from difftrain.records import Rollout, Sample, Verdict, View


class Ledger:
    """The tables of all samples of a probe folder, and what they still need.

    Draws beyond the tables, left by an earlier run that wanted more, are counted and no more.
    """

    def __init__(
        self, folder: Path, config: ProbeConfig, samples: Iterable[Sample], needs: Needs
    ) -> None:
        self.folder, self.config, self.needs = folder, config, needs
        self.rows = {percent: row for row, percent in enumerate(config.mask_percents)}
        ids = [sample.sample_id for sample in samples]

        def undrawn(*shape: int) -> dict[str, np.ndarray]:
            return {sample_id: np.full(shape, -1, dtype=np.int8) for sample_id in ids}

        self.tables = undrawn(len(config.mask_percents), config.draws)
        self.whole, self.text_only = undrawn(needs.whole), undrawn(needs.text_only)
        self.known: set[Path] = set()
        self.aside: dict[str, str] = {}
        """Samples that could not be asked, with the reason; they want nothing more."""
        self.generations = self.tokens = 0

    def refresh(self) -> None:
        """Read the parts that have appeared since the last look."""
        for part in parquet.parts(self.folder):
            if part not in self.known:
                self.enter(parquet.read_part(part, Rollout))
                self.known.add(part)
        for part in parquet.parts(self.folder / aside.FOLDER):
            if part not in self.known:
                self.aside |= aside.read_part(part)
                self.known.add(part)

    def enter(self, rollouts: Iterable[Rollout]) -> None:
        """Note these rollouts in their samples' tables."""
        for each in rollouts:
            self.generations += 1
            self.tokens += each.num_tokens
            if each.sample_id not in self.tables:
                continue
            right = int(each.verdict is Verdict.correct)
            if each.view is View.text_only:
                note(self.text_only[each.sample_id], each.draw, right)
                continue
            note(self.tables[each.sample_id][self.rows[each.mask_percent]], each.draw, right)
            if each.view is View.full_image:
                note(self.whole[each.sample_id], each.draw, right)

    def leasts(self, sample_id: str) -> list[int]:
        """How many right answers pass a rung: PISM's own number, and the chance-aware one."""
        pism, draws = self.needs.pism, self.config.draws
        if pism is None:
            return []
        found = [pism.least(draws)]
        if self.needs.guessing:
            found.append(pism.least(draws, pism.guess_rate(self.text_only[sample_id])))
        return found

    def wanted(self, sample: Sample) -> list[Draw]:
        """The draws to ask next of this sample; empty when all its labels are settled.

        What is needed in any case is asked at once, then the ladder one draw at a time.
        """
        key = sample.sample_id
        if key in self.aside:
            return []
        certain = [Draw(sample, 0, int(draw)) for draw in np.flatnonzero(self.whole[key] == -1)]
        certain += [
            Draw(sample, 0, int(draw), View.text_only)
            for draw in np.flatnonzero(self.text_only[key] == -1)
        ]
        if certain:
            return certain
        table_RK = self.tables[key]
        if self.needs.full:
            cells = list(zip(*np.nonzero(table_RK == -1), strict=True))
            return [self.masked(sample, row, draw) for row, draw in cells]
        for least in self.leasts(key):
            if cells := next_draws(table_RK, least=least):
                return [self.masked(sample, row, draw) for row, draw in cells]
        undrawn = np.flatnonzero(table_RK[0] == -1)
        if self.needs.first_right and len(undrawn) and not (table_RK[0] == 1).any():
            return [Draw(sample, 0, int(undrawn[0]))]
        return []

    def masked(self, sample: Sample, row: int, draw: int) -> Draw:
        """The draw of a cell of the table."""
        return Draw(sample, self.config.mask_percents[row], int(draw))


def note(cells: np.ndarray, draw: int, right: int) -> None:
    """Write a verdict into its cell, if there is one."""
    if draw < len(cells):
        cells[draw] = right
