"""Where things come from: identities of samples and stages, the manifest.json that closes a stage.

A stage's fingerprint hashes its own settings and its inputs' fingerprints, so changing a setting
redoes that stage and what follows it, and nothing before it.
"""

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import IO, Any

VERSIONS_OF = ("torch", "transformers", "trl", "accelerate", "numpy", "pillow", "pyarrow")
SAMPLED_CHUNKS, CHUNK_BYTES = 16, 1 << 16
MANIFEST, OLD_MANIFEST = "manifest.json", "made.json"


class SchemaError(ValueError):
    """A file or folder does not hold the columns or the layout that its reader needs."""


def fingerprint(settings: Any, *inputs: str) -> str:
    """Twelve hex digits that name a stage's settings (anything JSON can hold) and its inputs."""
    text = json.dumps([settings, *inputs], sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def file_fingerprint(path: Path) -> str:
    """A file's identity: all of a small file, evenly spaced chunks of a large one (weights)."""
    size = path.stat().st_size
    digest = hashlib.blake2b(str(size).encode(), digest_size=6)
    with path.open("rb") as file:
        if size <= SAMPLED_CHUNKS * CHUNK_BYTES * 64:
            digest.update(file.read())
        else:
            for step in range(SAMPLED_CHUNKS):
                file.seek((size - CHUNK_BYTES) * step // (SAMPLED_CHUNKS - 1))
                digest.update(file.read(CHUNK_BYTES))
    return digest.hexdigest()


def folder_fingerprint(folder: Path) -> str:
    """A model folder's identity, from the names and contents of the files directly in it."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return fingerprint([[path.name, file_fingerprint(path)] for path in files])


def versions() -> dict[str, str]:
    """Versions of the packages whose numbers could change a result."""
    return {name: metadata.version(name) for name in VERSIONS_OF}


def git_revision() -> str | None:
    """The commit this code ran from, `+changes` if the tree was dirty; None outside git."""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty=+changes", "--exclude=*"]
    here = Path(__file__).resolve().parent
    try:
        head = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return head.stdout.strip() or None


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all (atomic_file)."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


@contextmanager
def atomic_file(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """A file to write, of which a reader sees the old one or the whole new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp_path = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with tmp_path.open(mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        tmp_path.replace(path)
    finally:
        tmp_path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all (atomic_file)."""
    with atomic_file(path) as file:
        file.write(text)


def write_manifest(
    folder: Path,
    *,
    settings: Any,
    inputs: Mapping[str, str],
    seconds: float,
    counts: Mapping[str, Any],
) -> None:
    """Finish a stage's folder: manifest.json is written last, and its presence means 'finished'."""
    content = {
        "settings": settings,
        "inputs": dict(inputs),
        "git_revision": git_revision(),
        "versions": versions(),
        "seconds": round(seconds, 3),
        "counts": dict(counts),
        "finished_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    write_json(folder / MANIFEST, content)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a finished stage's folder, or None. Raises what refuse_old_layout raises."""
    try:
        return json.loads((folder / MANIFEST).read_text())
    except (FileNotFoundError, NotADirectoryError):
        refuse_old_layout(folder)
        return None


def refuse_old_layout(folder: Path) -> None:
    """Raise SchemaError if an earlier version of difftrain wrote this stage's or run's folder.

    Its stages end with made.json, and its columns and settings have other names.
    """
    root = folder.parent.parent
    old_run = folder.parent.name == "run" and next(root.glob(f"*/*/{OLD_MANIFEST}"), None)
    if (folder / OLD_MANIFEST).is_file() or old_run:
        raise SchemaError(
            f"{folder} was written by an earlier version of difftrain ({OLD_MANIFEST} instead of "
            f"{MANIFEST}), which this one does not read: set another output_dir=, or delete it"
        )
