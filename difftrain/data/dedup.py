"""Duplicate rows: exact ones (same images, question and answer), and near ones, whose question and
answer are the same and whose images were only re-encoded, resized or retouched.

Rows are kept in a temporary file, so that memory does not grow with them.
"""

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence

import numpy as np

from difftrain import images
from difftrain.data import prompts
from difftrain.images import DecodedImage
from difftrain.records import Sample

BLOCK_ROWS = 64
"""Rows compared at once with all earlier ones of the same text."""


class SeenRows:
    """The rows read so far, by content and by dhash."""

    def __init__(self) -> None:
        self.table = sqlite3.connect("")  # a temporary file, deleted when closed
        self.table.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;"
            "CREATE TABLE content (id TEXT PRIMARY KEY, source TEXT, copies INTEGER) WITHOUT ROWID;"
            "CREATE TABLE near (source TEXT, first TEXT);"
            "CREATE TABLE hashes (number INTEGER PRIMARY KEY, text BLOB, dhash BLOB, source TEXT);"
        )

    def count_copies(self, sample: Sample) -> tuple[str, int]:
        """Add a row; the first row of its content, and how many copies that has (0 for itself)."""
        rows = self.table.execute(
            "INSERT INTO content VALUES (?, ?, 0) "
            "ON CONFLICT (id) DO UPDATE SET copies = copies + 1 RETURNING source, copies",
            (sample.sample_id, sample.source),
        )
        ((source, copies),) = rows.fetchall()
        return source, copies

    def add_hashes(self, sample: Sample, decoded: Sequence[DecodedImage]) -> None:
        """Remember the dhash of a kept row's images."""
        question = prompts.user_text(sample.question, sample.options)
        text = " ".join(f"{len(decoded)} {question} {sample.answer}".casefold().split())
        key = hashlib.blake2b(text.encode(), digest_size=8).digest()
        hashes = [images.dhash(image.to_pil(), images.DEDUP_MARGIN) for image in decoded]
        row = (key, b"".join(hashes), sample.source)
        self.table.execute("INSERT INTO hashes (text, dhash, source) VALUES (?, ?, ?)", row)

    def near_duplicates(self) -> Iterator[tuple[str, str]]:
        """(row, the first earlier row that looks the same), sorted by the rows' places."""
        self.table.execute("CREATE INDEX IF NOT EXISTS by_text ON hashes (text)")
        repeated = self.table.execute("SELECT text FROM hashes GROUP BY text HAVING COUNT(*) > 1")
        query = "SELECT dhash, source FROM hashes WHERE text = ? ORDER BY number"
        for (key,) in repeated:
            rows = self.table.execute(query, (key,)).fetchall()
            bits = np.frombuffer(b"".join(dhash for dhash, _ in rows), dtype=np.uint64)
            pairs = similar_pairs(bits.reshape(len(rows), -1, 4))
            sources = ((rows[later][1], rows[earlier][1]) for later, earlier in pairs)
            self.table.executemany("INSERT INTO near VALUES (?, ?)", sources)
        yield from self.table.execute("SELECT source, first FROM near ORDER BY source, first")

    def close(self) -> None:
        """Delete the temporary file."""
        self.table.close()


def similar_pairs(dhash_NI4: np.ndarray) -> Iterator[tuple[int, int]]:
    """(row, first earlier row) for rows whose I images all look alike; a dhash is 4 x 64 bits."""
    num_rows = len(dhash_NI4)
    for start in range(0, num_rows, BLOCK_ROWS):
        block = dhash_NI4[start : start + BLOCK_ROWS]
        bits = np.bitwise_count(block[:, None] ^ dhash_NI4[None, : start + len(block)])
        distance = bits.sum(axis=3, dtype=np.int16)
        similar = (distance <= images.DEDUP_MAX_BITS).all(axis=2)
        for row, others in enumerate(similar, start):
            earlier = np.flatnonzero(others[:row])
            if len(earlier):
                yield row, int(earlier[0])
