"""The probe: every rank asks its share of the samples until each label is settled.

The folder is a store that only grows: another tau draws what it still needs and repeats nothing.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from difftrain import artefacts, heartbeat, lineage, settings
from difftrain.model.generate import hf
from difftrain.model.load import Loaded
from difftrain.probe.ledger import Ledger
from difftrain.probe.needs import needs
from difftrain.probe.rollouts import Draw, request, rollout
from difftrain.records import Rollout, Sample
from difftrain.world import World


def is_settled(folder: Path, wanted: str) -> bool:
    """Whether a finished probe of this folder notes that these needs are met."""
    made = lineage.read_made(folder)
    return made is not None and wanted in made["counts"]["settled"]


def ask(loaded: Loaded, draws: Sequence[Draw], config: settings.RunConfig) -> list[Rollout]:
    """Rollouts of these draws, generated together."""
    requests = [request(draw, config.probe, config.seed) for draw in draws]
    answers = hf.answers(loaded, requests, config.model.batch_size)
    return [
        rollout(draw, answer, config.seed, config.grade)
        for draw, answer in zip(draws, answers, strict=True)
    ]


def run_share(
    loaded: Loaded,
    samples: Sequence[Sample],
    ledger: Ledger,
    config: settings.RunConfig,
    world: World,
) -> None:
    """Ask until no sample of this share wants another draw; each batch is written as a part."""
    chunk = config.model.batch_size * 4
    open_samples = [sample for sample in samples if ledger.wanted(sample)]
    bar = tqdm(
        total=len(samples),
        initial=len(samples) - len(open_samples),
        desc="probe",
        unit="sample",
        disable=not world.is_first,
    )
    answered, started = 0, time.time()
    while open_samples:
        draws = [draw for sample in open_samples for draw in ledger.wanted(sample)]
        for start in range(0, len(draws), chunk):
            batch = draws[start : start + chunk]
            rows = ask(loaded, batch, config)
            part = artefacts.next_part(ledger.folder, world.rank)
            ledger.known.add(artefacts.write_part(ledger.folder, part, rows))
            ledger.enter(rows)
            heartbeat.beat(ledger.folder, world)
            answered += len(rows)
            bar.set_postfix_str(f"{answered} answers, {answered / (time.time() - started):.0f}/s")
        still = [sample for sample in open_samples if ledger.wanted(sample)]
        bar.update(len(open_samples) - len(still))
        open_samples = still
    bar.close()


def run(
    load: Callable[[], Loaded],
    samples: Sequence[Sample],
    folder: Path,
    config: settings.RunConfig,
    world: World,
    inputs: dict[str, str],
) -> None:
    """Fill the folder until every sample's labels are settled, and close it with made.json.

    Does nothing, and does not load the model, if they are settled already. Raises RankSilent if
    another rank stops writing.
    """
    wants = needs(config)
    told = f"{wants.words()} samples={len(samples)}"
    if is_settled(folder, told):
        return
    started = time.time()
    heartbeat.beat(folder, world)
    ledger = Ledger(folder, config.probe, samples, wants)
    ledger.refresh()
    share = world.share(samples)
    if any(ledger.wanted(sample) for sample in share):
        run_share(load(), share, ledger, config, world)

    def everything() -> bool:
        ledger.refresh()
        return not any(ledger.wanted(sample) for sample in samples)

    if not world.is_first:
        return heartbeat.wait(folder, world, lambda: is_settled(folder, told))
    heartbeat.wait(folder, world, everything)
    before = lineage.read_made(folder) or {"seconds": 0.0, "counts": {"settled": []}}
    lineage.write_made(
        folder,
        settings={**settings.plain(config.probe), "seed": config.seed},
        inputs=inputs,
        seconds=before["seconds"] + time.time() - started,
        counts={
            "generations": ledger.generations,
            "tokens": ledger.tokens,
            "samples": len(samples),
            "settled": [*before["counts"]["settled"], told],
        },
    )
    heartbeat.clear(folder)
