"""The order of the probe's requests, and equal rows for any batch size and number of ranks.

The probe samples responses (draws) for two difficulty measures here: PISM (progressive image
semantic masking) needs draws with more and more of the image hidden, CDE (causal discrepancy) draws
with and without the image. A view says whether the image is full, masked or absent.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from difftrain.config.difficulty import DifficultyConfig, GradeConfig
from difftrain.config.run_config import RunConfig
from difftrain.model.engines.hf import HfEngine
from difftrain.model.engines.types import Completion
from difftrain.model.loading import LoadedModel
from difftrain.pipeline import parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.stage import Heartbeat
from difftrain.probe import run
from difftrain.probe.run import GradingQueue, RequestQueue
from difftrain.probe.schedule import ProbeRequest, ProbeState
from difftrain.records import AnswerKind, Measure, Rollout, Sample, Verdict, View
from tests.probe.rollouts import rollout_of

NUM_SAMPLES = 24  # of the fixture shapes_samples


def config_with(*extra_measures: Measure) -> RunConfig:
    """A probe for PISM and these measures, with three draws for every view and mask ratio."""
    config = RunConfig()
    config.difficulty = DifficultyConfig(extra_measures=list(extra_measures))
    config.probe.mask_percents, config.probe.draws, config.probe.cde_rollouts = [0, 40, 80], 3, 3
    config.probe.max_new_tokens = 12
    return config


def state_of(config: RunConfig, samples: Sequence[Sample], folder: Path) -> ProbeState:
    return ProbeState(folder, config, samples)


@pytest.fixture
def queue(shapes_samples: list[Sample], tmp_path: Path) -> RequestQueue:
    """The queue of a new probe for PISM and CDE."""
    config = config_with(Measure.cde)
    state = state_of(config, shapes_samples, tmp_path)
    return RequestQueue(state, shapes_samples, config.seed)


def test_a_begun_sample_is_continued_before_another_is_begun(queue: RequestQueue) -> None:
    """With at most eight requests at a time, at most eight samples are in progress."""
    rng, in_flight = np.random.default_rng(1), []
    begun: set[str] = set()
    settled: set[str] = set()
    while True:
        in_flight += queue.next_requests(8 - len(in_flight))
        if not in_flight:
            break
        begun |= {request.sample.sample_id for request, _ in in_flight}
        assert len(begun - settled) <= 8
        request, _ = in_flight.pop(int(rng.integers(len(in_flight))))
        is_correct = bool(rng.random() < 0.4)
        queue.state.add([rollout_of(request, is_correct)])
        queue.finish(request)
        if request.sample.sample_id not in queue.open_counts:
            settled.add(request.sample.sample_id)
    assert not queue.open_counts
    assert len(settled) == NUM_SAMPLES
    assert queue.unmasked == {}  # no decoded image remains in memory


def test_requests_name_the_same_view_only_if_they_have_the_same_parts(queue: RequestQueue) -> None:
    requests = queue.next_requests(12)  # two samples, each three times with and without the image
    parts: dict[str, tuple] = {}
    for request, engine_request in requests:
        assert request.view is not View.masked
        assert engine_request.view is not None
        assert parts.setdefault(engine_request.view, engine_request.parts) == engine_request.parts
    assert len({engine_request.seed for _, engine_request in requests}) == 12
    for request, _ in requests:
        queue.state.add([rollout_of(request, correct=True)])
        queue.finish(request)
    next_requests = queue.next_requests(4)
    views = [engine.view for probe, engine in next_requests if probe.view is View.masked]
    assert views
    assert set(views) == {None}  # every mask is different


def test_a_failed_sample_gets_no_further_requests(queue: RequestQueue) -> None:
    ((request, _),) = queue.next_requests(1)
    sample_id, num_waiting = request.sample.sample_id, len(queue.waiting)
    num_waiting_of_sample = queue.open_counts[sample_id] - 1
    assert num_waiting_of_sample > 1
    queue.state.failed[sample_id] = "too long"
    queue.finish(request)
    requests = [request for request, _ in queue.next_requests(num_waiting)]
    assert len(requests) == num_waiting - num_waiting_of_sample
    assert sample_id not in {request.sample.sample_id for request in requests}
    assert sample_id not in queue.open_counts
    assert len(queue.open_counts) == NUM_SAMPLES - 1
    assert not any(id_ == sample_id for id_, _ in queue.unmasked)


@pytest.mark.parametrize("in_thread", [True, False])
def test_graded_responses_keep_their_order(in_thread: bool, shapes_samples: list[Sample]) -> None:
    """Also where one takes long: a worker must start to compare these expressions."""
    expression = replace(shapes_samples[0], answer_kind=AnswerKind.number, answer=r"\sqrt{8}")
    grading = GradingQueue(in_thread)
    requests = [ProbeRequest(expression, 0, draw) for draw in range(4)]
    for request, answer in zip(
        requests, [r"2\sqrt{2}", "3", r"\sqrt{7}", r"\sqrt{8}"], strict=True
    ):
        completion = Completion(f"<think>.</think><answer>{answer}</answer>", (1,), hit_eos=True)
        grading.add(request, completion, 1, GradeConfig())
    graded: list[tuple[ProbeRequest, Rollout]] = []
    while len(grading):
        before = len(graded)
        graded += grading.finished(None)
        assert len(graded) > before
    grading.close()
    assert [request for request, _ in graded] == requests
    verdicts = [rollout.verdict for _, rollout in graded]
    correct, incorrect = Verdict.correct, Verdict.incorrect
    assert verdicts == [correct, incorrect, incorrect, correct]


def probe_rows(
    tiny: LoadedModel, samples: Sequence[Sample], folder: Path, config: RunConfig, num_ranks: int
) -> list[Rollout]:
    """The rows of a probe that the ranks run one after another."""
    for rank in range(num_ranks):
        world = World(rank, num_ranks)
        state = state_of(config, samples, folder)
        state.refresh()
        engine = HfEngine(tiny, config.model)
        heart = Heartbeat(folder, world)
        run.probe_share(engine, world.share(samples), state, config, config.seed, heart)
    rows = parquet.read_rows(folder, Rollout)
    return sorted(rows, key=lambda row: (row.sample_id, row.view, row.mask_percent, row.draw))


def test_in_deterministic_mode_rows_do_not_depend_on_batch_size_or_number_of_ranks(
    tiny: LoadedModel, shapes_samples: list[Sample], tmp_path: Path
) -> None:
    rows = []
    for batch_size, num_ranks in ((64, 1), (2, 3)):
        config = config_with(Measure.cde)
        config.model.deterministic, config.model.batch_size = True, batch_size
        folder = tmp_path / f"{batch_size}"
        rows.append(probe_rows(tiny, shapes_samples[:10], folder, config, num_ranks))
    assert rows[0] == rows[1]
    assert len(rows[0]) > 60  # at least three with and three without the image for ten samples


def test_images_prepared_by_workers_give_the_same_rows(
    tiny: LoadedModel, shapes_samples: list[Sample], tmp_path: Path
) -> None:
    rows = []
    for num_workers in (0, 2):
        config = config_with(Measure.cde)
        config.model.deterministic, config.probe.view_workers = True, num_workers
        rows.append(probe_rows(tiny, shapes_samples[:6], tmp_path / str(num_workers), config, 1))
    assert rows[0] == rows[1]


def test_without_deterministic_mode_almost_all_rows_are_the_same(
    tiny: LoadedModel, shapes_samples: list[Sample], tmp_path: Path
) -> None:
    rows = []
    for batch_size, num_ranks in ((64, 1), (5, 2)):
        config = config_with(Measure.cde)
        config.model.batch_size = batch_size
        folder = tmp_path / f"{batch_size}"
        rows.append(probe_rows(tiny, shapes_samples[:10], folder, config, num_ranks))
    num_same = sum(row in rows[1] for row in rows[0])
    assert num_same >= 0.98 * max(map(len, rows))  # nearly equal logits may give another token
