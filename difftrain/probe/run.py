"""Runs the probe: samples responses until every sample's difficulty is settled.

No further draw (sampled response) can change a settled difficulty. Each rank takes its share of the
samples. A later run with another threshold (difficulty.pism.tau) adds only the missing draws.
"""

import json
import os
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from difftrain import grade, seeds
from difftrain.config.difficulty import GradeConfig, ProbeConfig
from difftrain.config.model import EngineKind
from difftrain.config.run_config import RunConfig
from difftrain.data import prompts
from difftrain.data.quarantine import RejectedRow
from difftrain.model.engines.types import (
    Completion,
    Engine,
    GenerationError,
    Request,
    read_engine_info,
    write_engine_info,
)
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.stage import Heartbeat, run_shared_stage
from difftrain.probe import views
from difftrain.probe.schedule import ProbeRequest, ProbeState, write_failure
from difftrain.probe.views import ViewImages, ViewKey, ViewPool, ViewSpec
from difftrain.records import Rollout, Sample, View

QUARANTINE = "quarantine.jsonl"
FAILED = "no answer"  # the short reason in quarantine.jsonl for a sample with a failed request
GRADE_WAIT_S = 0.02  # to wait for a grade before the engine gets fewer requests than it takes
MAX_VIEW_WORKERS = 4  # unless probe.view_workers is set
PLACEHOLDER = re.compile(r"<image(?: ?\d+)?>|<\|(?:vision_start|vision_end|image_pad)\|>")
"""The image placeholders that a question's text may contain."""


def sampling_seed(run_seed: int, request: ProbeRequest) -> int:
    """The seed of a draw's sampling noise; it depends only on the run's seed and the draw."""
    view_or_percent = request.view if request.text_only else request.percent
    return seeds.derive(run_seed, "draw", request.sample.sample_id, view_or_percent, request.draw)


def view_spec(
    request: ProbeRequest, config: ProbeConfig, run_seed: int, png_level: int | None = None
) -> ViewSpec:
    """How to prepare this draw's images; the text-only view has none.

    With probe.nested, a higher percent hides the pixels of a lower percent, and more.
    """
    sample = request.sample
    if request.view is View.text_only:
        return ViewSpec(())
    pngs = tuple(sample.images)
    if request.view is View.full_image:
        return ViewSpec(pngs, png_level=png_level)
    percent = () if config.nested else (request.percent,)  # masks of one seed are nested
    mask_seeds = tuple(
        seeds.derive(run_seed, "mask", sample.sample_id, i, *percent, request.draw)
        for i in range(len(pngs))
    )
    return ViewSpec(pngs, request.percent, mask_seeds, config.mask, png_level)


def engine_request(
    request: ProbeRequest,
    config: ProbeConfig,
    run_seed: int,
    view_images: ViewImages | None = None,
) -> Request:
    """The engine's request for this draw; `view_images` are its images if they are prepared.

    The text-only view has neither images nor image placeholders. Requests with the same
    `view`, if it is not None, have the same prompt.
    """
    sample, view = request.sample, request.view
    text = prompts.user_text(sample.question, sample.options)
    if view is View.text_only:
        text = PLACEHOLDER.sub("", text).strip()
    if view_images is None:
        view_images = views.prepare(view_spec(request, config, run_seed))
    return Request(
        parts=(*view_images, text),
        seed=sampling_seed(run_seed, request),
        temperature=config.temperature,
        max_new_tokens=config.max_new_tokens,
        view=None if view is View.masked else f"{sample.sample_id}/{view}",
    )


def graded_rollout(
    request: ProbeRequest, completion: Completion, run_seed: int, rules: GradeConfig = grade.STRICT
) -> Rollout:
    """The draw's completion as a graded rollout."""
    result = grade.grade_with_credit(completion.text, request.sample, rules)
    return Rollout(
        sample_id=request.sample.sample_id,
        view=request.view,
        mask_percent=request.percent,
        draw=request.draw,
        seed=sampling_seed(run_seed, request),
        response=completion.text,
        num_tokens=completion.num_tokens,
        token_ids=completion.token_ids,
        hit_eos=completion.hit_eos,
        verdict=result.verdict,
        parsed_answer=result.decision.answer,
        parsed_gold=result.decision.gold,
        rule=result.decision.rule,
    )


def view_key(request: ProbeRequest) -> ViewKey:
    """Identifies the images of a request; all draws of an unmasked view have the same."""
    cell = (request.percent, request.draw) if request.view is View.masked else ()
    return (request.sample.sample_id, request.view, *cell)


class RequestQueue:
    """The requests to send next, of all samples that are not settled.

    A sample's next requests are known only when its earlier requests are finished. They are sent
    before those of a new sample. So only few samples are in progress at a time, and an engine can
    keep their prompts in its prefix cache. The sample with the shortest question comes first.
    """

    def __init__(
        self,
        state: ProbeState,
        samples: Iterable[Sample],
        run_seed: int,
        pool: ViewPool | None = None,
        png_level: int | None = None,
    ) -> None:
        self.state, self.run_seed = state, run_seed
        self.pool, self.png_level = pool or ViewPool(0), png_level
        self.waiting: deque[ProbeRequest] = deque()
        self.open_counts: Counter[str] = Counter()  # by sample_id: requests waiting or sent
        self.unmasked: dict[ViewKey, Request] = {}  # engine requests, to decode once
        for sample in sorted(samples, key=lambda sample: -len(sample.question)):  # LIFO queue
            self._enqueue(sample)

    def next_requests(self, room: int, wait: bool = True) -> list[tuple[ProbeRequest, Request]]:
        """Up to `room` requests whose images are prepared; none of a failed sample.

        If none is prepared, `wait` waits for one.
        """
        window: list[ProbeRequest] = []
        while self.waiting and len(window) < room + self.pool.num_ahead:
            request = self.waiting.popleft()
            key = view_key(request)
            if request.sample.sample_id in self.state.failed:
                self.pool.drop(key)
                self.finish(request)
            else:
                window.append(request)
                if key not in self.unmasked and self.pool.is_new(key):
                    self.pool.submit(key, self._spec(request))
        window.sort(key=lambda request: not self.pool.is_ready(view_key(request)))
        num_ready = sum(self.pool.is_ready(view_key(request)) for request in window[:room])
        num_sent = min(len(window), room, max(num_ready, int(wait)))
        self.waiting.extendleft(reversed(window[num_sent:]))
        return [(request, self._engine_request(request)) for request in window[:num_sent]]

    def finish(self, request: ProbeRequest) -> None:
        """Count a request as finished; the state already has its rollout or its failure."""
        sample_id = request.sample.sample_id
        self.open_counts[sample_id] -= 1
        if not self.open_counts[sample_id]:
            del self.open_counts[sample_id]
            self._enqueue(request.sample)
        if sample_id not in self.open_counts:
            for view in View:
                self.unmasked.pop((sample_id, view), None)

    def _enqueue(self, sample: Sample) -> None:
        if requests := self.state.next_requests(sample):
            self.waiting.extendleft(reversed(requests))
            self.open_counts[sample.sample_id] = len(requests)

    def _spec(self, request: ProbeRequest) -> ViewSpec:
        return view_spec(request, self.state.probe, self.run_seed, self.png_level)

    def _engine_request(self, request: ProbeRequest) -> Request:
        """The engine's request; unmasked images of an open sample are prepared once."""
        key = view_key(request)
        if key in self.unmasked:
            return replace(self.unmasked[key], seed=sampling_seed(self.run_seed, request))
        view_images = self.pool.take(key)
        if view_images is None:
            view_images = views.prepare(self._spec(request))
        result = engine_request(request, self.state.probe, self.run_seed, view_images)
        if request.view is not View.masked:
            self.unmasked[key] = result
        return result


def num_view_workers(config: RunConfig) -> int:
    """The processes that prepare images. By default none if the engine works in this process."""
    if config.probe.view_workers is not None:
        return config.probe.view_workers
    is_hf = config.model.engine is EngineKind.hf
    return 0 if is_hf else max(0, min(MAX_VIEW_WORKERS, len(os.sched_getaffinity(0)) - 1))


class GradingQueue:
    """Grades responses in their order; in a thread, so that no slow answer keeps an engine waiting.

    Comparing expressions can take seconds (grade/number.py). The hf engine works in this process,
    and the order of its requests changes its batches, so there each response is graded at once.
    """

    def __init__(self, in_thread: bool) -> None:
        self._executor = ThreadPoolExecutor(1) if in_thread else None
        self._graded: deque[tuple[ProbeRequest, Future[Rollout]]] = deque()

    def __len__(self) -> int:
        return len(self._graded)

    def add(self, request: ProbeRequest, *args: Any) -> None:
        """Grade a response; the arguments are those of graded_rollout."""
        if self._executor:
            future = self._executor.submit(graded_rollout, request, *args)
        else:
            future = Future[Rollout]()
            future.set_result(graded_rollout(request, *args))
        self._graded.append((request, future))

    def finished(self, wait_s: float | None = 0) -> Iterator[tuple[ProbeRequest, Rollout]]:
        """Takes the graded responses out of the queue; waits up to `wait_s` seconds for one.

        None waits as long as the grader takes.
        """
        if self._graded:
            futures.wait([self._graded[0][1]], wait_s)
        while self._graded and self._graded[0][1].done():
            request, future = self._graded.popleft()
            yield request, future.result()

    def close(self) -> None:
        """End the thread."""
        if self._executor:
            self._executor.shutdown(cancel_futures=True)


def probe_share(
    engine: Engine,
    samples: Sequence[Sample],
    state: ProbeState,
    config: RunConfig,
    seed: int,
    heart: Heartbeat,
) -> None:
    """Draw until no sample of this share needs another draw; writes rollouts as they finish."""
    pool = ViewPool(num_view_workers(config))
    queue = RequestQueue(state, samples, seed, pool, config.model.png_level)
    grading = GradingQueue(in_thread=config.model.engine is not EngineKind.hf)
    world, started, num_finished = heart.world, time.time(), 0
    total, num_settled = len(samples), len(samples) - len(queue.open_counts)
    no_bar = not world.is_first
    bar = tqdm(total=total, initial=num_settled, desc="probe", unit="sample", disable=no_bar)
    num_open = 0  # requests that the engine has

    def write(rows: list[Rollout]) -> None:
        name = parquet.next_part_name(state.folder, world.rank)
        state.parts_read.add(parquet.write_part(state.folder, name, rows))

    # If the process is killed, at most this many rollouts are lost.
    unwritten = parquet.PartBuffer(write, config.model.max_concurrency * 4)

    def on_idle() -> None:
        heart.beat()
        unwritten.write_if_late()

    def add_graded(wait_s: float | None = 0) -> None:
        for request, rollout in grading.finished(wait_s):
            state.add([rollout])
            unwritten.add(rollout)
            queue.finish(request)
        num_settled = total - len(queue.open_counts)
        bar.update(num_settled - bar.n)
        heart.progress(num_settled, total)

    def next_requests(room: int) -> list[tuple[ProbeRequest, Request]]:
        nonlocal num_open
        add_graded()
        requests = queue.next_requests(room, wait=not num_open)
        while not requests and len(grading):
            add_graded(GRADE_WAIT_S if num_open else None)  # an engine without requests would stop
            requests = queue.next_requests(room, wait=not num_open)
            if num_open:
                break
        num_open += len(requests)
        return requests

    try:
        for request, result in engine.stream(next_requests, on_idle):
            num_open -= 1
            if isinstance(result, GenerationError):
                write_failure(state.folder, world.rank, request, result)
                state.failed[request.sample.sample_id] = result.reason
                queue.finish(request)
            else:
                grading.add(request, result, seed, config.grade)
                add_graded()
            num_finished += 1
            on_idle()
            rate = num_finished / (time.time() - started)
            bar.set_postfix_str(f"{num_finished} responses, {rate:.0f}/s", refresh=False)
    finally:
        try:
            while len(grading):
                add_graded(None)
        finally:
            unwritten.write()
            bar.close()
            pool.close()
            grading.close()


def run_probe(
    create_engine: Callable[[], Engine],
    samples: Sequence[Sample],
    folder: Path,
    world: World,
    inputs: dict[str, str],
    config: RunConfig,
    seed: int,
) -> None:
    """Write rollouts into the folder until all samples are settled, then manifest.json.

    If all are already settled, does nothing and creates no engine. Raises RankTimeout if another
    rank stops writing, and the engine's error if its server cannot be reached.
    """
    state = ProbeState(folder, config, samples)
    description = state.required.describe(len(samples))  # for the manifest's list `settled`

    def work(heart: Heartbeat) -> None:
        state.refresh()
        share = world.share(samples)
        if any(state.next_requests(sample) for sample in share):
            with heart.in_background():
                engine = create_engine()
            write_engine_info(folder, engine.info)
            probe_share(engine, share, state, config, seed, heart)

    def is_complete() -> bool:
        state.refresh()
        return not any(state.next_requests(sample) for sample in samples)

    def close() -> dict[str, Any]:
        """Write quarantine.jsonl; returns the manifest's counts."""
        previous = manifest.read_manifest(folder) or {"counts": {"settled": []}}
        failed = sorted(state.failed.items())
        rejected = [RejectedRow(sample_id, f"{FAILED}: {reason}") for sample_id, reason in failed]
        lines = "".join(json.dumps(asdict(row)) + "\n" for row in rejected)
        manifest.write_text(folder / QUARANTINE, lines)
        return {
            "generations": state.num_generations,
            "tokens": state.num_tokens,
            "samples": len(samples),
            "quarantined": len(rejected),
            "reasons": {FAILED: len(rejected)} if rejected else {},
            "settled": [*previous["counts"]["settled"], description],
        }

    run_shared_stage(
        folder,
        world,
        work,
        is_complete=is_complete,
        close=close,
        settings=lambda: asdict(config.probe) | {"seed": seed, "engines": read_engine_info(folder)},
        inputs=inputs,
        is_finished=lambda content: description in content["counts"]["settled"],
    )
