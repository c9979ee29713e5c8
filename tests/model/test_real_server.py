"""The http engine with `transformers serve`, directly and behind a proxy that injects faults."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from difftrain.config.model import EngineKind, ModelConfig
from difftrain.data import prompts
from difftrain.model.engines import server_check
from difftrain.model.engines.hf import HfEngine
from difftrain.model.engines.types import Completion, Request, generate_all
from difftrain.model.loading import LoadedModel
from difftrain.pipeline import parquet
from difftrain.records import Rollout, Sample
from tests.listening import FaultyProxy, send
from tests.serving import free_port, serving

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
# What the proxy sends: an error status, no response, half a response, an HTML page, an empty text,
# or two choices.
FAULTS = ("429", "500", "503", "dropped", "cut", "page", "empty", "two")


@pytest.fixture(scope="module")
def url_and_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Address and model name of `transformers serve` with the tiny model."""
    with serving(tmp_path_factory.mktemp("served")) as result:
        yield result


class TwoChoicesProxy(FaultyProxy):
    """Adds the fault `two` (two choices in one response), and has a list of models."""

    def list_models(self, handler: BaseHTTPRequestHandler) -> None:
        send(handler, 200, b'{"data": []}')

    def respond(self, handler: BaseHTTPRequestHandler, number: int, content: bytes) -> None:
        if self.fault(number) != "two":
            return super().respond(handler, number, content)
        with self.lock:
            self.injected.append("two")
        choice = {"message": {"role": "assistant", "content": "7"}, "finish_reason": "stop"}
        return send(handler, 200, json.dumps({"choices": [choice, choice]}).encode())


@pytest.fixture
def proxy(url_and_model: tuple[str, str]) -> Iterator[TwoChoicesProxy]:
    """A proxy in front of the server; without a `fault` it forwards every request."""
    url, _ = url_and_model
    proxy = TwoChoicesProxy(url)
    yield proxy
    proxy.close()


def make_config(url: str, model: str) -> ModelConfig:
    config = ModelConfig(engine=EngineKind.http, url=url)
    config.server.name, config.server.max_attempts, config.server.max_concurrency = model, 10, 2
    config.server.backoff_s = 0.01
    return config


def make_requests(samples: list[Sample], temperature: float) -> list[Request]:
    return [
        Request(
            parts=(
                Image.open(BytesIO(sample.images[0])).convert("RGB"),
                prompts.user_text(sample.question, sample.options),
            ),
            seed=seed,
            temperature=temperature,
            max_new_tokens=40,
        )
        for seed, sample in enumerate(samples)
    ]


def test_a_server_behind_a_faulty_proxy_gives_the_same_responses_as_the_hf_engine(
    url_and_model: tuple[str, str],
    proxy: TwoChoicesProxy,
    tiny: LoadedModel,
    shapes_samples: list[Sample],
) -> None:
    _, model = url_and_model
    engine = server_check.connect(make_config(proxy.url, model), max_pixels=112 * 112)
    print(engine.info)  # shown if the test fails
    assert engine.info["sampling"] == "generation_config"
    # 112 x 112 pixels are 16 tokens of 28 x 28, and a start and an end token.
    assert engine.info["image_tokens"] == {"side": 112, "server": 18, "expected": 16}
    # Every second request fails, each time with the next fault.
    proxy.fault = lambda number: FAULTS[number // 2 % len(FAULTS)] if number % 2 else None
    greedy = make_requests(shapes_samples, 0.0)
    results = generate_all(engine, greedy)
    print(engine.faults, proxy.injected)
    assert set(proxy.injected) == set(FAULTS)
    local_results = generate_all(HfEngine(tiny, ModelConfig(batch_size=8)), greedy)
    assert all(isinstance(result, Completion) for result in results)
    assert [result.text for result in results] == [result.text for result in local_results]
    assert [result.num_tokens for result in results] == [
        result.num_tokens for result in local_results
    ]
    assert [result.hit_eos for result in results] == [result.hit_eos for result in local_results]


def score_command(folder: Path, url: str, model: str) -> list[str]:
    """The command that probes and scores 16 samples with the model at `url`.

    The probe samples three responses (draws) with 0, 40 and 80 % of the image hidden. The
    difficulty measure PISM (progressive image semantic masking) is the share at which the model
    fails.
    """
    overrides = [
        "data.num_samples=16",
        "probe.mask_percents=[0,40,80]",
        "probe.draws=3",
        "difficulty=pism",
        f"output_dir={folder}",
    ]
    engine = ["model.engine=http", f"model.url={url}", f"model.server.name={model}"]
    limits = ["model.server.max_concurrency=2", "model.server.max_attempts=10"]
    return [sys.executable, str(ROOT / "launch" / "score.py"), *overrides, *engine, *limits]


def test_a_probe_completes_although_its_server_is_killed_and_restarted(tmp_path: Path) -> None:
    port, folder = free_port(), tmp_path / "artifacts"
    events: list[str] = []
    done = threading.Event()

    def serve_kill_and_serve() -> None:
        with serving(tmp_path, port):
            events.append("up")
            deadline = time.time() + 200
            while not list(folder.glob("probe/*/engines/*")) and time.time() < deadline:
                time.sleep(0.05)
            time.sleep(1.5)  # The probe has written its engine record; let it receive responses.
        events.append("killed")
        time.sleep(3)
        with serving(tmp_path, port):
            events.append("back")
            done.wait(400)

    thread = threading.Thread(target=serve_kill_and_serve)
    thread.start()
    while "up" not in events:
        time.sleep(0.2)
    url, model = f"http://127.0.0.1:{port}/v1", str(tmp_path / "tiny")
    run = subprocess.run(
        score_command(folder, url, model),
        capture_output=True,
        text=True,
        env=os.environ,
        timeout=500,
    )
    done.set()
    thread.join()
    assert run.returncode == 0, run.stderr[-4000:]
    assert events == ["up", "killed", "back"]
    assert f"model.url={url} does not answer" in run.stderr
    assert "is back after" in run.stderr
    (probe,) = folder.glob("probe/*")
    rows = parquet.read_rows(probe, Rollout)
    manifest = json.loads((probe / "manifest.json").read_text())
    print(manifest["counts"], manifest["settings"]["engines"])
    assert manifest["counts"]["quarantined"] == 0  # samples without all their responses
    assert len({row.sample_id for row in rows}) == 16
    assert len({(row.sample_id, row.mask_percent, row.draw) for row in rows}) == len(rows)
    (engine_info,) = manifest["settings"]["engines"]
    assert engine_info["engine"] == "http"
    assert engine_info["seeds"] in ("honored", "ignored")


def test_a_missing_server_ends_the_command_with_code_2_and_the_address(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    run = subprocess.run(
        score_command(tmp_path, url, "m"), capture_output=True, text=True, timeout=200
    )
    assert run.returncode == 2
    assert f"model.url={url}: no server answers there" in run.stderr
    assert "Traceback" not in run.stderr
    assert not list(tmp_path.glob("data/*"))  # no data set was built before the error
