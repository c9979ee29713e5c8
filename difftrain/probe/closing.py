"""The end of a probe: made.json with what was asked, by which engine, and who was set aside."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from difftrain import lineage, settings
from difftrain.data.quarantine import Quarantined, summary
from difftrain.probe.ledger import Ledger

ENGINES = "engines"
"""Below the probe's folder: a file for each engine that was asked, named after what it holds."""
QUARANTINE = "quarantine.jsonl"


def note_engine(folder: Path, about: Mapping[str, Any]) -> None:
    """Say who is asked, before the first answer, so that a killed run's engine is known too."""
    text = json.dumps(about, indent=2, sort_keys=True) + "\n"
    name = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
    lineage.write_text(folder / ENGINES / f"{name}.json", text)


def engines(folder: Path) -> list[dict[str, Any]]:
    """Every engine that was asked for this folder's answers."""
    return [json.loads(path.read_text()) for path in sorted((folder / ENGINES).glob("*.json"))]


def close(
    ledger: Ledger,
    samples: int,
    told: str,
    seconds: float,
    config: settings.RunConfig,
    inputs: dict[str, str],
) -> None:
    """Write quarantine.jsonl and, last of all, made.json."""
    folder = ledger.folder
    before = lineage.read_made(folder) or {"seconds": 0.0, "counts": {"settled": []}}
    without = [Quarantined(key, f"no answer: {why}") for key, why in sorted(ledger.aside.items())]
    lines = "".join(json.dumps(asdict(each)) + "\n" for each in without)
    lineage.write_text(folder / QUARANTINE, lines)
    lineage.write_made(
        folder,
        settings={
            **settings.plain(config.probe),
            "seed": config.seed,
            ENGINES: engines(folder),
        },
        inputs=inputs,
        seconds=before["seconds"] + seconds,
        counts={
            "generations": ledger.generations,
            "tokens": ledger.tokens,
            "samples": samples,
            "quarantined": len(without),
            "reasons": summary(without),
            "settled": [*before["counts"]["settled"], told],
        },
    )
