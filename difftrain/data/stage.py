"""The data stage on disk: Sample parts, quarantine.jsonl and .md, near_duplicates.jsonl,
manifest.json last.

Not here: whether the stage is needed (recipes ask read_manifest).
"""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from difftrain.config.data import DataConfig, Source
from difftrain.data import load
from difftrain.data.quarantine import EmptyDatasetError, RejectedRow, RejectStats, page, told
from difftrain.pipeline import manifest, parquet
from difftrain.records import Sample

ROWS_PER_PART = 2000
"""A part ends earlier where its pictures reach artifacts.PART_BYTES."""
QUARANTINE = "quarantine.jsonl"
ALIKE = "near_duplicates.jsonl"
"""Rows that look like an earlier one with the same words and gold, {source, like}; all kept."""


def make(config: DataConfig, folder: Path) -> dict[str, int]:
    """Write the stage's folder anew; returns {rows, samples, quarantined}.

    Raises EmptyDatasetError (after quarantine.jsonl is written) when no sample is left.
    """
    began = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    # What an interrupted run left is of no use: rows are cheap, and parts of two runs must not mix.
    for left in (folder / "manifest.json", *parquet.parts(folder)):
        left.unlink(missing_ok=True)
    aside, tasks = RejectStats(), Counter[str]()
    with growing(folder / QUARANTINE) as put_aside, growing(folder / ALIKE) as put_alike:
        tally = load.Tally(found_alike=lambda one, two: put_alike({"source": one, "like": two}))

        def note(row: RejectedRow) -> None:
            aside.note(row)
            put_aside(asdict(row))

        made = parquet.write_all(folder, kept(config, note, tally, tasks), ROWS_PER_PART)
    counts = {"rows": made + aside.number, "samples": made, "quarantined": aside.number}
    (folder / "quarantine.md").write_text(page(counts["rows"], aside), encoding="utf-8")
    if not made:
        raise EmptyDatasetError(nothing(config, aside, folder))
    told = {**counts, "reasons": aside.summary(), "tasks": dict(sorted(tasks.items()))}
    told |= counted(config, tally)
    manifest.write_manifest(
        folder,
        settings=asdict(config),
        inputs=load.inputs(config),
        seconds=time.perf_counter() - began,
        counts=told,
    )
    if config.source is not Source.shapes:
        print(in_words(told), flush=True)
    return counts


def kept(
    config: DataConfig,
    aside: Callable[[RejectedRow], None],
    tally: load.Tally,
    tasks: Counter[str],
) -> Iterator[Sample]:
    """The samples of the source; what is quarantined is given to `aside`."""
    for row in load.samples(config, tally):
        if isinstance(row, RejectedRow):
            aside(row)
        else:
            tasks[row.task] += 1
            yield row


def counted(config: DataConfig, tally: load.Tally) -> dict[str, Any]:
    """What manifest.json says of repetitions and pictures; the budget in pixels and in tokens."""
    if config.source is Source.shapes:
        return {}
    return {
        "left_out": tally.left_out,
        "duplicates": {"exact": tally.copies, "alike": tally.alike},
        "pictures": {
            "number": tally.pictures,
            "resized": tally.resized,
            "tokens": tally.tokens,
            "most_tokens": tally.most_tokens,
            "budget_pixels": [config.min_pixels, config.max_pixels],
            "budget_tokens": list(config.budget_in_tokens),
        },
    }


def in_words(counts: dict[str, Any]) -> str:
    """The counts in two or three lines, for whoever waits."""
    shown, repeated = counts["pictures"], counts["duplicates"]
    reasons = f" ({told(counts['reasons'])}; see {QUARANTINE})" if counts["reasons"] else ""
    least, most = shown["budget_tokens"]
    lines = [
        f"data: {counts['rows']} rows, {counts['samples']} samples, "
        f"{counts['quarantined']} quarantined{reasons}",
        f"data: {shown['number']} pictures, {shown['tokens']} image tokens, at most "
        f"{shown['most_tokens']} in one (budget {shown['budget_pixels'][0]} to "
        f"{shown['budget_pixels'][1]} pixels = {least} to {most} tokens)",
    ]
    if repeated["exact"] or repeated["alike"]:
        lines.append(
            f"data: {repeated['exact']} rows repeat another exactly, {repeated['alike']} only look "
            f"like another (see {ALIKE})"
        )
    return "\n".join(lines)


def nothing(config: DataConfig, aside: RejectStats, folder: Path) -> str:
    """Why there is no sample, with counts, the first row's reason and where the rest is."""
    name = config.path or config.source.value
    if not aside.number:
        return f"{name} holds no rows"
    first = next(iter(aside.first.values()))[0]
    return (
        f"none of the {aside.number} rows of {name} can be used: {told(aside.summary())}; "
        f"first: {first.source}: {first.reason}; all: {folder / QUARANTINE}"
    )


@contextmanager
def growing(path: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A jsonl that is written line by line, so that nothing waits in memory; whole or not there.

    It may stay empty.
    """
    half = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with half.open("w", encoding="utf-8") as file:
            yield lambda row: print(json.dumps(row), file=file)
            file.flush()
            os.fsync(file.fileno())
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)


def read_quarantine(folder: Path) -> list[RejectedRow]:
    """The rows that a data stage set aside. Raises MissingArtifact where none was made."""
    path = folder / QUARANTINE
    if not path.is_file():
        raise parquet.MissingArtifact(f"no {QUARANTINE} at {folder}: run  python launch/train.py")
    with path.open(encoding="utf-8") as file:
        return [RejectedRow(**json.loads(line)) for line in file]
