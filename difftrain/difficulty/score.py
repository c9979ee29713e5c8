"""From rows to scores: rollouts and attention become tables, tables become one Score a sample.

Axes: R mask ratios, K draws, L layers, T response tokens.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from difftrain.config.difficulty import (
    CdeConfig,
    ChanceCorrection,
    CmabConfig,
    DifficultyConfig,
    DrmConfig,
    PismConfig,
    Tokens,
)
from difftrain.difficulty import cde, cmab, drm, pism
from difftrain.records import Attention, Measure, Rollout, Score, Verdict, View


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the probe knows of one sample: 1 right, 0 wrong or unreadable, -1 not drawn.

    `first_tokens` is the length of the first whole-picture response (None: not asked); `seen` has
    the attention rows by draw.
    """

    correct_RK: np.ndarray
    whole_M: np.ndarray
    text_only_M: np.ndarray
    first_tokens: int | None
    seen: dict[int, Attention]


def correctness_tables(
    rollouts: Iterable[Rollout], percents: Sequence[int], draws: int
) -> dict[str, np.ndarray]:
    """For each sample its int8 table R x K; draws beyond K, which are none of PISM's, stay out."""
    rows = {percent: row for row, percent in enumerate(percents)}
    found: dict[str, np.ndarray] = {}
    for each in rollouts:
        if each.sample_id not in found:
            found[each.sample_id] = np.full((len(percents), draws), -1, dtype=np.int8)
        if each.view is not View.text_only and each.draw < draws:
            right = each.verdict is Verdict.correct
            found[each.sample_id][rows[each.mask_percent], each.draw] = int(right)
    return found


def verdicts(rollouts: Iterable[Rollout], view: View, number: int) -> dict[str, np.ndarray]:
    """For each sample its first `number` verdicts under one view, as an int8 vector M."""
    found: dict[str, np.ndarray] = {}
    for each in rollouts:
        if each.view is view and each.draw < number:
            own = found.setdefault(each.sample_id, np.full(number, -1, dtype=np.int8))
            own[each.draw] = int(each.verdict is Verdict.correct)
    return found


def evidence(
    rollouts: Sequence[Rollout],
    attention: Iterable[Attention],
    percents: Sequence[int],
    draws: int,
    number: int,
) -> dict[str, Evidence]:
    """What a probe's rows say of each sample, with tables R x K and M = `number` rollouts."""
    whole = verdicts(rollouts, View.full_image, number)
    text_only = verdicts(rollouts, View.text_only, number)
    first = {
        each.sample_id: each.num_tokens
        for each in rollouts
        if each.view is View.full_image and each.draw == 0
    }
    seen: dict[str, dict[int, Attention]] = {}
    for each in attention:
        seen.setdefault(each.sample_id, {})[each.draw] = each
    none = np.full(number, -1, dtype=np.int8)
    return {
        key: Evidence(
            table,
            whole.get(key, none),
            text_only.get(key, none),
            first.get(key),
            seen.get(key, {}),
        )
        for key, table in correctness_tables(rollouts, percents, draws).items()
    }


def pism_score(sample_id: str, found: Evidence, ratio_R: np.ndarray, config: PismConfig) -> Score:
    """PISM's value (the failure ratio, None if it never fails) and stratum of one sample."""
    rate = None
    if config.chance_correction is ChanceCorrection.text_only:
        rate = config.guess_rate(found.text_only_M)
    least = config.least(found.correct_RK.shape[1], rate)
    value = pism.failure_ratio(found.correct_RK, ratio_R, config.tau, least)
    stratum = pism.stratum(value, config.hard_max, config.easy_min, config.easy_inclusive)
    return Score(sample_id=sample_id, measure=Measure.pism, value=value, stratum=stratum)


def cmab_score(sample_id: str, found: Evidence, config: CmabConfig) -> Score:
    """CMAB's balance and stratum; without a right whole-image answer the sample is unsolved.

    Raises ValueError for a solved sample whose attention was not measured.
    """
    right = np.flatnonzero(found.correct_RK[0] == 1)
    seen = found.seen.get(int(right[0])) if len(right) else None
    value = None
    if seen is not None:
        value = cmab.balance(np.array(seen.image_LT), np.array(seen.text_LT), config.epsilon)
        if config.tokens is Tokens.mean:
            value *= seen.text_tokens / seen.image_tokens
    stratum = cmab.stratum(
        value,
        bool(len(right)),
        config.easy_below,
        config.hard_min,
        config.hard_max,
        config.easy_above,
    )
    return Score(sample_id=sample_id, measure=Measure.cmab, value=value, stratum=stratum)


def cde_score(sample_id: str, found: Evidence, config: CdeConfig) -> Score:
    """CDE's discrepancy; it has no strata, only the threshold of the selection."""
    value = cde.discrepancy(found.whole_M, found.text_only_M, config.absolute)
    return Score(sample_id=sample_id, measure=Measure.cde, value=value, stratum=None)


def ace_score(sample_id: str, found: Evidence) -> Score:
    """ACE's largest log psi of the first whole-picture response; None if it is too short for one.

    Raises ValueError for a response with tokens whose attention was not measured.
    """
    seen = found.seen.get(0)
    if seen is None and found.first_tokens != 0:
        raise ValueError(f"the attention of {sample_id}'s first answer was not measured")
    value = seen.max_log_psi if seen is not None else None
    return Score(sample_id=sample_id, measure=Measure.ace, value=value, stratum=None)


def drm_score(sample_id: str, found: Evidence, config: DrmConfig) -> Score:
    """DRM's difficulty, and the stratum that the report shows."""
    value = drm.difficulty(found.whole_M)
    stratum = drm.stratum(value, config.hard_min)
    return Score(sample_id=sample_id, measure=Measure.drm, value=value, stratum=stratum)


def score_all(
    sample_ids: Sequence[str],
    known: dict[str, Evidence],
    percents: Sequence[int],
    config: DifficultyConfig,
) -> list[Score]:
    """One Score for each sample and wanted measure, in the order of the samples.

    Raises KeyError for a sample without rollouts and ValueError for what is not drawn yet.
    """
    ratio_R = np.array(percents) / 100
    score = {
        Measure.pism: lambda key: pism_score(key, known[key], ratio_R, config.pism),
        Measure.cmab: lambda key: cmab_score(key, known[key], config.cmab),
        Measure.cde: lambda key: cde_score(key, known[key], config.cde),
        Measure.ace: lambda key: ace_score(key, known[key]),
        Measure.drm: lambda key: drm_score(key, known[key], config.drm),
    }
    return [score[measure](key) for measure in config.measures for key in sample_ids]


def uncorrected_pism_scores(
    sample_ids: Sequence[str],
    known: dict[str, Evidence],
    percents: Sequence[int],
    config: PismConfig,
) -> list[Score]:
    """PISM's scores as the paper has them, beside the chance-aware ones; [] where these are it."""
    if config.chance_correction is ChanceCorrection.none:
        return []
    ratio_R, plain = (
        np.array(percents) / 100,
        replace(config, chance_correction=ChanceCorrection.none),
    )
    return [pism_score(key, known[key], ratio_R, plain) for key in sample_ids]
