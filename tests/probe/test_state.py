"""One probe feeds all measures: what each asks for, and that nothing is asked twice."""

from pathlib import Path

import numpy as np
import pytest

from difftrain.config.difficulty import (
    ChanceCorrection,
    DifficultyConfig,
    Grid,
    PismConfig,
    ProbeConfig,
)
from difftrain.config.run_config import RunConfig
from difftrain.difficulty import pism
from difftrain.pipeline import parquet
from difftrain.probe.requests import ProbeRequest
from difftrain.probe.schedule import next_draws
from difftrain.probe.state import ProbeState, requirements
from difftrain.records import Measure, Rollout, Sample, Verdict, View

RATIOS = np.arange(10) / 10


def config(*measures: Measure, guess: ChanceCorrection = ChanceCorrection.none) -> RunConfig:
    found = RunConfig()
    found.difficulty = DifficultyConfig(measure=measures[0], extra_measures=list(measures[1:]))
    found.difficulty.pism.chance_correction = guess
    return found


def row(draw: ProbeRequest, right: bool) -> Rollout:
    return Rollout(
        sample_id=draw.sample.sample_id,
        view=draw.view,
        mask_percent=draw.percent,
        draw=draw.draw,
        seed=0,
        response="",
        num_tokens=1,
        token_ids=(1,),
        hit_eos=True,
        verdict=Verdict.correct if right else Verdict.incorrect,
    )


def settle(
    ledger: ProbeState, sample: Sample, truth: dict[tuple[View, int], np.ndarray]
) -> list[ProbeRequest]:
    """Ask until the sample is settled; the answers are known before."""
    asked: list[ProbeRequest] = []
    while draws := ledger.wanted(sample):
        assert not {(d.view, d.percent, d.draw) for d in draws} & {
            (d.view, d.percent, d.draw) for d in asked
        }
        asked += draws
        ledger.enter([row(d, bool(truth[d.view, d.percent][d.draw])) for d in draws])
    return asked


def truth(rng: np.random.Generator, masked: float = 0.9) -> dict[tuple[View, int], np.ndarray]:
    """What the model would say to every draw: less and less right as more is hidden."""
    skill, guess = rng.random() ** 0.5, rng.random() ** 2
    found = {}
    for percent in range(0, 100, 10):
        view = View.masked if percent else View.full_image
        found[view, percent] = rng.random(16) < skill * masked ** (percent / 10)
    found[View.text_only, 0] = rng.random(16) < guess
    return found


def ledger_of(made: RunConfig, sample: Sample, folder: Path) -> ProbeState:
    return ProbeState(folder, made.probe, [sample], requirements(made))


def count(draws: list[ProbeRequest], view: View) -> int:
    return sum(draw.view is view for draw in draws)


def test_the_second_papers_measures_climb_no_ladder(
    shapes_samples: list[Sample], tmp_path: Path
) -> None:
    for measures, whole, text_only in (
        ((Measure.drm, Measure.cde, Measure.ace), 5, 5),
        ((Measure.drm, Measure.ace), 5, 0),
        ((Measure.drm,), 5, 0),
    ):
        ledger = ledger_of(config(*measures), shapes_samples[0], tmp_path)
        asked = settle(ledger, shapes_samples[0], truth(np.random.default_rng(1)))
        assert count(asked, View.full_image) == whole
        assert count(asked, View.text_only) == text_only
        assert count(asked, View.masked) == 0


def test_pism_alone_asks_what_it_asked_before(shapes_samples: list[Sample], tmp_path: Path) -> None:
    for seed in range(50):
        known = truth(np.random.default_rng(seed))
        ledger = ledger_of(config(Measure.pism), shapes_samples[0], tmp_path)
        asked = settle(ledger, shapes_samples[0], known)
        table = np.full((10, 10), -1, dtype=np.int8)
        alone = 0
        while cells := next_draws(table, 0.1):
            ((rung, draw),) = cells
            view = View.masked if rung else View.full_image
            table[rung, draw] = known[view, rung * 10][draw]
            alone += 1
        assert len(asked) == alone
        assert (ledger.tables[shapes_samples[0].sample_id] == table).all()


def test_whole_pictures_are_shared_between_the_measures(
    shapes_samples: list[Sample], tmp_path: Path
) -> None:
    every = (Measure.pism, Measure.cmab, Measure.cde, Measure.ace, Measure.drm)
    sample = shapes_samples[0]
    for seed in range(50):
        known = truth(np.random.default_rng(seed))
        alone = settle(ledger_of(config(Measure.pism), sample, tmp_path), sample, known)
        ledger = ledger_of(config(*every), sample, tmp_path)
        asked = settle(ledger, sample, known)
        laddered = count(alone, View.full_image)
        assert count(asked, View.full_image) == max(5, laddered)
        assert count(asked, View.text_only) == 5
        assert count(asked, View.masked) == count(alone, View.masked)


def test_more_rollouts_than_draws_do_not_enter_pisms_table(
    shapes_samples: list[Sample], tmp_path: Path
) -> None:
    made = config(Measure.pism, Measure.cde, Measure.drm)
    made.probe.cde_rollouts, made.probe.draws = 12, 4
    known = truth(np.random.default_rng(1))
    known[View.full_image, 0] = np.array([0] * 4 + [1] * 12)
    ledger = ledger_of(made, shapes_samples[0], tmp_path)
    asked = settle(ledger, shapes_samples[0], known)
    assert count(asked, View.full_image) == 12
    table = ledger.tables[shapes_samples[0].sample_id]
    assert pism.failure_ratio(table, RATIOS) == 0.0
    assert count(asked, View.masked) == 0


def test_a_store_that_another_run_filled_is_completed(
    shapes_samples: list[Sample], tmp_path: Path
) -> None:
    sample, known = shapes_samples[0], truth(np.random.default_rng(4))
    first = settle(ledger_of(config(Measure.pism), sample, tmp_path), sample, known)
    parquet.write_part(
        tmp_path, "00000", [row(d, bool(known[d.view, d.percent][d.draw])) for d in first]
    )
    ledger = ledger_of(config(Measure.pism, Measure.cde, Measure.drm), sample, tmp_path)
    ledger.refresh()
    second = settle(ledger, sample, known)
    assert count(second, View.masked) == 0
    assert count(second, View.full_image) == max(0, 5 - count(first, View.full_image))
    assert ledger.generations == len(first) + len(second)


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.3])
def test_chance_aware_early_stopping_gives_both_labels_of_the_full_grid(
    shapes_samples: list[Sample], tmp_path: Path, alpha: float
) -> None:
    sample, saved = shapes_samples[0], 0
    for seed in range(200):
        known = truth(np.random.default_rng(seed), masked=0.8)
        made = config(Measure.pism, guess=ChanceCorrection.text_only)
        made.difficulty.pism.alpha = alpha
        early = ledger_of(made, sample, tmp_path)
        asked = settle(early, sample, known)
        made.probe.grid = Grid.full
        full = ledger_of(made, sample, tmp_path)
        saved += len(settle(full, sample, known)) - len(asked)
        for least in full.leasts(sample.sample_id):
            found = [
                pism.failure_ratio(each.tables[sample.sample_id], RATIOS, least=least)
                for each in (early, full)
            ]
            assert found[0] == found[1]
    assert saved > 0


def test_a_rung_that_can_never_pass_is_not_asked() -> None:
    table = np.full((3, 4), -1, dtype=np.int8)
    assert next_draws(table, least=5) == []
    assert pism.failure_ratio(table, np.arange(3) / 3, least=5) == 0.0


def test_the_chance_aware_bound_is_the_binomial_tail() -> None:
    from scipy.stats import binom

    for rate in np.linspace(0.02, 0.98, 25):
        for alpha in (0.01, 0.05, 0.2):
            least = PismConfig(alpha=alpha).least(10, float(rate))
            if least <= 10:
                assert binom.sf(least - 1, 10, rate) <= alpha + 1e-9
            if least > 1:
                assert binom.sf(least - 2, 10, rate) > alpha


def test_guessing_never_lowers_the_bound_and_tau_still_counts() -> None:
    assert PismConfig().least(10) == 1
    assert PismConfig(tau=0.9).least(10, 0.1) == 9
    assert PismConfig().least(10, 6 / 7) == 11


def test_the_guess_rate_is_laplace_smoothed_and_needs_every_draw() -> None:
    assert PismConfig().guess_rate([1, 0, 0, 0, 0]) == 2 / 7
    with pytest.raises(ValueError, match="text-only verdicts"):
        PismConfig().guess_rate([1, -1])


def test_the_probe_config_refuses_no_rollouts() -> None:
    assert dict(ProbeConfig(cde_rollouts=0).check()) == {"cde_rollouts": "must be at least 1"}
