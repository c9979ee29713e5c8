"""Answers per second of the engines hf and http, same model, same requests, one run.

    python benchmarks/engines.py [--samples N] [--open N]

The http engine asks `transformers serve` with the tiny model on this machine, started and ended
here. Greedy, so that both must say the same. Writes benchmarks/results/engines.md and .json.
About two minutes on two cores. What it measures is the engine's own cost and this server's, which
answers one request at a time; vLLM and its like batch what is open.
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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx
import torch

from difftrain import images
from difftrain.cli.overrides import compose_config
from difftrain.config.engine import EngineKind, ServerConfig
from difftrain.config.model import ModelConfig
from difftrain.config.run_config import resolve
from difftrain.data import prompts
from difftrain.model.engines import create
from difftrain.model.engines.types import Engine, Request, Result, generate_all
from difftrain.model.loading import load
from difftrain.model.resolve import SHIPPED
from difftrain.pipeline import manifest
from difftrain.shapes import pool

RESULTS = Path(__file__).parent / "results"
WHOLE_TEXT = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {"content": {"close_pattern": "<\\|im_end\\|>", "content": "text"}},
}
"""Tells the server not to take the tiny model's unfinished thoughts out of its answer."""


@contextmanager
def serving(parent: Path) -> Iterator[tuple[str, str]]:
    """Address and model name of `transformers serve` with the tiny model."""
    folder = parent / "tiny"
    shutil.copytree(SHIPPED["tiny"], folder)
    told = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps(told | {"response_template": WHOLE_TEXT})
    )
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    program = str(Path(sys.executable).parent / "transformers")
    place = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    place += ["--dtype", "float32"]
    with (parent / "log").open("w") as log:
        process = subprocess.Popen([program, "serve", *place, str(folder)], stdout=log, stderr=log)
    url, until = f"http://127.0.0.1:{port}/v1", time.time() + 300
    try:
        while not is_up(url):
            if process.poll() is not None or time.time() > until:
                raise SystemExit((parent / "log").read_text()[-3000:])
            time.sleep(0.5)
        yield url, str(folder)
    finally:
        process.kill()
        process.wait()


def is_up(url: str) -> bool:
    """Whether somebody answers; what, does not matter."""
    try:
        httpx.get(f"{url}/models", timeout=60)
    except httpx.HTTPError:
        return False
    return True


def requests(number: int, most: int) -> list[Request]:
    """Greedy requests for the first samples of the default pool."""
    return [
        Request(
            parts=(
                images.from_png(sample.images[0]),
                prompts.user_text(sample.question, sample.options),
            ),
            max_new_tokens=most,
        )
        for sample in pool.samples(pool.Split.pool, number)
    ]


def timed(asked: Engine, wanted: list[Request]) -> tuple[list[Result], dict[str, Any]]:
    """The answers, and what they took, after a warm-up."""
    generate_all(asked, wanted[:4])
    started = time.perf_counter()
    found = generate_all(asked, wanted)
    seconds = time.perf_counter() - started
    return found, {
        "seconds": seconds,
        "answers_per_second": len(found) / seconds,
        "about": asked.info,
    }


def page(result: dict[str, Any]) -> str:
    """The result as text."""
    rows = [
        f"| {name} | {each['seconds']:.1f} | {each['answers_per_second']:.1f} |"
        for name, each in result["engines"].items()
    ]
    same = f"{result['same']} of {result['requests']} answers are the same, letter by letter."
    return "\n".join(
        [
            "# hf against http",
            "",
            f"`{result['command']}`",
            "",
            f"{result['requests']} greedy requests with a picture each, model "
            f"{result['model']}, at most {result['max_new_tokens']} new tokens, "
            f"{result['threads']} thread(s) each, {result['machine']}. http asks `transformers "
            f"serve` {result['versions']['transformers']} on the same machine, "
            f"{result['open_requests']} requests open; it answers one at a time, hf up to "
            f"{result['batch_size']} together.",
            "",
            "| engine | seconds | answers per second |",
            "|---|--:|--:|",
            *rows,
            "",
            f"hf answers **{result['ratio']:.1f} times** as many in a second. {same} What the "
            f"trial found of the server: {json.dumps(result['engines']['http']['about'])}.",
            "",
        ]
    )


def main() -> None:
    """Time both engines; exit code 1 if an answer is lost or differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=120)
    parser.add_argument("--open", type=int, default=4)
    arguments = parser.parse_args()
    config = resolve(compose_config([]))
    wanted = requests(arguments.samples, config.probe.max_new_tokens)
    pixels = config.data.min_pixels, config.data.max_pixels
    found, engines = {}, {}
    loaded = load(config.model, *pixels)
    here = create.create_engine(config.model, lambda: loaded, pixels)
    found["hf"], engines["hf"] = timed(here, wanted)
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as (url, model):
        served = ServerConfig(name=model, max_concurrency=arguments.open)
        there: ModelConfig = replace(config.model, engine=EngineKind.http, url=url, server=served)
        asked = create.create_engine(there, lambda: loaded, pixels)
        found["http"], engines["http"] = timed(asked, wanted)
        asked.close()
    engines["http"]["about"] |= {"served": "tiny"}
    words = [[getattr(each, "text", None) for each in one] for one in found.values()]
    same = sum(a == b and a is not None for a, b in zip(*words, strict=True))
    result = {
        "requests": len(wanted),
        "engines": engines,
        "ratio": engines["hf"]["answers_per_second"] / engines["http"]["answers_per_second"],
        "same": same,
        "model": config.model.name,
        "batch_size": config.model.batch_size,
        "open_requests": arguments.open,
        "max_new_tokens": config.probe.max_new_tokens,
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": manifest.versions() | {"httpx": metadata.version("httpx")},
        "command": f"python benchmarks/engines.py --samples {arguments.samples} "
        f"--open {arguments.open}",
    }
    manifest.write_json(RESULTS / "engines.json", result)
    manifest.write_text(RESULTS / "engines.md", page(result))
    print(json.dumps(result, indent=2))
    raise SystemExit(same < len(wanted))


if __name__ == "__main__":
    main()
