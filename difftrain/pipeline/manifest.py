"""Fingerprints of settings and files, and manifest.json, which marks a stage as finished.

A stage's fingerprint hashes its settings and its inputs' fingerprints, so changing a setting
reruns that stage and the stages after it, but no earlier stage.
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

from difftrain.pipeline.stop_request import note_saved

RESULT_PACKAGES = ("torch", "transformers", "trl", "accelerate", "numpy", "pillow", "pyarrow")
WHOLE_FILE_BYTES, NUM_CHUNKS, CHUNK_BYTES = 64 << 20, 16, 1 << 16  # for file_fingerprint
MANIFEST, OLD_MANIFEST = "manifest.json", "made.json"


class SchemaError(ValueError):
    """A file or folder does not hold the columns or the layout that its reader needs."""


def fingerprint(settings: Any, *inputs: str) -> str:
    """Twelve hex digits that identify a stage by its settings (JSON) and its inputs."""
    text = json.dumps([settings, *inputs], sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def file_fingerprint(path: Path) -> str:
    """A hash of a file: of all its bytes, or above WHOLE_FILE_BYTES of evenly spaced chunks."""
    size = path.stat().st_size
    digest = hashlib.blake2b(str(size).encode(), digest_size=6)
    with path.open("rb") as file:
        if size <= WHOLE_FILE_BYTES:
            digest.update(file.read())
        else:
            for index in range(NUM_CHUNKS):
                file.seek((size - CHUNK_BYTES) * index // (NUM_CHUNKS - 1))
                digest.update(file.read(CHUNK_BYTES))
    return digest.hexdigest()


def folder_fingerprint(folder: Path) -> str:
    """A hash of the names and contents of the files directly in a model folder."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return fingerprint([[path.name, file_fingerprint(path)] for path in files])


def versions() -> dict[str, str]:
    """Versions of the packages that could change a result."""
    return {name: metadata.version(name) for name in RESULT_PACKAGES}


def git_revision() -> str | None:
    """The commit of this code, with `+changes` if files were modified; None outside git."""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty=+changes", "--exclude=*"]
    here = Path(__file__).resolve().parent
    try:
        head = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return head.stdout.strip() or None


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file completely or not at all (see atomic_file)."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


@contextmanager
def atomic_file(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a new file to write. Readers get the old file until the new file is complete."""
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
    """Write a text file completely or not at all (see atomic_file)."""
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
    """Write manifest.json as the last file of a stage: it means that the stage is finished."""
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
    note_saved()


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest if the stage is finished, else None. Raises what refuse_old_layout raises."""
    try:
        return json.loads((folder / MANIFEST).read_text())
    except (FileNotFoundError, NotADirectoryError):
        refuse_old_layout(folder)
        return None


def refuse_old_layout(folder: Path) -> None:
    """Raise SchemaError if an earlier version of difftrain wrote this stage's or run's folder.

    That version ended each OUTPUT/STAGE/FINGERPRINT with OLD_MANIFEST, but not OUTPUT/run/NAME.
    """
    root = folder.parent.parent  # OUTPUT
    old_run = folder.parent.name == "run" and next(root.glob(f"*/*/{OLD_MANIFEST}"), None)
    if (folder / OLD_MANIFEST).is_file() or old_run:
        raise SchemaError(
            f"{folder} was written by an earlier version of difftrain ({OLD_MANIFEST} instead of "
            f"{MANIFEST}), and this version cannot read it: set another output_dir=, or delete it"
        )
