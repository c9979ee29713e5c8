"""Which draws the probe makes for which difficulty measures, and that it makes no draw twice.

A draw is one sampled response: with the full image, with a masked image, or without the image.
PISM (progressive image semantic masking) needs draws with more and more of the image hidden. CMAB
(cross-modality attention balance) needs full-image draws until one is correct. Of the measures of
the paper RAP, CDE (causal discrepancy) needs draws with and without the image. DRM
(difficulty-aware replacement) and ACE (attention confidence) need the full image only.

PISM's label is the failure ratio: the first mask ratio at which the model fails. Its stratum (easy,
medium, hard or unsolved) follows from this ratio. The setting probe.until says how long to draw:
Until.ratio (the default) until the failure ratio is certain, Until.stratum until the stratum is
certain, Until.grid until every ratio has all of its draws.

Axes: R mask ratios, K draws at every ratio, M rollouts (graded draws) for CDE and DRM.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from difftrain.config.difficulty import ChanceCorrection, DifficultyConfig, ProbeConfig, Until
from difftrain.config.run_config import RunConfig, problems
from difftrain.difficulty import pism
from difftrain.pipeline import parquet
from difftrain.probe.schedule import ProbeRequest, ProbeState, next_draws, requirements
from difftrain.records import Measure, Sample, View
from tests.probe.rollouts import rollout_of

RATIOS = np.arange(10) / 10


def config_of(
    *measures: Measure, correction: ChanceCorrection = ChanceCorrection.none
) -> RunConfig:
    """Default settings (K = 10 draws, M = 5 rollouts) with these measures."""
    config = RunConfig()
    config.difficulty = DifficultyConfig(measure=measures[0], extra_measures=list(measures[1:]))
    config.difficulty.pism.chance_correction = correction
    config.probe.until = Until.ratio
    return config


def settle(
    state: ProbeState, sample: Sample, truth: dict[tuple[View, int], np.ndarray]
) -> list[ProbeRequest]:
    """The requests until no measure needs another; `truth` has whether each draw is correct."""
    drawn: list[ProbeRequest] = []
    while requests := state.next_requests(sample):
        assert not set(requests) & set(drawn)
        drawn += requests
        state.add([rollout_of(r, bool(truth[r.view, r.percent][r.draw])) for r in requests])
    return drawn


def random_truth(
    rng: np.random.Generator, decay: float = 0.9
) -> dict[tuple[View, int], np.ndarray]:
    """By view and mask percent: whether each of 16 draws is correct.

    Every further 10 % hidden multiplies the accuracy by `decay`.
    """
    accuracy, guess_rate = rng.random() ** 0.5, rng.random() ** 2
    truth = {}
    for percent in range(0, 100, 10):
        view = View.masked if percent else View.full_image
        truth[view, percent] = rng.random(16) < accuracy * decay ** (percent / 10)
    truth[View.text_only, 0] = rng.random(16) < guess_rate
    return truth


def state_of(config: RunConfig, sample: Sample, folder: Path) -> ProbeState:
    return ProbeState(folder, config, [sample])


def count(requests: list[ProbeRequest], view: View) -> int:
    return sum(request.view is view for request in requests)


def test_the_measures_of_rap_need_no_masked_draws(
    shapes_samples: list[Sample], tmp_path: Path
) -> None:
    for measures, num_full_image, num_text_only in (
        ((Measure.drm, Measure.cde, Measure.ace), 5, 5),
        ((Measure.drm, Measure.ace), 5, 0),
        ((Measure.drm,), 5, 0),
    ):
        state = state_of(config_of(*measures), shapes_samples[0], tmp_path)
        drawn = settle(state, shapes_samples[0], random_truth(np.random.default_rng(1)))
        assert count(drawn, View.full_image) == num_full_image
        assert count(drawn, View.text_only) == num_text_only
        assert count(drawn, View.masked) == 0


@pytest.mark.parametrize("until", Until)
def test_a_probe_for_pism_alone_makes_the_draws_of_next_draws(
    shapes_samples: list[Sample], tmp_path: Path, until: Until
) -> None:
    for seed in range(50):
        truth = random_truth(np.random.default_rng(seed))
        config = config_of(Measure.pism)
        config.probe.until = until
        state = state_of(config, shapes_samples[0], tmp_path)
        drawn = settle(state, shapes_samples[0], truth)
        table = np.full((10, 10), -1, dtype=np.int8)
        num_scheduled = 0
        while cells := next_draws(table, config.difficulty.pism.tau, until):
            for row, draw in cells:
                view = View.masked if row else View.full_image
                table[row, draw] = truth[view, row * 10][draw]
                num_scheduled += 1
        assert len(drawn) == num_scheduled
        assert (state.evidence[shapes_samples[0].sample_id].correct_RK == table).all()


def test_full_image_draws_are_shared_between_the_measures(
    shapes_samples: list[Sample], tmp_path: Path
) -> None:
    all_measures = (Measure.pism, Measure.cmab, Measure.cde, Measure.ace, Measure.drm)
    sample = shapes_samples[0]
    for seed in range(50):
        truth = random_truth(np.random.default_rng(seed))
        alone = settle(state_of(config_of(Measure.pism), sample, tmp_path), sample, truth)
        together = settle(state_of(config_of(*all_measures), sample, tmp_path), sample, truth)
        # CDE and DRM need five draws with the full image, and CDE five without it.
        assert count(together, View.full_image) == max(5, count(alone, View.full_image))
        assert count(together, View.text_only) == 5
        assert count(together, View.masked) == count(alone, View.masked)


def test_pism_uses_only_its_first_draws_if_another_measure_needs_more(
    shapes_samples: list[Sample], tmp_path: Path
) -> None:
    config = config_of(Measure.pism, Measure.cde, Measure.drm)
    config.probe.cde_rollouts, config.probe.draws = 12, 4
    truth = random_truth(np.random.default_rng(1))
    truth[View.full_image, 0] = np.array([0] * 4 + [1] * 12)
    state = state_of(config, shapes_samples[0], tmp_path)
    drawn = settle(state, shapes_samples[0], truth)
    assert count(drawn, View.full_image) == 12
    evidence = state.evidence[shapes_samples[0].sample_id]
    assert pism.failure_ratio(evidence.correct_RK, RATIOS) == 0.0  # the first four are incorrect
    assert evidence.full_image_M.sum() == 12 - 4
    assert count(drawn, View.masked) == 0


def test_in_the_folder_of_another_run_only_missing_draws_are_requested(
    shapes_samples: list[Sample], tmp_path: Path
) -> None:
    sample, truth = shapes_samples[0], random_truth(np.random.default_rng(4))
    first = settle(state_of(config_of(Measure.pism), sample, tmp_path), sample, truth)
    rollouts = [rollout_of(r, bool(truth[r.view, r.percent][r.draw])) for r in first]
    parquet.write_part(tmp_path, "00000", rollouts)
    config = config_of(Measure.pism, Measure.cde, Measure.drm)
    state = state_of(config, sample, tmp_path)
    state.refresh()
    second = settle(state, sample, truth)
    assert count(second, View.masked) == 0
    assert count(second, View.full_image) == max(0, 5 - count(first, View.full_image))
    assert state.num_generations == len(first) + len(second)


def labels(
    label: Callable[..., Any], states: Sequence[ProbeState], sample: Sample, minimum: int
) -> set[Any]:
    """The different labels of a sample by the draws of these probes."""
    tables = [state.evidence[sample.sample_id].correct_RK for state in states]
    return {label(correct_RK, RATIOS, minimum=minimum) for correct_RK in tables}


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.3])
def test_early_stopping_gives_the_corrected_and_the_uncorrected_label_of_the_full_grid(
    shapes_samples: list[Sample], tmp_path: Path, alpha: float
) -> None:
    """PISM's label is the first mask ratio at which the model fails.

    With chance correction, a ratio passes only if guessing gives so many correct draws with a
    probability of at most alpha. The guess rate comes from draws without the image.
    """
    sample, num_saved = shapes_samples[0], 0
    for seed in range(200):
        truth = random_truth(np.random.default_rng(seed), decay=0.8)
        config = config_of(Measure.pism, correction=ChanceCorrection.text_only)
        config.difficulty.pism.alpha = alpha
        early = state_of(config, sample, tmp_path)
        drawn = settle(early, sample, truth)
        config.probe.until = Until.grid
        full = state_of(config, sample, tmp_path)
        num_saved += len(settle(full, sample, truth)) - len(drawn)
        # minimum: number of correct draws that pass a ratio, without and with chance correction
        for minimum in full.minimums(sample.sample_id):
            ratios = labels(pism.failure_ratio, (early, full), sample, minimum)
            assert len(ratios) == 1
        config.probe.until = Until.stratum
        until_stratum = state_of(config, sample, tmp_path)
        assert len(settle(until_stratum, sample, truth)) <= len(drawn)
        for minimum in full.minimums(sample.sample_id):
            strata = labels(pism.settled_stratum, (until_stratum, full), sample, minimum)
            assert len(strata) == 1
            assert None not in strata
    assert num_saved > 0


def test_requirements_that_differ_are_described_differently() -> None:
    configs = [config_of(Measure.pism), config_of(Measure.drm), config_of(Measure.drm, Measure.cde)]
    for until in (Until.stratum, Until.grid):
        config = config_of(Measure.pism)
        config.probe.until = until
        configs.append(config)
    described = {requirements(c.difficulty, c.probe).describe(num_samples=4) for c in configs}
    assert len(described) == len(configs)


def test_the_probe_config_refuses_zero_rollouts() -> None:
    assert [*problems(ProbeConfig(cde_rollouts=0))] == ["cde_rollouts=0: must be at least 1"]
