"""Starts `transformers serve`, a real server, with the tiny model; for tests marked slow."""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from difftrain.model.resolve import SHIPPED

RESPONSE_TEMPLATE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {"content": {"close_pattern": "<\\|im_end\\|>", "content": "text"}},
}
"""With this template the server does not remove unfinished reasoning from the reply."""


@contextmanager
def serving(parent: Path, port: int | None = None) -> Iterator[tuple[str, str]]:
    """Run the server in a `with` block; yields its address and model name. Skips the test if a
    package that the server needs is missing."""
    for name in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(name)
    folder = parent / "tiny"
    shutil.copytree(SHIPPED["tiny"], folder, dirs_exist_ok=True)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["response_template"] = RESPONSE_TEMPLATE
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    port = port or free_port()
    program = str(Path(sys.executable).parent / "transformers")
    command = [program, "serve", "--host", "127.0.0.1", "--dtype", "float32"]
    with (parent / "log").open("a") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--device", "cpu", str(folder)], stdout=log, stderr=log
        )
    url = f"http://127.0.0.1:{port}/v1"
    deadline = time.time() + 300
    try:
        while not is_up(url):
            assert process.poll() is None, (parent / "log").read_text()[-3000:]  # the log's end
            assert time.time() < deadline
            time.sleep(0.5)
        yield url, str(folder)
    finally:
        process.kill()
        process.wait(30)


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def is_up(url: str) -> bool:
    """Whether a server answers, with any status."""
    try:
        with urllib.request.urlopen(f"{url}/models", timeout=60):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
