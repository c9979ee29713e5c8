"""From rows to scores: rollouts and attention become tables, tables become one Score a sample.

Axes: R mask ratios, K draws, L layers, T response tokens.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from difftrain.difficulty import cmab, pism
from difftrain.difficulty.config import CmabConfig, DifficultyConfig, PismConfig, Tokens
from difftrain.records import Attention, Measure, Rollout, Score, Verdict, View


def tables(
    rollouts: Iterable[Rollout], percents: Sequence[int], draws: int
) -> dict[str, np.ndarray]:
    """For each sample its int8 table R x K: 1 right, 0 wrong or unreadable, -1 not drawn."""
    rows = {percent: row for row, percent in enumerate(percents)}
    found: dict[str, np.ndarray] = {}
    for each in rollouts:
        if each.view is View.text_only:
            continue
        if each.sample_id not in found:
            found[each.sample_id] = np.full((len(percents), draws), -1, dtype=np.int8)
        right = each.verdict is Verdict.right
        found[each.sample_id][rows[each.mask_percent], each.draw] = int(right)
    return found


def pism_score(
    sample_id: str, correct_RK: np.ndarray, ratio_R: np.ndarray, config: PismConfig
) -> Score:
    """PISM's value (the failure ratio, None if it never fails) and stratum of one sample."""
    value = pism.failure_ratio(correct_RK, ratio_R, config.tau)
    stratum = pism.stratum(value, config.hard_upto, config.easy_from, config.easy_inclusive)
    return Score(sample_id=sample_id, measure=Measure.pism, value=value, stratum=stratum)


def cmab_score(sample_id: str, solved: bool, seen: Attention | None, config: CmabConfig) -> Score:
    """CMAB's balance and stratum; without a right whole-image answer the sample is unsolved.

    Raises ValueError for a solved sample whose attention was not measured.
    """
    value = None
    if seen is not None:
        value = cmab.balance(np.array(seen.image_LT), np.array(seen.text_LT), config.epsilon)
        if config.tokens is Tokens.mean:
            value *= seen.text_tokens / seen.image_tokens
    stratum = cmab.stratum(
        value,
        solved,
        config.easy_below,
        config.hard_from,
        config.hard_upto,
        config.easy_above,
    )
    return Score(sample_id=sample_id, measure=Measure.cmab, value=value, stratum=stratum)


def scores(
    sample_ids: Sequence[str],
    table: Mapping[str, np.ndarray],
    attention: Mapping[str, Attention],
    percents: Sequence[int],
    config: DifficultyConfig,
) -> list[Score]:
    """One Score for each sample and wanted measure, in the order of the samples.

    Raises KeyError for a sample without rollouts and ValueError for an unsettled table.
    """
    ratio_R = np.array(percents) / 100
    found: list[Score] = []
    for measure in config.wanted:
        for sample_id in sample_ids:
            if measure is Measure.pism:
                found.append(pism_score(sample_id, table[sample_id], ratio_R, config.pism))
            elif measure is Measure.cmab:
                solved = bool((table[sample_id][0] == 1).any())
                seen = attention.get(sample_id) if solved else None
                found.append(cmab_score(sample_id, solved, seen, config.cmab))
            else:
                raise NotImplementedError(f"{measure} is not scored yet")
    return found
