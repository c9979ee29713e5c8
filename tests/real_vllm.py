"""A real vLLM for tests of the lane `vllm` (`make test-vllm`): marks, settings, a server."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from difftrain.model.resolve import SHIPPED
from tests.serving import free_port, is_up

MARKS = [
    pytest.mark.slow,
    pytest.mark.vllm,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not find_spec("vllm"), reason="vLLM is not installed: make test-vllm"),
]
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; by default it takes most of the memory
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # by default its threads share one core
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}
"""Settings of vLLM's CPU build on a small machine."""
START_S = 600  # until vLLM answers; it compiles the model the first time


@contextmanager
def serving_vllm(folder: Path, *options: str, model: Path | None = None) -> Iterator[str]:
    """Run `vllm serve` with the tiny model, or another, in a `with` block; yields its address.

    The model's name on the server is its path.
    """
    port, log = free_port(), folder / "vllm.log"
    program = str(Path(sys.executable).parent / "vllm")
    command = [program, "serve", str(model or SHIPPED["tiny"]), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--max-model-len", "2048", "--dtype", "float32", *options]
    environment = os.environ | ENVIRONMENT | {"VLLM_SERVER_DEV_MODE": "1"}
    with log.open("a") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
    url = f"http://127.0.0.1:{port}/v1"
    deadline = time.time() + START_S
    try:
        while not is_up(url):
            assert process.poll() is None, log.read_text()[-3000:]  # the log's end
            assert time.time() < deadline, log.read_text()[-3000:]
            time.sleep(1)
        yield url
    finally:
        process.terminate()  # it ends its engine's process
        process.wait(60)
