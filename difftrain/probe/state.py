"""What the wanted measures need of the probe, so that one probe feeds them all.

The whole-picture rollouts 0 .. M-1 of CDE and DRM are the very draws of PISM's ratio 0; ACE and
CMAB look at one of them. Only what is missing is asked.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from difftrain.config.difficulty import ChanceCorrection, Grid, PismConfig, ProbeConfig
from difftrain.config.run_config import RunConfig
from difftrain.model.engines.types import GenerationError
from difftrain.pipeline import parquet
from difftrain.probe.requests import ProbeRequest
from difftrain.probe.schedule import next_draws
from difftrain.records import Measure, Rollout, Sample, Verdict, View


@dataclass(frozen=True, slots=True)
class ProbeRequirements:
    """Draws that the labels need: of the mask ladder, of the whole picture, of the words alone."""

    pism: PismConfig | None
    """Climb the ladder until this measure's label is settled."""
    full: bool
    """Fill the whole ratio-by-draw table."""
    first_right: bool
    """Ask the whole picture until one of the K draws is right (CMAB)."""
    whole: int
    """Whole-picture rollouts asked in any case."""
    text_only: int
    """Rollouts without the picture."""

    @property
    def guessing(self) -> bool:
        """Whether PISM's label also depends on the text-only rollouts."""
        return self.pism is not None and self.pism.chance_correction is ChanceCorrection.text_only

    def words(self) -> str:
        """These needs in words; equal words, equal needs."""
        told = []
        if self.pism is not None:
            told.append(f"tau={self.pism.tau!r}")
        if self.guessing and self.pism is not None:
            told.append(f"guess=text_only alpha={self.pism.alpha!r}")
        told += ["full"] * self.full + ["first_right"] * self.first_right
        told += [f"whole={self.whole}"] * bool(self.whole)
        told += [f"text_only={self.text_only}"] * bool(self.text_only)
        return " ".join(told)

    def settled(self, samples: int) -> str:
        """What manifest.json notes once these needs of so many samples are met."""
        return f"{self.words()} samples={samples}"


def requirements(config: RunConfig) -> ProbeRequirements:
    """The needs of the measures that these settings want."""
    wanted, rollouts = config.difficulty.measures, config.probe.cde_rollouts
    pism = config.difficulty.pism if Measure.pism in wanted else None
    guessing = pism is not None and pism.chance_correction is ChanceCorrection.text_only
    counted = Measure.cde in wanted or Measure.drm in wanted
    return ProbeRequirements(
        pism=pism,
        full=config.probe.grid is Grid.full,
        first_right=Measure.cmab in wanted,
        whole=rollouts if counted else int(Measure.ace in wanted),
        text_only=rollouts if guessing or Measure.cde in wanted else 0,
    )


FAILED_FOLDER = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedRequest:
    """A draw without an answer, and why; its sample is not scored."""

    sample_id: str
    view: View
    mask_percent: int
    draw: int
    reason: str


def failed_request(draw: ProbeRequest, found: GenerationError) -> FailedRequest:
    """The record of a draw that brought no answer."""
    return FailedRequest(
        sample_id=draw.sample.sample_id,
        view=draw.view,
        mask_percent=draw.percent,
        draw=draw.draw,
        reason=found.reason,
    )


def write_failures(probe: Path, rank: int, rows: Sequence[FailedRequest]) -> None:
    """Add a part, whole or not at all."""
    if rows:
        folder = probe / FAILED_FOLDER
        parquet.write_part(folder, parquet.next_part(folder, rank), rows)


def read_failures_part(path: Path) -> dict[str, str]:
    """The samples that a part sets aside, each with a reason."""
    return {each.sample_id: each.reason for each in parquet.read_part(path, FailedRequest)}


def read_failures(probe: Path) -> dict[str, str]:
    """Every sample set aside so far, with a reason."""
    found: dict[str, str] = {}
    for part in parquet.parts(probe / FAILED_FOLDER):
        found |= read_failures_part(part)
    return found


def without_failed(samples: Iterable[Sample], probe: Path) -> list[Sample]:
    """The samples that are not set aside."""
    without = read_failures(probe)
    return [sample for sample in samples if sample.sample_id not in without]


class ProbeState:
    """The tables of all samples of a probe folder, and what they still need.

    Draws beyond the tables, left by an earlier run that wanted more, are counted and no more.
    """

    def __init__(
        self, folder: Path, config: ProbeConfig, samples: Iterable[Sample], needs: ProbeRequirements
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
        for part in parquet.parts(self.folder / FAILED_FOLDER):
            if part not in self.known:
                self.aside |= read_failures_part(part)
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
                set_cell(self.text_only[each.sample_id], each.draw, right)
                continue
            set_cell(self.tables[each.sample_id][self.rows[each.mask_percent]], each.draw, right)
            if each.view is View.full_image:
                set_cell(self.whole[each.sample_id], each.draw, right)

    def leasts(self, sample_id: str) -> list[int]:
        """How many right answers pass a rung: PISM's own number, and the chance-aware one."""
        pism, draws = self.needs.pism, self.config.draws
        if pism is None:
            return []
        found = [pism.least(draws)]
        if self.needs.guessing:
            found.append(pism.least(draws, pism.guess_rate(self.text_only[sample_id])))
        return found

    def wanted(self, sample: Sample) -> list[ProbeRequest]:
        """The draws to ask next of this sample; empty when all its labels are settled.

        What is needed in any case is asked at once, then the ladder one draw at a time.
        """
        key = sample.sample_id
        if key in self.aside:
            return []
        certain = [
            ProbeRequest(sample, 0, int(draw)) for draw in np.flatnonzero(self.whole[key] == -1)
        ]
        certain += [
            ProbeRequest(sample, 0, int(draw), View.text_only)
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
            return [ProbeRequest(sample, 0, int(undrawn[0]))]
        return []

    def masked(self, sample: Sample, row: int, draw: int) -> ProbeRequest:
        """The draw of a cell of the table."""
        return ProbeRequest(sample, self.config.mask_percents[row], int(draw))


def set_cell(cells: np.ndarray, draw: int, right: int) -> None:
    """Write a verdict into its cell, if there is one."""
    if draw < len(cells):
        cells[draw] = right
