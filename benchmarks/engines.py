"""Compare how many responses per second the engines hf (transformers, in this process) and http
(a client of a server) generate.

    python benchmarks/engines.py [--samples N] [--concurrency N]

Both get the same greedy requests to the tiny model, so they must give the same responses. This
script starts and stops the server, `transformers serve`. That server handles one request at a time,
whereas vLLM batches all open requests: the result does not hold for every server. Writes
benchmarks/results/engines.md and .json. About two minutes on two cores.
"""

import argparse
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from difftrain import images
from difftrain.cli.overrides import compose_config
from difftrain.config.model import EngineKind, ModelConfig, ServerConfig
from difftrain.config.run_config import resolve
from difftrain.data import prompts
from difftrain.model.engines import server_check
from difftrain.model.engines.hf import HfEngine
from difftrain.model.engines.types import Engine, Request, Result, generate_all
from difftrain.model.loading import load
from difftrain.model.resolve import SHIPPED
from difftrain.pipeline import manifest
from difftrain.shapes import pool

RESULTS = Path(__file__).parent / "results"
RESPONSE_TEMPLATE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {"content": {"close_pattern": "<\\|im_end\\|>", "content": "text"}},
}
"""With this template the server returns the whole text, even if the reasoning is unfinished."""


@contextmanager
def serving(parent: Path) -> Iterator[tuple[str, str]]:
    """Run `transformers serve` with the tiny model; yields its address and the model's name."""
    folder = parent / "tiny"
    shutil.copytree(SHIPPED["tiny"], folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps(settings | {"response_template": RESPONSE_TEMPLATE})
    )
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    program = str(Path(sys.executable).parent / "transformers")
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    options += ["--dtype", "float32"]
    with (parent / "log").open("w") as log:
        process = subprocess.Popen(
            [program, "serve", *options, str(folder)], stdout=log, stderr=log
        )
    url, deadline = f"http://127.0.0.1:{port}/v1", time.time() + 300
    try:
        while not is_up(url):
            if process.poll() is not None or time.time() > deadline:
                raise SystemExit((parent / "log").read_text()[-3000:])  # the end of the log
            time.sleep(0.5)
        yield url, str(folder)
    finally:
        process.kill()
        process.wait()


def is_up(url: str) -> bool:
    """Whether a server answers at this address, with any HTTP status."""
    try:
        with urllib.request.urlopen(f"{url}/models", timeout=60):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def build_requests(count: int, max_new_tokens: int) -> list[Request]:
    """Greedy requests for the first samples of the built-in training pool (shapes/pool.py).

    Each of these samples has one image, a drawing of colored shapes.
    """
    return [
        Request(
            parts=(
                images.from_png(sample.images[0]),
                prompts.user_text(sample.question, sample.options),
            ),
            max_new_tokens=max_new_tokens,
        )
        for sample in pool.samples(pool.Split.pool, count)
    ]


def time_requests(engine: Engine, batch: list[Request]) -> tuple[list[Result], dict[str, Any]]:
    """The results of these requests and how long they took."""
    generate_all(engine, batch[:4])  # warm up
    started = time.perf_counter()
    results = generate_all(engine, batch)
    seconds = time.perf_counter() - started
    return results, {
        "seconds": seconds,
        "responses_per_second": len(results) / seconds,
        "info": engine.info,
    }


def page(result: dict[str, Any]) -> str:
    """The content of engines.md."""
    rows = [
        f"| {name} | {timing['seconds']:.1f} | {timing['responses_per_second']:.1f} |"
        for name, timing in result["engines"].items()
    ]
    same = f"{result['same']} of {result['requests']} responses are identical."
    return "\n".join(
        [
            "# hf against http",
            "",
            f"`{result['command']}`",
            "",
            f"{result['requests']} greedy requests with an image each, model "
            f"{result['model']}, at most {result['max_new_tokens']} new tokens, "
            f"{result['threads']} thread(s) each, {result['machine']}. http uses `transformers "
            f"serve` {result['versions']['transformers']} on the same machine, "
            f"{result['open_requests']} requests open; it handles one at a time, hf up to "
            f"{result['batch_size']} together.",
            "",
            "| engine | seconds | responses per second |",
            "|---|--:|--:|",
            *rows,
            "",
            f"hf gives **{result['ratio']:.1f} times** as many responses per second. {same} "
            f"The server, as difftrain found it: {json.dumps(result['engines']['http']['info'])}.",
            "",
        ]
    )


def main() -> None:
    """Time both engines and write the result; exit code 1 if a response is missing or differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=120, help="number of requests")
    parser.add_argument(
        "--concurrency", type=int, default=4, help="requests that the server gets at the same time"
    )
    arguments = parser.parse_args()
    config = resolve(compose_config([]))
    batch = build_requests(arguments.samples, config.probe.max_new_tokens)
    results, engines = {}, {}
    loaded = load(config.model, config.data.min_pixels, config.data.max_pixels)
    hf_engine = HfEngine(loaded, config.model)
    results["hf"], engines["hf"] = time_requests(hf_engine, batch)
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as (url, model):
        server = ServerConfig(name=model, max_concurrency=arguments.concurrency)
        http_config: ModelConfig = replace(
            config.model, engine=EngineKind.http, url=url, server=server
        )
        http_engine = server_check.connect(http_config, config.data.max_pixels)
        results["http"], engines["http"] = time_requests(http_engine, batch)
        http_engine.close()
    # The server's name for the model is a temporary folder; the results should not contain it.
    engines["http"]["info"] |= {"served": "tiny"}
    # A failed request has an error instead of a text.
    texts = [[getattr(r, "text", None) for r in of_engine] for of_engine in results.values()]
    same = sum(a == b and a is not None for a, b in zip(*texts, strict=True))
    result = {
        "requests": len(batch),
        "engines": engines,
        "ratio": engines["hf"]["responses_per_second"] / engines["http"]["responses_per_second"],
        "same": same,
        "model": config.model.name,
        "batch_size": config.model.batch_size,
        "open_requests": arguments.concurrency,
        "max_new_tokens": config.probe.max_new_tokens,
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": manifest.versions() | {"openai": metadata.version("openai")},
        "command": f"python benchmarks/engines.py --samples {arguments.samples} "
        f"--concurrency {arguments.concurrency}",
    }
    manifest.write_json(RESULTS / "engines.json", result)
    manifest.write_text(RESULTS / "engines.md", page(result))
    print(json.dumps(result, indent=2))
    raise SystemExit(int(same < len(batch)))


if __name__ == "__main__":
    main()
