"""From rollouts and attention rows to one Score for each sample and measure.

Axes: R mask ratios, K draws, M rollouts with or without the image, L layers, T response tokens.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from difftrain.config.difficulty import (
    ChanceCorrection,
    DifficultyConfig,
    PismConfig,
    ProbeConfig,
    Tokens,
    Until,
)
from difftrain.difficulty import cde, cmab, drm, pism
from difftrain.records import Attention, Measure, Rollout, Score, Verdict, View


@dataclass(frozen=True, slots=True)
class Correctness:
    """Which draws of one sample are correct: 1, 0 (incorrect or unparsable), -1 not drawn.

    `full_image_M` are the first M draws of the ratio 0, which need not be its K draws.
    """

    correct_RK: np.ndarray
    full_image_M: np.ndarray
    text_only_M: np.ndarray

    @classmethod
    def undrawn(cls, ratios: int, draws: int, full_image: int, text_only: int) -> "Correctness":
        """Tables of these sizes without any draw."""
        shapes = ((ratios, draws), (full_image,), (text_only,))
        return cls(*(np.full(shape, -1, dtype=np.int8) for shape in shapes))

    def add(self, rollout: Rollout, row: int) -> None:
        """Enter a rollout, whose mask ratio has this row; draws beyond the tables are ignored."""
        if rollout.view is View.text_only:
            tables = [self.text_only_M]
        elif rollout.view is View.full_image:
            tables = [self.correct_RK[row], self.full_image_M]
        else:
            tables = [self.correct_RK[row]]
        for table in tables:
            if rollout.draw < len(table):
                table[rollout.draw] = int(rollout.verdict is Verdict.correct)


@dataclass(slots=True)
class Evidence:
    """What the probe measured of one sample: correctness, and attention rows by draw.

    `first_tokens` is the length of the first full-image response; None if it was not drawn.
    """

    correctness: Correctness
    first_tokens: int | None = None
    attention: dict[int, Attention] = field(default_factory=dict)


def gather_evidence(
    rollouts: Iterable[Rollout], attention: Iterable[Attention], probe: ProbeConfig
) -> dict[str, Evidence]:
    """The evidence of each sample that has rollouts."""
    row_of = {percent: row for row, percent in enumerate(probe.mask_percents)}
    sizes = (len(row_of), probe.draws, probe.cde_rollouts, probe.cde_rollouts)
    evidence: dict[str, Evidence] = {}
    for rollout in rollouts:
        if rollout.sample_id not in evidence:
            evidence[rollout.sample_id] = Evidence(Correctness.undrawn(*sizes))
        sample = evidence[rollout.sample_id]
        sample.correctness.add(rollout, row_of[rollout.mask_percent])
        if rollout.view is View.full_image and rollout.draw == 0:
            sample.first_tokens = rollout.num_tokens
    for row in attention:
        if row.sample_id in evidence:
            evidence[row.sample_id].attention[row.draw] = row
    return evidence


def pism_score(sample_id: str, evidence: Evidence, probe: ProbeConfig, config: PismConfig) -> Score:
    """PISM's value (the failure ratio; None if it never fails) and stratum of one sample.

    With probe.until=stratum the value is None too where only the stratum is settled. Raises
    ValueError for draws that are missing.
    """
    table_RK = evidence.correctness.correct_RK
    ratio_R = np.array(probe.mask_percents) / 100
    rate = None
    if config.chance_correction is ChanceCorrection.text_only:
        rate = pism.guess_rate(evidence.correctness.text_only_M)
    minimum = pism.min_correct(probe.draws, config.tau, rate, config.alpha)
    limits = (config.hard_max, config.easy_min, config.easy_inclusive)
    stratum = pism.settled_stratum(table_RK, ratio_R, minimum, *limits)
    value = None
    needs_ratio = probe.until is not Until.stratum or stratum is None
    if needs_ratio or not pism.undecided_rows(table_RK, minimum)[0]:
        value = pism.failure_ratio(table_RK, ratio_R, config.tau, minimum)
    return Score(sample_id=sample_id, measure=Measure.pism, value=value, stratum=stratum)


def score_sample(
    sample_id: str,
    measure: Measure,
    evidence: Evidence,
    probe: ProbeConfig,
    config: DifficultyConfig,
) -> Score:
    """One sample's value and stratum by one measure; CDE and ACE have no strata.

    Raises ValueError for draws that are missing, for a solved sample whose attention CMAB needs and
    for a first response with tokens whose attention ACE needs, where it was not measured.
    """
    tables, value, stratum = evidence.correctness, None, None
    match measure:
        case Measure.pism:
            return pism_score(sample_id, evidence, probe, config.pism)
        case Measure.cmab:
            correct = np.flatnonzero(tables.correct_RK[0] == 1)
            row = evidence.attention.get(int(correct[0])) if len(correct) else None
            limits = config.cmab
            if row is not None:
                value = cmab.balance(np.array(row.image_LT), np.array(row.text_LT), limits.epsilon)
                if limits.tokens is Tokens.mean:
                    value *= row.text_tokens / row.image_tokens
            bounds = (limits.easy_below, limits.hard_min, limits.hard_max, limits.easy_above)
            stratum = cmab.stratum(value, bool(len(correct)), *bounds)
        case Measure.cde:
            absolute = config.cde.absolute
            value = cde.discrepancy(tables.full_image_M, tables.text_only_M, absolute)
        case Measure.ace:
            row = evidence.attention.get(0)
            if row is None and evidence.first_tokens != 0:
                raise ValueError(f"the attention of {sample_id}'s first response was not measured")
            value = row.max_log_psi if row is not None else None
        case Measure.drm:
            value = drm.difficulty(tables.full_image_M)
            stratum = drm.stratum(value, config.drm.hard_min)
    return Score(sample_id=sample_id, measure=measure, value=value, stratum=stratum)


def score_all(
    sample_ids: Sequence[str],
    evidence: dict[str, Evidence],
    probe: ProbeConfig,
    config: DifficultyConfig,
) -> list[Score]:
    """One Score for each requested measure and sample, in the order of the samples.

    Raises KeyError for a sample without rollouts and ValueError for draws that are missing.
    """
    return [
        score_sample(key, measure, evidence[key], probe, config)
        for measure in config.measures
        for key in sample_ids
    ]


def uncorrected_pism_scores(
    sample_ids: Sequence[str], evidence: dict[str, Evidence], probe: ProbeConfig, config: PismConfig
) -> list[Score]:
    """PISM's scores without the chance correction, beside those with it; [] where it is off."""
    if config.chance_correction is ChanceCorrection.none:
        return []
    uncorrected = replace(config, chance_correction=ChanceCorrection.none)
    return [pism_score(key, evidence[key], probe, uncorrected) for key in sample_ids]
