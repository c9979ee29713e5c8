"""Decides which response the probe draws next, to get the full grid's result with few draws.

A mask ratio passes if enough of its draws (responses) are correct. The probe begins at ratio 0,
draws until the ratio certainly passes or fails, and goes on to the next ratio. It stops at the
first ratio that fails or, if only the stratum is needed, once no draw can change the stratum.
Axes: R mask ratios and K draws at every ratio, together the full grid; -1 = not drawn.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from difftrain.config.difficulty import (
    ChanceCorrection,
    DifficultyConfig,
    PismConfig,
    ProbeConfig,
    Until,
)
from difftrain.config.run_config import RunConfig
from difftrain.difficulty import pism
from difftrain.difficulty.definition import probe_draws
from difftrain.difficulty.evidence import Evidence
from difftrain.model.engines.types import GenerationError
from difftrain.pipeline import parquet
from difftrain.records import Measure, Rollout, Sample, View

FAILED_FOLDER = "failed"  # in the probe's folder: part files with a FailedRequest per failure


def next_draws(
    correct_RK: np.ndarray,
    tau: float = 0.1,
    until: str = "ratio",
    ratio_R: Sequence[float] | np.ndarray | None = None,
    hard_max: float = 0.4,
    easy_min: float = 0.7,
    easy_inclusive: bool = True,
    minimum: int | None = None,
) -> list[tuple[int, int]]:
    """The next cell (row, draw) to draw, as a list of one; empty when the result is settled.

    `until` is what has to be settled: the first failing ratio ("ratio") or its stratum ("stratum").
    "grid" returns all undrawn cells at once. `ratio_R` defaults to row / R. `minimum`, if given,
    replaces tau: a row passes with that many correct draws (see pism.min_correct). Only one cell is
    returned, because its verdict may settle the result. Raises ValueError if the table is not
    R x K, or if until="stratum" and the ratios do not rise.
    """
    table_RK = np.asarray(correct_RK)
    if table_RK.ndim != 2 or table_RK.size == 0:
        raise ValueError(f"expected a table of shape R x K, not {table_RK.shape}")
    if until == Until.grid:
        return [(int(row), int(draw)) for row, draw in np.argwhere(table_RK == -1)]
    if minimum is None:
        minimum = pism.min_correct(table_RK.shape[1], tau)
    if Until(until) is Until.stratum:
        ratios = np.arange(len(table_RK)) / len(table_RK) if ratio_R is None else ratio_R
        limits = (hard_max, easy_min, easy_inclusive)
        if pism.settled_stratum(table_RK, ratios, minimum, *limits) is not None:
            return []
    undecided, _ = pism.undecided_rows(table_RK, minimum)
    return [(row, _undrawn(table_RK[row])[0]) for row in undecided[:1]]


def _undrawn(cells: np.ndarray) -> list[int]:
    return np.flatnonzero(cells == -1).tolist()


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """Draw number `draw` of a sample with `percent` of each image hidden, or without images."""

    sample: Sample
    percent: int
    draw: int
    text_only: bool = False

    @property
    def view(self) -> View:
        """What the model is shown."""
        if self.text_only:
            return View.text_only
        return View.masked if self.percent else View.full_image


@dataclass(frozen=True, slots=True)
class ProbeRequirements:
    """The draws that the requested difficulty measures (PISM, CMAB, CDE, ACE, DRM) need."""

    pism: PismConfig | None  # if given, draw at the mask ratios until PISM's result is settled
    until: Until
    first_correct: bool  # draw with the full image until one of the K draws is correct (CMAB)
    full_image: int  # full-image draws needed in any case
    text_only: int  # draws without the image
    chance_corrected: bool  # PISM's result also depends on the text-only draws

    def describe(self, num_samples: int) -> str:
        """The requirements as text: a manifest lists it when `num_samples` samples meet them."""
        parts = []
        if self.pism:
            parts.append(f"tau={self.pism.tau!r}")
            if self.chance_corrected:
                parts.append(f"chance_correction=text_only alpha={self.pism.alpha!r}")
            if self.until is Until.stratum:
                limits = (self.pism.hard_max, self.pism.easy_min, self.pism.easy_inclusive)
                parts.append(f"until=stratum of {limits}")
        optional = {
            "until=grid": self.until is Until.grid,
            "first_correct": self.first_correct,
            f"full_image={self.full_image}": self.full_image > 0,
            f"text_only={self.text_only}": self.text_only > 0,
        }
        parts += [text for text, is_required in optional.items() if is_required]
        return " ".join([*parts, f"samples={num_samples}"])


def requirements(difficulty: DifficultyConfig, probe: ProbeConfig) -> ProbeRequirements:
    """The draws that the measures of these settings need."""
    needs = probe_draws(difficulty, probe)
    config = difficulty.pism if Measure.pism in difficulty.measures else None
    corrected = config is not None and config.chance_correction is ChanceCorrection.text_only
    return ProbeRequirements(
        pism=config,
        until=probe.until,
        first_correct=needs.first_correct,
        full_image=needs.full_image,
        text_only=needs.text_only,
        chance_corrected=corrected,
    )


@dataclass(frozen=True, slots=True)
class FailedRequest:
    """A draw that got no completion, and why. Its sample is not scored and gets no further draws;
    to try again, delete the folder `failed/` and manifest.json."""

    sample_id: str
    view: View
    mask_percent: int
    draw: int
    reason: str


def write_failure(folder: Path, rank: int, request: ProbeRequest, error: GenerationError) -> None:
    """Record a failed request below the probe's folder."""
    fields = request.sample.sample_id, request.view, request.percent, request.draw
    failures = folder / FAILED_FOLDER
    name = parquet.next_part_name(failures, rank)
    parquet.write_part(failures, name, [FailedRequest(*fields, error.reason)])


def _read_failures(parts: Iterable[Path]) -> dict[str, str]:
    rows = (row for part in parts for row in parquet.read_part(part, FailedRequest))
    return {row.sample_id: row.reason for row in rows}


def failed_samples(folder: Path) -> dict[str, str]:
    """By sample id: why a request of the sample failed, if one did."""
    return _read_failures(parquet.parts(folder / FAILED_FOLDER))


def without_failed(samples: Iterable[Sample], folder: Path) -> list[Sample]:
    """The samples without a failed request."""
    failed = failed_samples(folder)
    return [sample for sample in samples if sample.sample_id not in failed]


class ProbeState:
    """Which draws of every sample are in the probe's folder, and which are still needed.

    Another run may have made more draws than this run needs. These are counted, but not used.
    """

    def __init__(self, folder: Path, config: RunConfig, samples: Iterable[Sample]) -> None:
        self.folder, self.probe = folder, config.probe
        self.required = required = requirements(config.difficulty, config.probe)
        self.row_of = {percent: row for row, percent in enumerate(self.probe.mask_percents)}
        sizes = (len(self.row_of), self.probe.draws, required.full_image, required.text_only)
        self.evidence = {sample.sample_id: Evidence(*sizes) for sample in samples}
        self.parts_read: set[Path] = set()
        self.failed: dict[str, str] = {}  # reasons by sample; these need no further draws
        self.num_generations = self.num_tokens = 0  # of all draws in the folder

    def refresh(self) -> None:
        """Read the parts that have appeared since the last call."""
        rollouts = {*parquet.parts(self.folder)} - self.parts_read
        failures = {*parquet.parts(self.folder / FAILED_FOLDER)} - self.parts_read
        for part in rollouts:
            self.add(parquet.read_part(part, Rollout))
        self.failed |= _read_failures(sorted(failures))
        self.parts_read |= rollouts | failures

    def add(self, rollouts: Iterable[Rollout]) -> None:
        """Enter these rollouts into the evidence of their samples."""
        for rollout in rollouts:
            self.num_generations += 1
            self.num_tokens += rollout.num_tokens
            if rollout.sample_id in self.evidence:
                self.evidence[rollout.sample_id].add(rollout, self.row_of[rollout.mask_percent])

    def minimums(self, sample_id: str) -> list[int]:
        """How many correct draws pass a ratio: without and (if it is on) with chance correction."""
        if (config := self.required.pism) is None:
            return []
        return pism.minimums(config, self.probe.draws, self.evidence[sample_id].text_only_M)

    def next_requests(self, sample: Sample) -> list[ProbeRequest]:
        """The requests that come next for a sample; empty when all its results are settled.

        Draws that are needed whatever their verdicts come together, all others one at a time.
        """
        if sample.sample_id in self.failed:
            return []
        evidence, percents = self.evidence[sample.sample_id], self.probe.mask_percents
        full_image = [ProbeRequest(sample, 0, draw) for draw in _undrawn(evidence.full_image_M)]
        text_only = [
            ProbeRequest(sample, 0, draw, text_only=True) for draw in _undrawn(evidence.text_only_M)
        ]
        return [*full_image, *text_only] or [
            ProbeRequest(sample, percents[row], draw)
            for row, draw in self._next_cells(sample.sample_id)
        ]

    def _next_cells(self, sample_id: str) -> list[tuple[int, int]]:
        """The cells (row, draw) of the sample's table that come next."""
        table_RK, required = self.evidence[sample_id].correct_RK, self.required
        if required.until is Until.grid:
            return next_draws(table_RK, until=Until.grid)
        config = required.pism or PismConfig()  # unused without PISM: minimums() is empty
        ratio_R = np.array(self.probe.mask_percents) / 100
        limits = ratio_R, config.hard_max, config.easy_min, config.easy_inclusive
        for minimum in self.minimums(sample_id):
            if cells := next_draws(table_RK, config.tau, required.until, *limits, minimum):
                return cells
        if required.first_correct and not (table_RK[0] == 1).any():  # row 0: the full image
            return [(0, draw) for draw in _undrawn(table_RK[0])[:1]]
        return []
