"""Replies of the judge on disk, so that what was asked once is never paid for again.

A folder of JSON lines. Every process appends to a file of its own and reads all of them, so ranks
and runs side by side cannot spoil one another; a line is one write to a file opened for appending,
and begins with the line break, so that a line which a killed process left half written is skipped
and spoils no other. Only replies are kept, never failures.
"""

import hashlib
import json
import os
import socket
import time
from pathlib import Path
from threading import Lock
from typing import Any

VERSION = 2
"""Part of every key; a change to what a call sends must change it."""


def key_of(
    server: str, model: str, prompt: str, temperature: float, max_tokens: int, number: int
) -> str:
    """What identifies a reply: server (hashed), model, prompt, settings, and which try it is.

    `number` counts an item's tries at the same prompt and temperature from 0, because the
    reference asks again, at the same temperature, when a reply is of no use.
    """
    content = [VERSION, server, model, prompt, float(temperature), max_tokens, number]
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()


class Replies:
    """The replies in a folder, and the file that this process adds to (made when it first does)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = Lock()
        self._file: int | None = None
        self._known: dict[str, str] = {}
        for path in sorted(folder.glob("replies-*.jsonl")):
            for entry in entries(path):
                self._known.setdefault(entry["key"], entry["reply"])

    def get(self, key: str) -> str | None:
        """The reply under a key, or None."""
        return self._known.get(key)

    def add(self, key: str, reply: str, **beside: Any) -> str:
        """Keep a reply and return it, or the one that another thread kept first.

        Raises OSError if the line cannot be written whole.
        """
        with self._lock:
            if key in self._known:
                return self._known[key]
            self._write({"key": key, "reply": reply, **beside})
            self._known[key] = reply
            return reply

    def _write(self, entry: dict[str, Any]) -> None:
        if self._file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            host = "".join(each for each in socket.gethostname() if each.isalnum())[:32]
            name = f"replies-{host}-{os.getpid()}-{time.time_ns():x}.jsonl"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
            self._file = os.open(self.folder / name, flags, 0o644)
        line = ("\n" + json.dumps(entry)).encode()
        if os.write(self._file, line) < len(line):
            raise OSError(f"no space left for a judge's reply in {self.folder}")

    def close(self) -> None:
        """Close the file; nothing is lost if this is never called."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None


def entries(path: Path) -> list[dict[str, Any]]:
    """The whole entries of one file; what a killed process left half written is skipped."""
    found = []
    for line in path.read_bytes().split(b"\n"):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        match entry:
            case {"key": str(), "reply": str()}:
                found.append(entry)
    return found
