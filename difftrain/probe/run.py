"""Runs the probe: samples responses until every sample's difficulty is settled.

No further draw (sampled response) can change a settled difficulty. Each rank takes its share of the
samples. A later run with another threshold (difficulty.pism.tau) adds only the missing draws.
"""

import json
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from difftrain import grade, images, seeds
from difftrain.config.difficulty import GradeConfig, ProbeConfig
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
from difftrain.probe import masks
from difftrain.probe.schedule import ProbeRequest, ProbeState, write_failure
from difftrain.records import Rollout, Sample, View

QUARANTINE = "quarantine.jsonl"
FAILED = "no answer"  # the short reason in quarantine.jsonl for a sample with a failed request
PLACEHOLDER = re.compile(r"<image(?: ?\d+)?>|<\|(?:vision_start|vision_end|image_pad)\|>")
"""The image placeholders that a question's text may contain."""


def sampling_seed(run_seed: int, request: ProbeRequest) -> int:
    """The seed of a draw's sampling noise; it depends only on the run's seed and the draw."""
    view_or_percent = request.view if request.text_only else request.percent
    return seeds.derive(run_seed, "draw", request.sample.sample_id, view_or_percent, request.draw)


def engine_request(request: ProbeRequest, config: ProbeConfig, run_seed: int) -> Request:
    """The engine's request for this draw.

    Images are masked if `percent` is above 0. With probe.nested, a higher percent hides the pixels
    of a lower percent, and more. The text-only view has neither images nor image placeholders.
    Requests with the same `view`, if it is not None, have the same prompt.
    """
    sample, view = request.sample, request.view
    text, view_images = prompts.user_text(sample.question, sample.options), []
    if view is View.text_only:
        text = PLACEHOLDER.sub("", text).strip()
    else:
        view_images = [images.from_png(png) for png in sample.images]
    if view is View.masked:
        percent = () if config.nested else (request.percent,)  # masks of one seed are nested
        for i, image in enumerate(view_images):
            seed = seeds.derive(run_seed, "mask", sample.sample_id, i, *percent, request.draw)
            masked = masks.mask(np.asarray(image), request.percent, seed, config.mask)
            view_images[i] = Image.fromarray(masked)
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
        verdict=grade.grade(completion.text, request.sample, rules),
    )


class RequestQueue:
    """The requests to send next, of all samples that are not settled.

    A sample's next requests are known only when its earlier requests are finished. They are sent
    before those of a new sample. So only few samples are in progress at a time, and an engine can
    keep their prompts in its prefix cache. The sample with the shortest question comes first.
    """

    def __init__(self, state: ProbeState, samples: Iterable[Sample], run_seed: int) -> None:
        self.state, self.run_seed = state, run_seed
        self.waiting: deque[ProbeRequest] = deque()
        self.open_counts: Counter[str] = Counter()  # by sample_id: requests waiting or sent
        self.unmasked: dict[tuple[str, View], Request] = {}  # engine requests, to decode once
        for sample in sorted(samples, key=lambda sample: -len(sample.question)):  # LIFO queue
            self._enqueue(sample)

    def next_requests(self, room: int) -> list[tuple[ProbeRequest, Request]]:
        """At most `room` requests; skips those of failed samples."""
        selected: list[ProbeRequest] = []
        while self.waiting and len(selected) < room:
            request = self.waiting.popleft()
            if request.sample.sample_id in self.state.failed:
                self.finish(request)
            else:
                selected.append(request)
        return [(request, self._engine_request(request)) for request in selected]

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

    def _engine_request(self, request: ProbeRequest) -> Request:
        """The engine's request; decodes a sample's unmasked images only once."""
        key = request.sample.sample_id, request.view
        if key in self.unmasked:
            return replace(self.unmasked[key], seed=sampling_seed(self.run_seed, request))
        result = engine_request(request, self.state.probe, self.run_seed)
        if request.view is not View.masked:
            self.unmasked[key] = result
        return result


def probe_share(
    engine: Engine,
    samples: Sequence[Sample],
    state: ProbeState,
    config: RunConfig,
    seed: int,
    heart: Heartbeat,
) -> None:
    """Draw until no sample of this share needs another draw; writes rollouts as they finish."""
    queue = RequestQueue(state, samples, seed)
    world, started, num_finished = heart.world, time.time(), 0
    total, num_settled = len(samples), len(samples) - len(queue.open_counts)
    no_bar = not world.is_first
    bar = tqdm(total=total, initial=num_settled, desc="probe", unit="sample", disable=no_bar)

    def write(rows: list[Rollout]) -> None:
        name = parquet.next_part_name(state.folder, world.rank)
        state.parts_read.add(parquet.write_part(state.folder, name, rows))

    # If the process is killed, at most this many rollouts are lost.
    unwritten = parquet.PartBuffer(write, config.model.max_concurrency * 4)

    def on_idle() -> None:
        heart.beat()
        unwritten.write_if_late()

    try:
        for request, result in engine.stream(queue.next_requests, on_idle):
            if isinstance(result, GenerationError):
                write_failure(state.folder, world.rank, request, result)
                state.failed[request.sample.sample_id] = result.reason
            else:
                rollout = graded_rollout(request, result, seed, config.grade)
                state.add([rollout])
                unwritten.add(rollout)
            queue.finish(request)
            num_finished += 1
            on_idle()
            bar.update(total - len(queue.open_counts) - bar.n)
            rate = num_finished / (time.time() - started)
            bar.set_postfix_str(f"{num_finished} responses, {rate:.0f}/s", refresh=False)
    finally:
        unwritten.write()
        bar.close()


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
