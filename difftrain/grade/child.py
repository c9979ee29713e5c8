"""One process that can be killed: it is sent lines of JSON and answers with lines of JSON.

A fresh interpreter, not a fork: it shares no memory, no threads and no GPU with its parent, and
nothing but JSON goes between them. Standard library only.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PROGRAM = "difftrain.grade.worker"
_ROOT = Path(__file__).resolve().parents[2]
_TOLD = 2_000
"""Characters of a dead child's last words that are passed on."""


class Child:
    """A running worker process."""

    def __init__(self) -> None:
        path = os.pathsep.join(
            part for part in (str(_ROOT), os.environ.get("PYTHONPATH", "")) if part
        )
        one_thread = dict.fromkeys(
            ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
        )
        self.said = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `kill`)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            env={**os.environ, **one_thread, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""},
        )
        assert self.process.stdin
        assert self.process.stdout
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self.buffer = b""

    @property
    def pid(self) -> int:
        """The process's number."""
        return self.process.pid

    def fileno(self) -> int:
        """Where the child's lines arrive, for a selector."""
        return self.stdout.fileno()

    def send(self, message: dict[str, Any]) -> bool:
        """Send one message; False if the child is gone."""
        try:
            self.stdin.write(json.dumps(message).encode() + b"\n")
            self.stdin.flush()
        except (BrokenPipeError, ValueError):
            return False
        return True

    def receive(self) -> dict[str, Any] | bool | None:
        """The next message; False if only a part of a line is there yet, None if it is gone.

        Called when the selector says that something arrived.
        """
        arrived = os.read(self.fileno(), 1 << 16)
        if not arrived:
            return None
        self.buffer += arrived
        line, end, rest = self.buffer.partition(b"\n")
        if not end:
            return False
        self.buffer = rest
        return json.loads(line)

    def last_words(self) -> str:
        """The end of what the child wrote to its standard error."""
        self.said.seek(0)
        return self.said.read().decode(errors="replace")[-_TOLD:].strip()

    def kill(self) -> None:
        """End the process, whatever it is doing, and forget its pipes."""
        self.process.kill()
        self.process.wait()
        for file in (self.stdin, self.stdout, self.said):
            try:
                file.close()
            except BrokenPipeError:
                continue
