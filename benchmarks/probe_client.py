"""Measure how fast the probe's client works: masked views per second and core, memory per sample.

    python benchmarks/probe_client.py [--json]

A masked view is an image of which a part is hidden; the probe shows it to the model together with
the question. The engine here answers at once, so that only the client's own work is measured:
decoding, masking, building the request, for a server also encoding and sending it, grading and
storing the response. Images are photo-like, of 1120 x 1120 pixels, the papers' size.

* offline: the requests go to an engine in this process.
* server: the requests go over HTTP to a server in another process, which reads and answers them.
* before: the same requests, prepared as difftrain did before views.py: each draw decodes its image
  anew, a random permutation of all pixels chooses the hidden ones, and a server gets PNG files of
  compression level 1. It is measured in turns with the other two.
* million: the memory of the probe's state and queue for a million samples, without their images.

Rates are views per second of processor time of this process. Writes
benchmarks/results/probe_client.json; with --json the last line is
{"offline_views_per_core", "server_views_per_core", "million_samples_gb"}.
"""

import argparse
import base64
import gc
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from difftrain import images, seeds
from difftrain.config.difficulty import DifficultyConfig
from difftrain.config.model import EngineKind
from difftrain.config.run_config import RunConfig
from difftrain.model.engines.openai_engine import OpenAIEngine
from difftrain.model.engines.types import Completion, Feed, Result
from difftrain.pipeline import manifest
from difftrain.pipeline.coordination import World
from difftrain.pipeline.stage import Heartbeat
from difftrain.probe.run import RequestQueue, probe_share
from difftrain.probe.schedule import ProbeState
from difftrain.records import AnswerKind, Sample, TaskSet

SIDE = 1120
SAMPLES = 8  # of each round; every sample passes all mask ratios with one draw each
ROUNDS = 3
RATIOS = list(range(0, 100, 10))
ANSWER = "<think>I count them.</think><answer>7</answer>"
RESULTS = Path(__file__).resolve().parent / "results"


def photo(rng: np.random.Generator) -> bytes:
    """A PNG with smooth areas, edges and a little noise."""
    small = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.int16)
    noisy = smooth + rng.integers(-4, 5, smooth.shape, dtype=np.int16)
    return images.to_png(Image.fromarray(noisy.clip(0, 255).astype(np.uint8)))


def make_sample(number: int, pngs: tuple[bytes, ...]) -> Sample:
    """A sample with the answer 7."""
    return Sample(
        sample_id=f"{number:016x}",
        images=pngs,
        question="How many windows does the house have?",
        answer="7",
        answer_kind=AnswerKind.number,
        task="counting",
        task_set=TaskSet.perception,
        source="benchmark",
    )


def make_samples(count: int) -> list[Sample]:
    """Samples with an image each."""
    rng = np.random.default_rng(0)
    return [make_sample(i, (photo(rng),)) for i in range(count)]


class InstantEngine:
    """An engine that answers each request correctly and at once."""

    info: dict[str, Any] = {}  # noqa: RUF012  (the protocol's attribute)

    def stream(
        self, next_requests: Feed[Any], on_idle: Callable[[], None] = lambda: None
    ) -> Iterator[tuple[Any, Result]]:
        """As Engine.stream."""
        while requests := next_requests(1):
            for key, _ in requests:
                yield key, Completion(ANSWER, (1, 2), hit_eos=True)

    def close(self) -> None:
        """Nothing to free."""


def serve() -> None:
    """Answer every chat request at once; prints the port first. Runs in a process of its own."""
    content = {
        "choices": [{"message": {"content": ANSWER}, "finish_reason": "stop"}],
        "usage": {"completion_tokens": 9, "prompt_tokens": 9},
    }
    reply = json.dumps(content).encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


def settings(url: str | None = None) -> RunConfig:
    """Settings of a probe for PISM alone; one process prepares and sends all requests."""
    config = RunConfig(difficulty=DifficultyConfig(extra_measures=[]))
    config.probe.mask_percents, config.probe.until = RATIOS, "ratio"
    config.probe.view_workers = 0
    if url is not None:
        config.model.engine, config.model.url = EngineKind.http, url
        config.model.server.max_concurrency = 8
    return config


def views_per_core(samples: list[Sample], config: RunConfig) -> float:
    """Masked views per second of processor time of a probe of these samples."""
    is_http = config.model.engine is EngineKind.http
    engine = OpenAIEngine(config.model) if is_http else InstantEngine()
    with tempfile.TemporaryDirectory() as folder:
        state = ProbeState(Path(folder), config, samples)
        # Any rank but the first: it shows no progress bar and writes no file of elapsed seconds.
        heartbeat = Heartbeat(Path(folder), World(rank=1, size=2))
        start = time.process_time()
        probe_share(engine, samples, state, config, config.seed, heartbeat)
        seconds = time.process_time() - start
        engine.close()
        assert state.num_generations == len(samples) * len(RATIOS), state.num_generations
    return len(samples) * (len(RATIOS) - 1) / seconds


def before(samples: list[Sample], encode: bool) -> float:
    """The same views as difftrain prepared them before; `encode`: as data URLs for a server."""
    start = time.process_time()
    for sample in samples:
        for percent in RATIOS[1:]:
            pixels = np.asarray(images.from_png(sample.images[0]))
            rng = np.random.Generator(np.random.PCG64(seeds.derive(1, sample.sample_id, percent)))
            total = pixels.shape[0] * pixels.shape[1]
            hidden = np.zeros(total, dtype=bool)
            hidden[rng.permutation(total)[: (percent * total + 50) // 100]] = True
            masked = np.where(hidden.reshape(pixels.shape[:2])[..., None], np.uint8(0), pixels)
            image = Image.fromarray(masked)
            if encode:
                images.pixel_hash(image)
                base64.b64encode(images.to_png(image)).decode()
    return len(samples) * (len(RATIOS) - 1) / (time.process_time() - start)


def million_samples_gb() -> float:
    """Gigabytes that the probe's state and queue take for a million samples without images."""
    samples = [make_sample(i, ()) for i in range(1_000_000)]
    gc.collect()
    before_bytes = resident_bytes()
    with tempfile.TemporaryDirectory() as folder:
        config = settings()
        state = ProbeState(Path(folder), config, samples)
        queue = RequestQueue(state, samples, config.seed)
        assert len(queue.waiting) == len(samples)
        return (resident_bytes() - before_bytes) / 1e9


def resident_bytes() -> int:
    """The memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def measure_million() -> float:
    """million_samples_gb in a process of its own."""
    command = [sys.executable, __file__, "--million"]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Measure in turns, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--million", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve()
    if options.million:
        return print(million_samples_gb())
    samples = make_samples(SAMPLES)
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
    rates: dict[str, list[float]] = {}
    try:
        for _ in range(ROUNDS):
            for name, rate in (
                ("offline", views_per_core(samples, settings())),
                ("offline before", before(samples, encode=False)),
                ("server", views_per_core(samples, settings(url))),
                ("server before", before(samples, encode=True)),
            ):
                rates.setdefault(name, []).append(rate)
    finally:
        server.terminate()
    medians = {name: statistics.median(values) for name, values in rates.items()}
    million = measure_million()
    result = {
        "views_per_core": medians,
        "ratio": {
            name: medians[name] / medians[f"{name} before"] for name in ("offline", "server")
        },
        "million_samples_gb": million,
        "git": manifest.git_revision(),
        "versions": manifest.versions(),
    }
    print(json.dumps(result, indent=2))
    (RESULTS / "probe_client.json").write_text(json.dumps(result, indent=2) + "\n")
    if options.json:
        line = {
            "offline_views_per_core": round(medians["offline"], 1),
            "server_views_per_core": round(medians["server"], 1),
            "million_samples_gb": round(million, 2),
        }
        print(json.dumps(line))


if __name__ == "__main__":
    main()
