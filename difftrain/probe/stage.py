"""The probe: every rank asks its share of the samples until each label is settled.

The folder is a store that only grows: another tau draws what it still needs and repeats nothing.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from difftrain.config import run_config
from difftrain.model.generate import makers
from difftrain.model.generate.request import Engine, NoAnswer
from difftrain.pipeline import coordination, manifest, parquet
from difftrain.pipeline.distributed import World
from difftrain.probe import aside, closing
from difftrain.probe.ledger import Ledger
from difftrain.probe.needs import needs
from difftrain.probe.pending import Pending
from difftrain.probe.rollouts import rollout
from difftrain.probe.spent import Spent
from difftrain.records import Rollout, Sample


def is_settled(folder: Path, wanted: str) -> bool:
    """Whether a finished probe of this folder notes that these needs are met."""
    made = manifest.read_made(folder)
    return made is not None and wanted in made["counts"]["settled"]


def run_share(
    engine: Engine,
    samples: Sequence[Sample],
    ledger: Ledger,
    config: run_config.RunConfig,
    world: World,
    spent: Spent | None = None,
) -> None:
    """Ask until no sample of this share wants another draw; answers are written as they come."""
    pending = Pending(ledger, samples, config.probe, config.seed)
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
            if isinstance(found, NoAnswer):
                aside.write(ledger.folder, world.rank, [aside.row(draw, found)])
                ledger.aside[draw.sample.sample_id] = found.reason
            else:
                row = rollout(draw, found, config.seed, config.grade)
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


def run(
    engine: Callable[[], Engine],
    samples: Sequence[Sample],
    folder: Path,
    config: run_config.RunConfig,
    world: World,
    inputs: dict[str, str],
) -> None:
    """Fill the folder until every sample's labels are settled, and close it with manifest.json.

    Does nothing, and makes no engine, if they are settled already. Raises RankSilent if another
    rank stops writing, and what the engine raises when it is gone for good.
    """
    wants = needs(config)
    told = wants.settled(len(samples))
    if is_settled(folder, told):
        return
    spent = Spent(folder, world)
    coordination.beat(folder, world)
    ledger = Ledger(folder, config.probe, samples, wants)
    ledger.refresh()
    share = world.share(samples)

    def everything() -> bool:
        spent.beat()
        ledger.refresh()
        return not any(ledger.wanted(sample) for sample in samples)

    try:
        if any(ledger.wanted(sample) for sample in share):
            with coordination.beating(folder, world):
                asked = engine()
            makers.note(folder, asked.about)
            run_share(asked, share, ledger, config, world, spent)
        if not world.is_first:
            return coordination.wait(folder, world, lambda: is_settled(folder, told))
        coordination.wait(folder, world, everything)
    finally:
        spent.note()
    closing.close(ledger, len(samples), told, spent.total(), config, inputs)
    spent.clear()
    coordination.clear(folder)
