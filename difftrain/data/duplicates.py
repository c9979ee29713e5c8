"""Rows that repeat: exactly (pictures, words and gold), or to the eye (the same words and gold, and
pictures that were only re-encoded, resized or retouched).

What has been seen is kept in a temporary file, so that memory does not grow with the rows.
"""

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence

import numpy as np

from difftrain import images
from difftrain.data import prompts
from difftrain.records import Sample

BLOCK = 64
"""Rows compared with all earlier ones of their words at once."""


class Seen:
    """The rows of one reading, by content and by look."""

    def __init__(self) -> None:
        self.held = sqlite3.connect("")  # a file of its own, deleted when closed
        self.held.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;"
            "CREATE TABLE content (id TEXT PRIMARY KEY, source TEXT, times INTEGER) WITHOUT ROWID;"
            "CREATE TABLE alike (row TEXT, first TEXT);"
            "CREATE TABLE looks (number INTEGER PRIMARY KEY, words BLOB, looks BLOB, source TEXT);"
        )

    def before(self, sample: Sample) -> tuple[str, int]:
        """The first row with this content, and how often it had come before; this row is noted."""
        found = self.held.execute(
            "INSERT INTO content VALUES (?, ?, 0) ON CONFLICT (id) DO UPDATE SET times = times + 1 "
            "RETURNING source, times",
            (sample.sample_id, sample.source),
        )
        ((source, times),) = found.fetchall()
        return source, times

    def note(self, sample: Sample, pictures: Sequence[images.DecodedImage]) -> None:
        """Remember how a kept row looks."""
        words = prompts.user_text(sample.question, sample.options)
        asked = " ".join(f"{len(pictures)} {words} {sample.answer}".casefold().split())
        key = hashlib.blake2b(asked.encode(), digest_size=8).digest()
        looks = b"".join(images.dhash(each.to_pil(), images.DEDUP_MARGIN) for each in pictures)
        row = (key, looks, sample.source)
        self.held.execute("INSERT INTO looks (words, looks, source) VALUES (?, ?, ?)", row)

    def alike(self) -> Iterator[tuple[str, str]]:
        """(row, the first earlier row that looks the same), for rows with equal words and gold.

        In the order of the rows' names.
        """
        self.held.execute("CREATE INDEX IF NOT EXISTS by_words ON looks (words)")
        several = self.held.execute("SELECT words FROM looks GROUP BY words HAVING COUNT(*) > 1")
        for (key,) in several:
            told = "SELECT looks, source FROM looks WHERE words = ? ORDER BY number"
            rows = self.held.execute(told, (key,)).fetchall()
            bits = np.frombuffer(b"".join(look for look, _ in rows), dtype=np.uint64)
            found = pairs(bits.reshape(len(rows), -1, 4))
            named = ((rows[later][1], rows[earlier][1]) for later, earlier in found)
            self.held.executemany("INSERT INTO alike VALUES (?, ?)", named)
        yield from self.held.execute("SELECT row, first FROM alike ORDER BY row, first")

    def close(self) -> None:
        """Delete what was noted."""
        self.held.close()


def pairs(looks_NP4: np.ndarray) -> Iterator[tuple[int, int]]:
    """(row, first earlier row) of rows whose P pictures all look alike; looks of 4 x 64 bits."""
    number = len(looks_NP4)
    for start in range(0, number, BLOCK):
        block = looks_NP4[start : start + BLOCK]
        differ = np.bitwise_count(block[:, None] ^ looks_NP4[None, : start + len(block)])
        same = (differ.sum(axis=3, dtype=np.int16) <= images.DEDUP_MAX_BITS).all(axis=2)
        for row, others in enumerate(same):
            earlier = np.flatnonzero(others[: start + row])
            if len(earlier):
                yield start + row, int(earlier[0])
