"""The judge's replies on disk, so that no call is paid for twice.

A folder of JSON lines. Every process appends to a file of its own and reads all of them, so
parallel ranks and runs cannot damage each other's lines. A line is one write that begins with a
line break, so that a line cut off by a kill is skipped and damages no other. Failures are not kept.
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


def cache_key(
    server: str, model: str, prompt: str, temperature: float, max_tokens: int, attempt: int
) -> str:
    """What identifies a reply: hash of the server, model, prompt, settings and attempt.

    `attempt` counts an item's calls with the same prompt and temperature from 0, because the
    reference harness repeats a call at the same temperature when a reply is unusable.
    """
    content = [VERSION, server, model, prompt, float(temperature), max_tokens, attempt]
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()


class ReplyCache:
    """The replies in a folder, and this process's file, made when the first reply is added."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = Lock()
        self._file: int | None = None
        self._replies: dict[str, str] = {}
        for path in sorted(folder.glob("replies-*.jsonl")):
            for entry in read_entries(path):
                self._replies.setdefault(entry["key"], entry["reply"])

    def get(self, key: str) -> str | None:
        """The reply of a key, or None."""
        return self._replies.get(key)

    def add(self, key: str, reply: str, **metadata: Any) -> str:
        """Store a reply and return it, or the one that another thread stored first.

        Raises OSError if the line cannot be written whole.
        """
        with self._lock:
            if key in self._replies:
                return self._replies[key]
            self._write({"key": key, "reply": reply, **metadata})
            self._replies[key] = reply
            return reply

    def _write(self, entry: dict[str, Any]) -> None:
        if self._file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            host = "".join(filter(str.isalnum, socket.gethostname()))[:32]
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


def read_entries(path: Path) -> list[dict[str, Any]]:
    """The complete entries of one file; a line cut off by a kill is skipped."""
    entries = []
    for line in path.read_bytes().split(b"\n"):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        match entry:
            case {"key": str(), "reply": str()}:
                entries.append(entry)
    return entries
