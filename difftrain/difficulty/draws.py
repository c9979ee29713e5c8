"""Which full-image responses a run makes of a sample, and so may use.

Runs share the probe's folder, and another run may have made more draws there. A value that depends
on all draws in the folder would then depend on that other run. Axes: K draws, M rollouts.
"""

import numpy as np

from difftrain.config.difficulty import DifficultyConfig, ProbeConfig, Until
from difftrain.difficulty import pism
from difftrain.difficulty.definition import probe_draws
from difftrain.difficulty.evidence import Evidence
from difftrain.records import Measure


def draws_to_settle(correct_K: np.ndarray, minimum: int) -> int:
    """How many draws it takes until `minimum` are correct, or until this cannot happen any more."""
    num_correct = np.concatenate([[0], np.cumsum(correct_K == 1)])  # after 0, 1, ... K draws
    possible = num_correct + len(correct_K) - np.arange(len(correct_K) + 1)
    return int(np.argmax((num_correct >= minimum) | (possible < minimum)))


def full_image_verdicts(
    evidence: Evidence, config: DifficultyConfig, probe: ProbeConfig
) -> np.ndarray:
    """The verdicts (1 correct, 0 not) of the full-image draws that these settings need.

    Draws are made in their order, so they are a beginning of all draws. Raises ValueError if one of
    them is missing.
    """
    row_K, needs = evidence.correct_RK[0], probe_draws(config, probe)
    counts = [needs.full_image]
    if probe.until is Until.grid:
        counts.append(len(row_K))
    if Measure.pism in config.measures:
        minimums = pism.minimums(config.pism, probe.draws, evidence.text_only_M)
        counts += [draws_to_settle(row_K, minimum) for minimum in minimums]
    if needs.first_correct:
        counts.append(draws_to_settle(row_K, 1))
    longer = max(row_K, evidence.full_image_M, key=len)
    verdicts = longer[: max(counts)]
    if not len(verdicts) or (verdicts < 0).any():
        raise ValueError(f"expected {max(counts)} full-image draws, not {verdicts.tolist()}")
    return verdicts
