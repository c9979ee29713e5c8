"""A fixture that replaces SLURM's commands."""

import os
from pathlib import Path

import pytest

from tests.sweep.fake_slurm import FAKE_COMMANDS


@pytest.fixture
def sbatch_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Puts FAKE_COMMANDS on the PATH; returns the file that records the calls of sbatch."""
    folder, record = tmp_path / "bin", tmp_path / "record"
    folder.mkdir()
    for name, body in FAKE_COMMANDS.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("RECORD", str(record))
    return record
