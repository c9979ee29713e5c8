"""The end of a probe: manifest.json with what was asked, by which engine, and who was set aside."""

import json
from dataclasses import asdict

from difftrain.config import run_config
from difftrain.data.quarantine import Aside, Quarantined
from difftrain.model.generate import makers
from difftrain.pipeline import manifest
from difftrain.probe.ledger import Ledger

QUARANTINE = "quarantine.jsonl"


def close(
    ledger: Ledger,
    samples: int,
    told: str,
    seconds: float,
    config: run_config.RunConfig,
    inputs: dict[str, str],
) -> None:
    """Write quarantine.jsonl and, last of all, manifest.json."""
    folder = ledger.folder
    before = manifest.read_made(folder) or {"seconds": 0.0, "counts": {"settled": []}}
    without = [Quarantined(key, f"no answer: {why}") for key, why in sorted(ledger.aside.items())]
    counted = Aside()
    for each in without:
        counted.note(each)
    lines = "".join(json.dumps(asdict(each)) + "\n" for each in without)
    manifest.write_text(folder / QUARANTINE, lines)
    manifest.write_made(
        folder,
        settings={
            **run_config.plain(config.probe),
            "seed": config.seed,
            "engines": makers.read(folder),
        },
        inputs=inputs,
        seconds=before["seconds"] + seconds,
        counts={
            "generations": ledger.generations,
            "tokens": ledger.tokens,
            "samples": samples,
            "quarantined": counted.number,
            "reasons": counted.summary(),
            "settled": [*before["counts"]["settled"], told],
        },
    )
