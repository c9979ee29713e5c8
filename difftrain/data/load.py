"""One stream of rows from whichever source the settings name, and that stream's identity."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path

from difftrain import lineage
from difftrain.data import jsonl
from difftrain.data.config import DataConfig, Source
from difftrain.data.quarantine import Quarantined
from difftrain.records import Sample
from difftrain.shapes import pool
from difftrain.shapes.pool import Split

MATTERS = {
    Source.shapes: ("source", "limit", "pool", "drawing_seed"),
    Source.jsonl: ("source", "limit", "boxes", "min_pixels", "max_pixels"),
}
"""Settings that change a source's rows; any other leaves finished stages valid."""


def file_of(config: DataConfig) -> Path:
    """The file of source=jsonl."""
    assert config.path is not None, "DataConfig.check asks for a path"
    return Path(config.path).expanduser()


def from_shapes(config: DataConfig) -> Iterator[Sample | Quarantined]:
    """The training pool of the embedded world; none of it is ever quarantined."""
    return pool.samples(Split.pool, config.pool, config.drawing_seed)


def from_jsonl(config: DataConfig) -> Iterator[Sample | Quarantined]:
    """The rows of the user's file."""
    return jsonl.rows(file_of(config), config)


SOURCES: dict[Source, Callable[[DataConfig], Iterator[Sample | Quarantined]]] = {
    Source.shapes: from_shapes,
    Source.jsonl: from_jsonl,
}


def samples(config: DataConfig) -> Iterator[Sample | Quarantined]:
    """The first `limit` rows of the source, each a Sample or Quarantined; read one by one."""
    return islice(SOURCES[config.source](config), config.limit)


def inputs(config: DataConfig) -> dict[str, str]:
    """Fingerprints of the files read: the jsonl itself, not the pictures it points to."""
    if config.source is Source.shapes:
        return {}
    path = file_of(config)
    return {path.name: lineage.file_fingerprint(path)}


def identity(config: DataConfig) -> str:
    """Twelve hex digits that change when the samples would (a picture replaced in place is missed).

    A file keeps its identity when it is moved; its name counts, because sources carry it.
    """
    settings = asdict(config)
    kept = {key: settings[key] for key in MATTERS[config.source]}
    return lineage.fingerprint([kept, inputs(config)])
