"""The samples of whichever source the settings name, and that stream's fingerprint.

A format (formats.py) turns a row into a RawRow; everything after that is here, once, so that every
source gives the same Sample: decoding images, checking the gold answer, finding duplicates. Not
here: reading rows (readers.py).
"""

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from difftrain import images
from difftrain.config.data import DataConfig, Duplicates, Source
from difftrain.config.setting import counted_settings
from difftrain.data import answers, prompts, storage
from difftrain.data.formats import FORMATS, RawRow
from difftrain.data.quarantine import EmptyDatasetError, RejectedRow, RowError
from difftrain.data.readers import read_rows
from difftrain.data.storage import Folder, Storage
from difftrain.grade import gold_problem
from difftrain.images import DecodedImage, ImageError, PixelBudget
from difftrain.pipeline import manifest
from difftrain.records import AnswerKind, Sample
from difftrain.shapes import pool

MAX_SCAN_BYTES = 64 << 20  # a larger jsonl or json is not scanned for the images it names
BLOCK_ROWS = 64  # whose images are compared at once with all earlier ones of the same text
NOT_ROWS = {"dataset_info.json", "dataset_infos.json", "state.json"}  # about a dataset, beside it


@dataclass(slots=True)
class DatasetStats:
    """What was counted besides samples and rejected rows.

    `other_tasks` are rows of tasks that data.tasks leaves out; exact duplicates are dropped or
    kept. `near_duplicates` are the places of a row and of the first that looks the same, sorted.
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
    """The first `limit` rows of the source, each a Sample or RejectedRow; read one by one.

    Raises EmptyDatasetError where no file holds rows, HubUnavailable where the hub does not answer.
    """
    if config.source is Source.shapes:
        samples = pool.samples(pool.Split.pool, config.num_samples, config.world_seed)
        return islice(samples, config.limit)
    return _deduplicate(config, stats or DatasetStats())


def _deduplicate(config: DataConfig, stats: DatasetStats) -> Iterator[Sample | RejectedRow]:
    """Rows of files; exact duplicates are rejected or given an id of their own.

    Exact duplicates have the same images, question and answer. Near duplicates have the same
    question and answer, and images that were only re-encoded, resized or retouched.
    """
    # The rows read so far are in a temporary file, deleted when closed, and not in memory.
    with closing(sqlite3.connect("")) as table:
        table.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;")
        table.execute("CREATE TABLE content (id PRIMARY KEY, source, copies) WITHOUT ROWID")
        table.execute("CREATE TABLE hashes (text, dhash, source)")
        for row in islice(_convert_rows(config, stats), config.limit):
            if isinstance(row, RejectedRow):
                yield row
                continue
            sample, decoded = row
            rows = table.execute(
                "INSERT INTO content VALUES (?, ?, 0) "
                "ON CONFLICT (id) DO UPDATE SET copies = copies + 1 RETURNING source, copies",
                (sample.sample_id, sample.source),
            )
            ((first, copies),) = rows.fetchall()
            stats.exact_duplicates += copies > 0
            if copies and config.duplicates is Duplicates.drop:
                reason = f"duplicate: the same images, question and answer as {first}"
                yield RejectedRow(sample.source, reason)
                continue
            counts = stats.images
            for image in decoded:
                counts["count"] += 1
                counts["resized"] += image.size != image.original_size
                counts["tokens"] += image.num_tokens
                counts["max_tokens"] = max(counts["max_tokens"], image.num_tokens)
            if copies:
                yield replace(sample, sample_id=images.copy_id(sample.sample_id, copies))
                continue
            question = prompts.user_text(sample.question, sample.options)
            text = " ".join(f"{len(decoded)} {question} {sample.answer}".casefold().split())
            key = hashlib.blake2b(text.encode(), digest_size=8).digest()
            hashes = [images.dhash(image.to_pil(), images.DEDUP_MARGIN) for image in decoded]
            values = (key, b"".join(hashes), sample.source)
            table.execute("INSERT INTO hashes VALUES (?, ?, ?)", values)
            yield sample
        stats.near_duplicates += sorted(_near_duplicates(table))


def _near_duplicates(table: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    table.execute("CREATE INDEX by_text ON hashes (text)")
    for key in table.execute("SELECT text FROM hashes GROUP BY text HAVING COUNT(*) > 1"):
        query = "SELECT dhash, source FROM hashes WHERE text = ? ORDER BY rowid"
        hashes, sources = zip(*table.execute(query, key), strict=True)
        bits = np.frombuffer(b"".join(hashes), dtype=np.uint64)
        for later, earlier in similar_pairs(bits.reshape(len(hashes), -1, 4)):
            yield sources[later], sources[earlier]


def similar_pairs(dhash_NI4: np.ndarray) -> Iterator[tuple[int, int]]:
    """(row, first earlier row) for rows whose I images all look alike; a dhash is 4 x 64 bits."""
    for start in range(0, len(dhash_NI4), BLOCK_ROWS):
        block = dhash_NI4[start : start + BLOCK_ROWS]
        bits = np.bitwise_count(block[:, None] ^ dhash_NI4[None, : start + len(block)])
        similar = (bits.sum(axis=3, dtype=np.int16) <= images.DEDUP_MAX_BITS).all(axis=2)
        for row, others in enumerate(similar, start):
            if others[:row].any():
                yield row, int(others.argmax())


def _convert_rows(
    config: DataConfig, stats: DatasetStats
) -> Iterator[tuple[Sample, list[DecodedImage]] | RejectedRow]:
    """Every row of the files as Sample with its decoded images, or as RejectedRow."""
    files, names = _find_files(config)
    for place, row in read_rows(files, names):
        try:
            raw = FORMATS[config.source].convert(row, files, place)
            if config.tasks is not None and raw.task not in config.tasks:
                stats.other_tasks += 1
                continue
            yield _convert(raw, place, files, config)
        except (RowError, ImageError) as error:
            yield RejectedRow(place, str(error))


def _convert(
    row: RawRow, place: str, files: Storage, config: DataConfig
) -> tuple[Sample, list[DecodedImage]]:
    """A row as Sample, and its decoded images. Raises RowError or ImageError."""

    def check_gold() -> None:
        if problem := gold_problem(answer, kind, row.options):
            raise answers.GoldError(problem)

    kind = row.answer_kind or answers.infer_kind(row.gold, row.task, row.question, row.options)
    is_choice, has_boxes = kind is AnswerKind.choice, kind is AnswerKind.boxes
    answer = answers.choice_letter(row.gold, row.options) if is_choice else row.gold
    if not answer:
        raise answers.GoldError("it is empty")
    if not has_boxes:
        check_gold()
    decoded = []
    for reference in row.images:
        image = storage.resolve_reference(reference)
        if isinstance(image, str):
            image = row.find_image(files, image) if row.find_image else files.read_image(image)
        decoded.append(images.decode(image, PixelBudget(config.min_pixels, config.max_pixels)))
    if row.blank_is_none and all(image.is_white for image in decoded):
        raise ImageError("no image: only the blank one that means there is none")
    if has_boxes:
        if len(decoded) != 1:
            raise answers.GoldError(f"boxes need exactly one image, not {len(decoded)}")
        box_format = row.box_format or config.box_format
        answer = answers.boxes_in_model_pixels(answer, decoded[0], box_format)
        check_gold()
    # The options are part of the question: the same text with other options is another row.
    # White space around it is not, so that an exported row keeps its id when it is read again.
    text = prompts.user_text(row.question, row.options).strip()
    sample = Sample(
        sample_id=images.sample_id([(image.size, image.rgb) for image in decoded], text, answer),
        images=tuple(image.png for image in decoded),
        question=row.question,
        answer=answer,
        answer_kind=kind,
        options=row.options,
        task=row.task,
        task_set=answers.task_set(row.task, kind),
        source=place,
        rationale=row.rationale,
    )
    return sample, decoded


def _is_file(config: DataConfig) -> bool:
    return not config.on_hub and not Path(config.path or "").expanduser().is_dir()


def _find_files(config: DataConfig) -> tuple[Storage, list[str]]:
    """The files of the split and those whose names tell none. Raises EmptyDatasetError for none."""
    files, form = storage.storage_of(config), FORMATS[config.source]
    if _is_file(config):
        names = [Path(config.path or "").name]
    else:
        names = [name for name in files.names() if name.endswith(form.suffixes)]
        names = [name for name in names if PurePosixPath(name).name not in NOT_ROWS]
        names = [name for name in names if storage.split_of(name) in (None, config.split)]
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
    rows = () if config.source is Source.shapes else read_rows(*_find_files(config))
    return ((place, row) for place, row in rows if not isinstance(row, RowError))


def fingerprint(config: DataConfig) -> str:
    """Twelve hex digits that change when the samples would.

    A file keeps its fingerprint when it is moved with its images; its name counts, because
    Sample.source has it. An image replaced by one of exactly its size in bytes is missed.
    """
    kind = "shapes" if config.source is Source.shapes else "files"
    return manifest.fingerprint([counted_settings(config, kind, own=False), inputs(config)])


def inputs(config: DataConfig) -> dict[str, str]:
    """Fingerprints of what is read: files by content, images by size, a hub dataset by commit."""
    if config.source is Source.shapes:
        return {}
    files, names = _find_files(config)
    fingerprints = files.fingerprints(names)
    if isinstance(files, Folder) and (sizes := _image_sizes(files, names, config)):
        fingerprints["images"] = sizes
    return fingerprints


def _image_sizes(files: Folder, names: list[str], config: DataConfig) -> str | None:
    """A digest of name and size of every image file that rows of text files name, or None.

    A replaced image nearly always has another size. Times do not count, because a copied folder
    must keep its fingerprint, or weeks of probing are lost. Larger text files (MAX_SCAN_BYTES) and
    parquet, which mostly holds its images, are not scanned.
    """
    digest, count = hashlib.blake2b(digest_size=6), 0
    texts = [name for name in names if not name.endswith(".parquet")]
    small = [name for name in texts if (files.root / name).stat().st_size <= MAX_SCAN_BYTES]
    for place, row in islice(read_rows(files, small), config.limit):
        with suppress(RowError, ImageError):
            for reference in FORMATS[config.source].convert(row, files, place).images:
                with suppress(ImageError):
                    if isinstance(path := storage.resolve_reference(reference), str):
                        digest.update(f"{path}:{files.file_size(path)}\n".encode())
                        count += 1
    for name in files.names() if count and not _is_file(config) else ():
        if name.endswith((".zip", ".tar")):
            digest.update(f"{name}:{files.file_size(name)}\n".encode())
    return digest.hexdigest() if count else None
