"""What is asked next, and that rows depend neither on batch size nor on the number of ranks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from difftrain.config.difficulty import DifficultyConfig
from difftrain.config.run_config import RunConfig
from difftrain.model.engines.hf import BatchLimits, HfEngine
from difftrain.model.loading import LoadedModel
from difftrain.pipeline import parquet
from difftrain.pipeline.coordination import World
from difftrain.probe import run
from difftrain.probe.requests import ProbeRequest
from difftrain.probe.run import RequestQueue
from difftrain.probe.state import ProbeState, requirements
from difftrain.records import Measure, Rollout, Sample, Verdict, View


def settings(*also: Measure) -> RunConfig:
    made = RunConfig()
    made.difficulty = DifficultyConfig(measure=Measure.pism, extra_measures=list(also))
    made.probe.mask_percents, made.probe.draws, made.probe.cde_rollouts = [0, 40, 80], 3, 3
    made.probe.max_new_tokens = 12
    return made


def answered(draw: ProbeRequest, right: bool) -> Rollout:
    return Rollout(
        sample_id=draw.sample.sample_id, view=draw.view, mask_percent=draw.percent,
        draw=draw.draw, seed=0, response="", num_tokens=1, token_ids=(1,), hit_eos=True,
        verdict=Verdict.correct if right else Verdict.incorrect,
    )  # fmt: skip


@pytest.fixture
def pending(shapes_samples: list[Sample], tmp_path: Path) -> RequestQueue:
    made = settings(Measure.cde)
    ledger = ProbeState(tmp_path, made.probe, shapes_samples, requirements(made))
    return RequestQueue(ledger, shapes_samples, made.probe, made.seed)


def test_a_begun_sample_is_asked_on_before_another_is_begun(pending: RequestQueue) -> None:
    """With room for eight, no more than eight samples are open; every prompt stays remembered."""
    rng, flying = np.random.default_rng(1), []
    begun: dict[str, None] = {}
    settled: set[str] = set()
    while True:
        flying += pending.more(8 - len(flying))
        if not flying:
            break
        begun |= {draw.sample.sample_id: None for draw, _ in flying}
        assert len(begun.keys() - settled) <= 8
        draw, _ = flying.pop(int(rng.integers(len(flying))))
        pending.ledger.enter([answered(draw, bool(rng.random() < 0.4))])
        pending.answered(draw)
        if draw.sample.sample_id not in pending.open:
            settled.add(draw.sample.sample_id)
    assert pending.unsettled == 0
    assert len(settled) == 24
    assert pending.unmasked == {}


def test_only_draws_that_show_the_same_name_the_same_view(pending: RequestQueue) -> None:
    asked = pending.more(12)
    names: dict[str, tuple] = {}
    for draw, request in asked:
        assert draw.view is not View.masked
        assert request.view is not None
        assert names.setdefault(request.view, request.parts) == request.parts
    assert len({request.seed for _, request in asked}) == 12
    for draw, _ in asked:
        pending.ledger.enter([answered(draw, True)])
        pending.answered(draw)
    masked = [(draw, made) for draw, made in pending.more(4) if draw.view is View.masked]
    assert masked
    assert all(made.view is None for _, made in masked)


def test_a_sample_set_aside_is_asked_no_more(pending: RequestQueue) -> None:
    ((draw, _),) = pending.more(1)
    key = draw.sample.sample_id
    waiting = len(pending.queue)
    of_it = pending.open[key] - 1
    assert of_it > 1
    pending.ledger.aside[key] = "too long"
    pending.answered(draw)
    asked = [each for each, _ in pending.more(waiting)]
    assert len(asked) == waiting - of_it
    assert key not in {each.sample.sample_id for each in asked}
    assert key not in pending.open
    assert pending.unsettled == 23
    assert not any(name == key for name, _ in pending.unmasked)


def probed(
    tiny: LoadedModel, samples: Sequence[Sample], folder: Path, made: RunConfig, size: int
) -> list[Rollout]:
    """The rows of a probe by so many ranks, one after another."""
    for rank in range(size):
        world = World(rank, size)
        ledger = ProbeState(folder, made.probe, samples, requirements(made))
        ledger.refresh()
        engine = HfEngine(tiny, BatchLimits.of(made.model))
        run.run_share(engine, world.share(samples), ledger, made, world)
    rows = parquet.read(folder, Rollout)
    return sorted(rows, key=lambda row: (row.sample_id, row.view, row.mask_percent, row.draw))


def test_in_deterministic_mode_rows_are_the_same_for_any_batch_and_number_of_ranks(
    tiny: LoadedModel, shapes_samples: list[Sample], tmp_path: Path
) -> None:
    found = []
    for batch_size, ranks in ((64, 1), (2, 3)):
        made = settings(Measure.cde)
        made.model.deterministic, made.model.batch_size = True, batch_size
        folder = tmp_path / f"{batch_size}"
        found.append(probed(tiny, shapes_samples[:10], folder, made, ranks))
    assert found[0] == found[1]
    assert len(found[0]) > 60


def test_without_it_draws_seeds_and_all_but_float_ties_are_the_same(
    tiny: LoadedModel, shapes_samples: list[Sample], tmp_path: Path
) -> None:
    found = []
    for batch_size, ranks in ((64, 1), (5, 2)):
        made = settings(Measure.cde)
        made.model.batch_size = batch_size
        folder = tmp_path / f"{batch_size}"
        found.append(probed(tiny, shapes_samples[:10], folder, made, ranks))
    same = sum(one in found[1] for one in found[0])
    assert same >= 0.98 * max(map(len, found))
