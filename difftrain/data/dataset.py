"""Turns the rows of the configured source into Samples, and computes the source's fingerprint.

readers.py reads rows, and formats.py turns a row of any format into a RawRow. For all formats alike
this module decodes images, checks the gold answer and finds duplicates. A row's location is
"FILE:NUMBER".
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from difftrain import images
from difftrain.config.data import DataConfig, Duplicates, Source, TextOnly
from difftrain.config.setting import hashed_settings
from difftrain.data import answers, prompts, storage
from difftrain.data.convert import RawRow, RowContext
from difftrain.data.formats import FORMATS
from difftrain.data.quarantine import EmptyDatasetError, RejectedRow, RowError
from difftrain.data.readers import read_rows
from difftrain.data.storage import Folder, Storage
from difftrain.grade import gold_problem
from difftrain.images import DecodedImage, ImageError, PixelBudget
from difftrain.pipeline import manifest
from difftrain.records import AnswerKind, Sample
from difftrain.shapes import pool

MAX_SCAN_BYTES = 64 << 20  # larger jsonl and json files are not scanned for image paths
BLOCK_ROWS = 64  # rows compared at once with all earlier rows of the same text
# Files that hold no rows.
METADATA_FILES = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}


@dataclass(slots=True)
class DatasetStats:
    """Counts for the manifest, besides those of samples and of rejected rows.

    `other_tasks` is the number of rows whose task is not in data.tasks. `near_duplicates` holds
    (location of the row, location of the first row that looks the same), sorted.
    """

    other_tasks: int = 0
    exact_duplicates: int = 0
    near_duplicates: list[tuple[str, str]] = field(default_factory=list)
    images: dict[str, int] = field(
        default_factory=lambda: {"count": 0, "resized": 0, "tokens": 0, "max_tokens": 0}
    )


def load_samples(
    config: DataConfig, stats: DatasetStats | None = None
) -> Iterator[Sample | RejectedRow]:
    """Yields each of the first `limit` rows of the source as a Sample or a RejectedRow.

    Raises EmptyDatasetError if no file matches, HubUnavailable if the hub does not answer.
    """
    if config.source is Source.shapes:
        samples = pool.samples(pool.Split.pool, config.num_samples, config.world_seed, config.mix)
        return islice(samples, config.limit)
    return _deduplicate(config, stats or DatasetStats())


def _deduplicate(config: DataConfig, stats: DatasetStats) -> Iterator[Sample | RejectedRow]:
    """Rejects exact duplicates, or gives each its own id; adds near duplicates to `stats`.

    Exact duplicates have the same images, question and answer. Near duplicates have the same
    question and answer, and images with similar perceptual hashes (dhash), such as resized ones.
    """
    # The name "" means a temporary file. It saves memory and needs no journal: a crash deletes it.
    with closing(sqlite3.connect("")) as database:
        database.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;")
        database.execute("CREATE TABLE content (id PRIMARY KEY, location, copies) WITHOUT ROWID")
        database.execute("CREATE TABLE hashes (text_hash, dhash, location)")
        for row in islice(_convert_rows(config, stats), config.limit):
            if isinstance(row, RejectedRow):
                yield row
                continue
            sample, decoded = row
            cursor = database.execute(
                "INSERT INTO content VALUES (?, ?, 0) "
                "ON CONFLICT (id) DO UPDATE SET copies = copies + 1 RETURNING location, copies",
                (sample.sample_id, sample.source),
            )
            ((first_location, num_copies),) = cursor.fetchall()
            stats.exact_duplicates += num_copies > 0
            if num_copies and config.duplicates is Duplicates.drop:
                reason = f"duplicate: the same images, question and answer as {first_location}"
                yield RejectedRow(sample.source, reason)
                continue
            image_counts = stats.images
            for image in decoded:
                image_counts["count"] += 1
                image_counts["resized"] += image.size != image.original_size
                image_counts["tokens"] += image.num_tokens
                image_counts["max_tokens"] = max(image_counts["max_tokens"], image.num_tokens)
            if num_copies:  # an exact duplicate is not reported as a near one
                yield replace(sample, sample_id=images.copy_id(sample.sample_id, num_copies))
                continue
            question = prompts.user_text(sample.question, sample.options)
            text = " ".join(f"{len(decoded)} {question} {sample.answer}".casefold().split())
            text_hash = hashlib.blake2b(text.encode(), digest_size=8).digest()
            hashes = [images.dhash(image.to_pil(), images.DEDUP_MARGIN) for image in decoded]
            values = (text_hash, b"".join(hashes), sample.source)
            database.execute("INSERT INTO hashes VALUES (?, ?, ?)", values)
            yield sample
        stats.near_duplicates += sorted(_near_duplicates(database))


def _near_duplicates(database: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """Yields (location of a row, location of the first row that looks the same)."""
    database.execute("CREATE INDEX by_text ON hashes (text_hash)")
    repeated = "SELECT text_hash FROM hashes GROUP BY text_hash HAVING COUNT(*) > 1"
    for key in database.execute(repeated):
        query = "SELECT dhash, location FROM hashes WHERE text_hash = ? ORDER BY rowid"
        hashes, locations = zip(*database.execute(query, key), strict=True)
        bits = np.frombuffer(b"".join(hashes), dtype=np.uint64)
        for later, first in similar_pairs(bits.reshape(len(hashes), -1, 4)):
            yield locations[later], locations[first]


def similar_pairs(dhash_NI4: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yields (row, first similar row). Axes: N rows, I images of a row, 4 x 64 bits of a dhash."""
    for start in range(0, len(dhash_NI4), BLOCK_ROWS):
        block = dhash_NI4[start : start + BLOCK_ROWS]
        differing_bits = np.bitwise_count(block[:, None] ^ dhash_NI4[None, : start + len(block)])
        similar = (differing_bits.sum(axis=3, dtype=np.int16) <= images.DEDUP_MAX_BITS).all(axis=2)
        for row, is_similar in enumerate(similar, start):
            if is_similar[:row].any():
                yield row, int(is_similar.argmax())


def _convert_rows(
    config: DataConfig, stats: DatasetStats
) -> Iterator[tuple[Sample, list[DecodedImage]] | RejectedRow]:
    """Yields each row of the files as a Sample with its decoded images, or as a RejectedRow."""
    files, names = _find_files(config)
    for location, row in read_rows(files, names):
        try:
            raw = FORMATS[config.source].convert(row, RowContext(files, location, config))
            if config.tasks is not None and raw.task not in config.tasks:
                stats.other_tasks += 1
                continue
            yield _convert(raw, location, files, config)
        except (RowError, ImageError) as error:
            yield RejectedRow(location, str(error))


def _convert(
    row: RawRow, location: str, files: Storage, config: DataConfig
) -> tuple[Sample, list[DecodedImage]]:
    """The Sample of a row, and its decoded images. Raises RowError or ImageError."""
    golds = row.accepted or (row.gold,)
    kind = row.answer_kind or answers.infer_kind_of_all(golds, row.task, row.question, row.options)
    has_boxes = kind is AnswerKind.boxes
    if has_boxes and not row.gold:
        raise answers.GoldError("it is empty")
    accepted = golds if has_boxes else answers.gradable_answers(golds, kind, row.options)
    decoded = []
    for reference in row.images:
        image = storage.resolve_reference(reference)
        if isinstance(image, str):
            image = row.find_image(files, image) if row.find_image else files.read_image(image)
        budget = PixelBudget(config.min_pixels, config.max_pixels, config.side)
        decoded.append(images.decode(image, budget))
    if decoded and row.blank_is_none and all(image.is_white for image in decoded):
        if config.text_only is TextOnly.reject:
            raise ImageError("no image: only the blank image of a text-only row")
        decoded = []
    answer = accepted[0]
    if has_boxes:
        if len(decoded) != 1:
            raise answers.GoldError(f"boxes need exactly one image, not {len(decoded)}")
        box_format = row.box_format or config.box_format
        answer = answers.boxes_in_model_pixels(row.gold, decoded[0], box_format)
        if problem := gold_problem(answer, kind, row.options):
            raise answers.GoldError(problem)
    # The id hashes the options, as the same question with other options is another sample. It omits
    # outer white space, so an exported row has the same id when it is read again.
    text = prompts.user_text(row.question, row.options).strip()
    sample = Sample(
        sample_id=images.sample_id([(image.size, image.rgb) for image in decoded], text, answer),
        images=tuple(image.png for image in decoded),
        question=row.question,
        answer=answer,
        answer_kind=kind,
        options=row.options,
        accepted=accepted if len(accepted) > 1 else (),
        task=row.task,
        task_set=answers.task_set(row.task, kind),
        source=location,
        rationale=row.rationale,
        extra=json.dumps(row.extra, ensure_ascii=False) if row.extra else None,
    )
    return sample, decoded


def _is_file(config: DataConfig) -> bool:
    """Whether data.path names a single file."""
    return not config.on_hub and not Path(config.path or "").expanduser().is_dir()


def _is_metadata(name: str) -> bool:
    """Whether a file of this name has no rows of its own; `datasets` caches results of map()."""
    return name in METADATA_FILES or (name.startswith("cache-") and name.endswith(".arrow"))


def _find_files(config: DataConfig) -> tuple[Storage, list[str]]:
    """The Storage, and the names of the files to read. Raises EmptyDatasetError if none match."""
    files, row_format = storage.storage_of(config), FORMATS[config.source]
    if _is_file(config):
        names = [Path(config.path or "").name]
    else:
        names = [name for name in files.names() if name.endswith(row_format.suffixes)]
        names = [name for name in names if not _is_metadata(PurePosixPath(name).name)]
        names = [name for name in names if storage.split_of(name) in (None, config.split)]
    if config.tasks is not None:
        names = [name for name in names if row_format.task_of_file(name) in (None, *config.tasks)]
    if not names:
        raise EmptyDatasetError(
            f"{config.path} holds no {' or '.join(row_format.suffixes)} file for "
            f"source={config.source.value}, split={config.split}, tasks={config.tasks or 'all'}"
        )
    return files, names


def original_rows(config: DataConfig) -> Iterator[tuple[str, dict[str, Any]]]:
    """(location, row) of every row that is a JSON object, unconverted; nothing for shapes."""
    rows = () if config.source is Source.shapes else read_rows(*_find_files(config))
    return ((location, row) for location, row in rows if not isinstance(row, RowError))


def fingerprint(config: DataConfig) -> str:
    """Twelve hex digits that change if the samples change.

    Moving a file together with its images changes nothing; renaming it does, because Sample.source
    names it. A replaced image goes unnoticed if its size in bytes is the same.
    """
    stage = "shapes" if config.source is Source.shapes else "files"  # see DataConfig
    settings = hashed_settings(config, stage, own=False)
    if stage == "files":
        settings |= config.side_for_fingerprint
    return manifest.fingerprint([settings, inputs(config)])


def inputs(config: DataConfig) -> dict[str, str]:
    """Fingerprints of the input: files by content, images by size, a hub dataset by commit."""
    if config.source is Source.shapes:
        return {}
    files, names = _find_files(config)
    fingerprints = files.fingerprints(names)
    if isinstance(files, Folder) and (sizes := _image_sizes(files, names, config)):
        fingerprints["images"] = sizes
    return fingerprints


def _image_sizes(files: Folder, names: list[str], config: DataConfig) -> str | None:
    """A digest of the names and sizes of all image files that jsonl and json rows name, or None.

    A replaced image nearly always has another size. File times are ignored, so a copied folder
    keeps its fingerprint; otherwise all its responses, maybe weeks of work, would be sampled again.
    Files over MAX_SCAN_BYTES, and parquet and arrow files, which mostly contain their images, are
    not scanned.
    """
    digest, count = hashlib.blake2b(digest_size=6), 0
    texts = [name for name in names if not name.endswith((".parquet", ".arrow"))]
    scanned = [name for name in texts if (files.root / name).stat().st_size <= MAX_SCAN_BYTES]
    for location, row in islice(read_rows(files, scanned), config.limit):
        with suppress(RowError, ImageError):
            context = RowContext(files, location, config)
            for reference in FORMATS[config.source].convert(row, context).images:
                with suppress(ImageError):
                    if isinstance(path := storage.resolve_reference(reference), str):
                        digest.update(f"{path}:{files.file_size(path)}\n".encode())
                        count += 1
    for name in files.names() if count and not _is_file(config) else ():
        if name.endswith((".zip", ".tar")):
            digest.update(f"{name}:{files.file_size(name)}\n".encode())
    return digest.hexdigest() if count else None
