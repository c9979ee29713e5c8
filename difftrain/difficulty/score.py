"""Turns the probe's rollouts (graded responses) and attention rows into difficulty scores.

PISM (progressive image semantic masking) and CMAB (cross-modality attention balance) are measures
of Qi et al. 2026; CDE (causal discrepancy), ACE (attention confidence) and DRM (difficulty-aware
replacement) of the paper RAP. Axes: R mask ratios, K draws (responses) at every ratio, M rollouts
with or without the image, L decoder layers, T response tokens.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

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


class Evidence:
    """What the probe measured of one sample. A verdict is 1 correct, 0 not, -1 not drawn.

    `full_image_M` has the first M draws at ratio 0 (M may differ from K). `first_num_tokens` is the
    length of draw 0 at ratio 0, or None if it was not drawn. `attention` has rows by draw.
    """

    def __init__(self, num_ratios: int, num_draws: int, num_full: int, num_text_only: int) -> None:
        self.correct_RK = np.full((num_ratios, num_draws), -1, dtype=np.int8)
        self.full_image_M = np.full(num_full, -1, dtype=np.int8)
        self.text_only_M = np.full(num_text_only, -1, dtype=np.int8)
        self.first_num_tokens: int | None = None
        self.attention: dict[int, Attention] = {}

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
    rollouts: Iterable[Rollout], attention: Iterable[Attention], probe: ProbeConfig
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
    return dict(evidence)


def pism_score(sample_id: str, evidence: Evidence, probe: ProbeConfig, config: PismConfig) -> Score:
    """PISM's value (the failure ratio; None if it never fails) and stratum of one sample.

    With probe.until=stratum the value is also None if the draws determine only the stratum. Raises
    ValueError if draws are missing.
    """
    table_RK, ratio_R = evidence.correct_RK, np.array(probe.mask_percents) / 100
    corrected = config.chance_correction is ChanceCorrection.text_only
    rate = pism.guess_rate(evidence.text_only_M) if corrected else None
    minimum = pism.min_correct(probe.draws, config.tau, rate, config.alpha)
    limits = (config.hard_max, config.easy_min, config.easy_inclusive)
    stratum = pism.settled_stratum(table_RK, ratio_R, minimum, *limits)
    value = None
    needs_ratio = probe.until is not Until.stratum or stratum is None
    undecided, _ = pism.undecided_rows(table_RK, minimum)
    if needs_ratio or not undecided:
        value = pism.failure_ratio(table_RK, ratio_R, minimum=minimum)
    return Score(sample_id=sample_id, measure=Measure.pism, value=value, stratum=stratum)


def score_sample(
    id_: str, measure: Measure, evidence: Evidence, probe: ProbeConfig, config: DifficultyConfig
) -> Score:
    """One measure's value and stratum of the sample with this id; CDE and ACE have no strata.

    Raises ValueError if draws are missing. CMAB also raises it if a solved sample has no attention
    row, and ACE if the first response has tokens but no attention row.
    """
    value, stratum = None, None
    match measure:
        case Measure.pism:
            return pism_score(id_, evidence, probe, config.pism)
        case Measure.cmab:
            cmab_config = config.cmab
            correct = np.flatnonzero(evidence.correct_RK[0] == 1)  # draws at ratio 0
            if len(correct) and (row := evidence.attention.get(int(correct[0]))):
                if not row.image_tokens:  # a text-only sample has no balance
                    return Score(sample_id=id_, measure=measure, value=None, stratum=None)
                tables = np.array(row.image_LT), np.array(row.text_LT)
                value = cmab.balance(*tables, cmab_config.epsilon)
                if cmab_config.tokens is Tokens.mean:  # attention per token, not in total
                    value *= row.text_tokens / row.image_tokens
            limits = cmab_config.easy_below, cmab_config.hard_min, cmab_config.hard_max
            stratum = cmab.stratum(value, bool(len(correct)), *limits, cmab_config.easy_above)
        case Measure.cde:
            tables = evidence.full_image_M, evidence.text_only_M
            value = cde.discrepancy(*tables, config.cde.absolute)
        case Measure.ace:
            if row := evidence.attention.get(0):  # of draw 0, the first response
                value = row.max_log_psi  # ACE's value, computed by the attention pass
            elif evidence.first_num_tokens != 0:
                raise ValueError(f"the attention of {id_}'s first response was not measured")
        case Measure.drm:
            value = drm.difficulty(evidence.full_image_M)
            stratum = drm.stratum(value, config.drm.hard_min)
    return Score(sample_id=id_, measure=measure, value=value, stratum=stratum)


def score_all(
    sample_ids: Sequence[str],
    evidence: dict[str, Evidence],
    probe: ProbeConfig,
    config: DifficultyConfig,
) -> list[Score]:
    """One Score for each requested measure and sample, in the order of the samples.

    Raises KeyError if a sample has no rollouts, and ValueError if draws are missing.
    """
    return [
        score_sample(sample_id, measure, evidence[sample_id], probe, config)
        for measure in config.measures
        for sample_id in sample_ids
    ]


def uncorrected_pism_scores(
    sample_ids: Sequence[str], evidence: dict[str, Evidence], probe: ProbeConfig, config: PismConfig
) -> list[Score]:
    """PISM's scores without the chance correction, for comparison; [] if the correction is off."""
    if config.chance_correction is ChanceCorrection.none:
        return []
    uncorrected = replace(config, chance_correction=ChanceCorrection.none)
    return [pism_score(id_, evidence[id_], probe, uncorrected) for id_ in sample_ids]
