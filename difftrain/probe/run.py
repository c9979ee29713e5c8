"""The probe: every rank asks its share of the samples until each label is settled.

The folder is a store that only grows: another tau draws what it still needs and repeats nothing.
"""

import json
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from tqdm import tqdm

from difftrain.config import run_config
from difftrain.config.difficulty import ProbeConfig
from difftrain.data.quarantine import RejectedRow, RejectStats
from difftrain.model.engines import types
from difftrain.model.engines.types import Engine, GenerationError, Request
from difftrain.pipeline import coordination, manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.probe import state
from difftrain.probe.elapsed import ElapsedSeconds
from difftrain.probe.requests import ProbeRequest, graded_rollout, model_request, sampling_seed
from difftrain.probe.state import ProbeState, requirements
from difftrain.records import Rollout, Sample, View


def is_settled(folder: Path, wanted: str) -> bool:
    """Whether a finished probe of this folder notes that these needs are met."""
    made = manifest.read_manifest(folder)
    return made is not None and wanted in made["counts"]["settled"]


def run_share(
    engine: Engine,
    samples: Sequence[Sample],
    ledger: ProbeState,
    config: run_config.RunConfig,
    world: World,
    spent: ElapsedSeconds | None = None,
) -> None:
    """Ask until no sample of this share wants another draw; answers are written as they come."""
    pending = RequestQueue(ledger, samples, config.probe, config.seed)
    bar = tqdm(
        total=len(samples),
        initial=len(samples) - pending.unsettled,
        desc="probe",
        unit="sample",
        disable=not world.is_first,
    )

    def write(rows: list[Rollout]) -> None:
        part = parquet.next_part(ledger.folder, world.rank)
        ledger.known.add(parquet.write_part(ledger.folder, part, rows))

    unwritten = parquet.Unwritten(write, config.model.at_once * 4)
    answered, started = 0, time.time()

    def alive() -> None:
        coordination.beat(ledger.folder, world)
        unwritten.write_if_late()
        if spent is not None:
            spent.beat()

    try:
        for draw, found in engine.stream(pending.more, alive):
            if isinstance(found, GenerationError):
                state.write_failures(ledger.folder, world.rank, [state.failed_request(draw, found)])
                ledger.aside[draw.sample.sample_id] = found.reason
            else:
                row = graded_rollout(draw, found, config.seed, config.grade)
                ledger.enter([row])
                unwritten.add(row)
            pending.answered(draw)
            answered += 1
            alive()
            bar.update(len(samples) - pending.unsettled - bar.n)
            speed = f"{answered} answers, {answered / (time.time() - started):.0f}/s"
            bar.set_postfix_str(speed, refresh=False)
    finally:
        unwritten.write()
        bar.close()


def run_probe(
    engine: Callable[[], Engine],
    samples: Sequence[Sample],
    folder: Path,
    config: run_config.RunConfig,
    world: World,
    inputs: dict[str, str],
) -> None:
    """Fill the folder until every sample's labels are settled, and close it with manifest.json.

    Does nothing, and makes no engine, if they are settled already. Raises RankTimeout if another
    rank stops writing, and what the engine raises when it is gone for good.
    """
    wants = requirements(config)
    told = wants.settled(len(samples))
    if is_settled(folder, told):
        return
    spent = ElapsedSeconds(folder, world)
    coordination.beat(folder, world)
    ledger = ProbeState(folder, config.probe, samples, wants)
    ledger.refresh()
    share = world.share(samples)

    def everything() -> bool:
        spent.beat()
        ledger.refresh()
        return not any(ledger.wanted(sample) for sample in samples)

    try:
        if any(ledger.wanted(sample) for sample in share):
            with coordination.heartbeat(folder, world):
                asked = engine()
            types.write_engine_info(folder, asked.info)
            run_share(asked, share, ledger, config, world, spent)
        if not world.is_first:
            return coordination.wait(folder, world, lambda: is_settled(folder, told))
        coordination.wait(folder, world, everything)
    finally:
        spent.note()
    finalize(ledger, len(samples), told, spent.total(), config, inputs)
    spent.clear()
    coordination.remove_heartbeats(folder)


class RequestQueue:
    """What is still to be asked of these samples. `unsettled` counts those that want more."""

    def __init__(
        self, ledger: ProbeState, samples: Iterable[Sample], config: ProbeConfig, root: int
    ) -> None:
        self.ledger, self.config, self.root = ledger, config, root
        self.queue: deque[ProbeRequest] = deque()
        self.open: Counter[str] = Counter()
        self.unmasked: dict[tuple[str, View], Request] = {}
        for sample in sorted(samples, key=lambda each: -len(each.question)):
            self._line_up(sample)

    @property
    def unsettled(self) -> int:
        """How many samples have a draw open."""
        return len(self.open)

    def more(self, room: int) -> list[tuple[ProbeRequest, Request]]:
        """Up to `room` draws with their requests; none of a sample that was set aside."""
        taken: list[ProbeRequest] = []
        while self.queue and len(taken) < room:
            draw = self.queue.popleft()
            if draw.sample.sample_id in self.ledger.aside:
                self.answered(draw)
            else:
                taken.append(draw)
        return [(draw, self._request(draw)) for draw in taken]

    def answered(self, draw: ProbeRequest) -> None:
        """This draw is in the ledger, or its sample aside; line up what the sample wants next."""
        key = draw.sample.sample_id
        self.open[key] -= 1
        if not self.open[key]:
            del self.open[key]
            self._line_up(draw.sample)
        if key not in self.open:
            for view in View:
                self.unmasked.pop((key, view), None)

    def _line_up(self, sample: Sample) -> None:
        if wanted := self.ledger.wanted(sample):
            self.queue.extendleft(reversed(wanted))
            self.open[sample.sample_id] = len(wanted)

    def _request(self, draw: ProbeRequest) -> Request:
        """A draw's request; of an open sample, unmasked pictures are decoded once."""
        if draw.view is View.masked:
            return model_request(draw, self.config, self.root)
        key = draw.sample.sample_id, draw.view
        if key not in self.unmasked:
            self.unmasked[key] = model_request(draw, self.config, self.root)
        return replace(self.unmasked[key], seed=sampling_seed(self.root, draw))


QUARANTINE = "quarantine.jsonl"


def finalize(
    ledger: ProbeState,
    samples: int,
    told: str,
    seconds: float,
    config: run_config.RunConfig,
    inputs: dict[str, str],
) -> None:
    """Write quarantine.jsonl and, last of all, manifest.json."""
    folder = ledger.folder
    before = manifest.read_manifest(folder) or {"seconds": 0.0, "counts": {"settled": []}}
    without = [RejectedRow(key, f"no answer: {why}") for key, why in sorted(ledger.aside.items())]
    counted = RejectStats()
    for each in without:
        counted.add(each)
    lines = "".join(json.dumps(asdict(each)) + "\n" for each in without)
    manifest.write_text(folder / QUARANTINE, lines)
    manifest.write_manifest(
        folder,
        settings={
            **run_config.plain(config.probe),
            "seed": config.seed,
            "engines": types.read_engine_info(folder),
        },
        inputs=inputs,
        seconds=before["seconds"] + seconds,
        counts={
            "generations": ledger.generations,
            "tokens": ledger.tokens,
            "samples": samples,
            "quarantined": counted.total,
            "reasons": counted.by_reason(),
            "settled": [*before["counts"]["settled"], told],
        },
    )
