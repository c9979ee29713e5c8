"""The stream of samples of whichever source the settings name, and that stream's fingerprint."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from difftrain import images
from difftrain.config.data import DataConfig, Duplicates, Source
from difftrain.config.fingerprint import counted_settings
from difftrain.data import storage
from difftrain.data.convert import RawRow, convert
from difftrain.data.dedup import SeenRows
from difftrain.data.formats import FORMATS, RowSource
from difftrain.data.quarantine import EmptyDatasetError, RejectedRow, RowError
from difftrain.data.readers import Row, read_rows
from difftrain.data.storage import Folder, Storage
from difftrain.images import DecodedImage, ImageError
from difftrain.pipeline import manifest
from difftrain.records import Sample
from difftrain.shapes import pool
from difftrain.shapes.pool import Split

MAX_SCAN_BYTES = 64 << 20
"""A jsonl or json of at most this size is scanned for the images it names (image_sizes)."""


@dataclass(slots=True)
class DatasetStats:
    """What was counted besides samples and rejected rows.

    `other_tasks` are rows of tasks that data.tasks leaves out; `exact_duplicates` are dropped or
    kept. `on_near_duplicate` is called with the places of a near duplicate and its first row.
    """

    on_near_duplicate: Callable[[str, str], None] = lambda source, first: None
    other_tasks: int = 0
    exact_duplicates: int = 0
    near_duplicates: int = 0
    num_images: int = 0
    resized: int = 0
    tokens: int = 0
    max_tokens: int = 0

    def add_images(self, decoded: list[DecodedImage]) -> None:
        """Count a sample's images."""
        for image in decoded:
            self.num_images += 1
            self.resized += image.size != image.original_size
            self.tokens += image.num_tokens
            self.max_tokens = max(self.max_tokens, image.num_tokens)


def load_samples(
    config: DataConfig, stats: DatasetStats | None = None
) -> Iterator[Sample | RejectedRow]:
    """The first `limit` rows of the source, each a Sample or RejectedRow; read one by one.

    Raises EmptyDatasetError where no file holds rows, HubUnavailable where the hub does not answer.
    """
    if config.source is Source.shapes:
        samples = pool.samples(Split.pool, config.num_samples, config.world_seed)
        return islice(samples, config.limit)
    return deduplicate(config, stats or DatasetStats())


def deduplicate(config: DataConfig, stats: DatasetStats) -> Iterator[Sample | RejectedRow]:
    """Rows of files; exact duplicates are rejected or given an id of their own."""
    seen = SeenRows()
    try:
        for row in islice(read_samples(config, stats), config.limit):
            if isinstance(row, RejectedRow):
                yield row
                continue
            sample, decoded = row
            first, copies = seen.count_copies(sample)
            stats.exact_duplicates += copies > 0
            if copies and config.duplicates is Duplicates.drop:
                reason = f"duplicate: the same images, question and answer as {first}"
                yield RejectedRow(sample.source, reason)
                continue
            stats.add_images(decoded)
            if copies:
                yield replace(sample, sample_id=images.copy_id(sample.sample_id, copies))
            else:
                seen.add_hashes(sample, decoded)
                yield sample
        for source, first in seen.near_duplicates():
            stats.near_duplicates += 1
            stats.on_near_duplicate(source, first)
    finally:
        seen.close()


def read_samples(
    config: DataConfig, stats: DatasetStats
) -> Iterator[tuple[Sample, list[DecodedImage]] | RejectedRow]:
    """Every row of the files as Sample with its decoded images, or as RejectedRow."""
    files, names = find_files(config)
    for place, row in read_rows(files, names):
        try:
            raw = to_raw(row, place, files, config)
            if config.tasks is not None and raw.task not in config.tasks:
                stats.other_tasks += 1
                continue
            yield convert(raw, place, files, config)
        except (RowError, ImageError) as error:
            yield RejectedRow(place, str(error))


def to_raw(row: Row | RowError, place: str, files: Storage, config: DataConfig) -> RawRow:
    """A row in its source's format. Raises RowError or ImageError."""
    if isinstance(row, RowError):
        raise row
    return FORMATS[config.source].convert(row, RowSource(files, place.rpartition(":")[0]))


def find_files(config: DataConfig) -> tuple[Storage, list[str]]:
    """The files that rows come from. Raises EmptyDatasetError naming what was looked for."""
    files, form = storage.storage_of(config), FORMATS[config.source]
    names = storage.data_files(files, config.split, form.suffixes)
    if config.tasks is not None:
        names = [name for name in names if form.task_of_file(name) in (None, *config.tasks)]
    if not names:
        raise EmptyDatasetError(
            f"{config.path} holds no {' or '.join(form.suffixes)} file for "
            f"source={config.source.value}, split={config.split}, tasks={config.tasks or 'all'}"
        )
    return files, names


def original_rows(config: DataConfig) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place and content of every row that is an object, as the files hold it; none for shapes."""
    if config.source is Source.shapes:
        return
    for place, row in read_rows(*find_files(config)):
        if not isinstance(row, RowError):
            yield place, row


def fingerprint(config: DataConfig) -> str:
    """Twelve hex digits that change when the samples would.

    A file keeps its fingerprint when it is moved with its images; its name counts, because
    Sample.source has it. An image replaced by one of exactly its size in bytes is missed.
    """
    kind = "shapes" if config.source is Source.shapes else "files"
    return manifest.fingerprint([counted_settings(config, kind, own=False), inputs(config)])


def inputs(config: DataConfig) -> dict[str, str]:
    """Fingerprints of what is read: files by content, a hub dataset by its commit.

    `images` covers the image files that rows name (see image_sizes).
    """
    if config.source is Source.shapes:
        return {}
    files, names = find_files(config)
    fingerprints = files.fingerprints(names)
    if isinstance(files, Folder) and (sizes := image_sizes(files, names, config)):
        fingerprints["images"] = sizes
    return fingerprints


def image_sizes(files: Folder, names: list[str], config: DataConfig) -> str | None:
    """A digest of name and size of every image file that small text files name, or None.

    A replaced image nearly always has another size. Times do not count, because a copied folder
    must keep its fingerprint, or weeks of probing are lost. Larger text files (MAX_SCAN_BYTES) and
    parquet, which mostly holds its images, are not scanned.
    """
    digest, count = hashlib.blake2b(digest_size=6), 0
    texts = [name for name in names if not name.endswith(".parquet")]
    small = [name for name in texts if (files.root / name).stat().st_size <= MAX_SCAN_BYTES]
    for place, row in islice(read_rows(files, small), config.limit):
        try:
            raw = to_raw(row, place, files, config)
        except (RowError, ImageError):
            continue
        for path in filter(None, map(storage.path_of, raw.images)):
            digest.update(f"{path}:{files.file_size(path)}\n".encode())
            count += 1
    for name in files.names() if count else ():
        if name.endswith((".zip", ".tar")):
            digest.update(f"{name}:{files.file_size(name)}\n".encode())
    return digest.hexdigest() if count else None
