"""The data stage on disk: Sample parts, quarantine.jsonl, and made.json last.

Not here: whether the stage is needed (recipes ask lineage.read_made).
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from difftrain import artefacts, lineage
from difftrain.data import load
from difftrain.data.config import DataConfig, Source
from difftrain.data.quarantine import NothingUsable, Quarantined, summary, told
from difftrain.records import Sample

ROWS_PER_PART = 200
"""A full part stays in memory: 200 rows of 1.2 megapixels are about half a gigabyte."""
QUARANTINE = "quarantine.jsonl"


def make(config: DataConfig, folder: Path) -> dict[str, int]:
    """Write the stage's folder anew; returns {rows, samples, quarantined}.

    Raises NothingUsable (after quarantine.jsonl is written) when no sample is left.
    """
    began = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    # What an interrupted run left is of no use: rows are cheap, and parts of two runs must not mix.
    for left in (folder / "made.json", *artefacts.parts(folder)):
        left.unlink(missing_ok=True)
    aside: list[Quarantined] = []
    made = artefacts.write_all(folder, kept(config, aside), ROWS_PER_PART)
    write_quarantine(folder, aside)
    if not made:
        raise NothingUsable(nothing(config, aside, folder))
    counts = {"rows": made + len(aside), "samples": made, "quarantined": len(aside)}
    lineage.write_made(
        folder,
        settings=asdict(config),
        inputs=load.inputs(config),
        seconds=time.perf_counter() - began,
        counts={**counts, "reasons": summary(aside)},
    )
    return counts


def kept(config: DataConfig, aside: list[Quarantined]) -> Iterator[Sample]:
    """The samples of the source; what is quarantined is appended to `aside`."""
    for row in load.samples(config):
        if isinstance(row, Quarantined):
            aside.append(row)
        else:
            yield row


def nothing(config: DataConfig, aside: Sequence[Quarantined], folder: Path) -> str:
    """Why there is no sample, with counts, the first row's reason and where the rest is."""
    name = config.path if config.source is Source.jsonl else config.source.value
    if not aside:
        return f"{name} holds no rows"
    return (
        f"none of the {len(aside)} rows of {name} can be used: {told(summary(aside))}; "
        f"first: {aside[0].source}: {aside[0].reason}; all: {folder / QUARANTINE}"
    )


def write_quarantine(folder: Path, aside: Sequence[Quarantined]) -> Path:
    """Write quarantine.jsonl, one {source, reason} a line, whole or not at all; may be empty."""
    path = folder / QUARANTINE
    half = folder / f".{QUARANTINE}.{os.getpid()}.half"
    try:
        with half.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(each)) + "\n" for each in aside)
            file.flush()
            os.fsync(file.fileno())
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)
    return path


def read_quarantine(folder: Path) -> list[Quarantined]:
    """The rows that a data stage set aside. Raises MissingArtefact where none was made."""
    path = folder / QUARANTINE
    if not path.is_file():
        raise artefacts.MissingArtefact(f"no {QUARANTINE} at {folder}: run  python launch/train.py")
    with path.open(encoding="utf-8") as file:
        return [Quarantined(**json.loads(line)) for line in file]
