"""A fake judge server on a real port, a proxy that injects faults, and settings for tests."""

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from difftrain.config.judge import JudgeKind
from difftrain.config.model import Dtype
from difftrain.config.run_config import RunConfig
from tests.listening import FakeServer, FaultyProxy, completion, send

KEY = "sk-proj-never-to-be-seen-0123456789"  # tests check that no file or log has it
MODEL = "judge-of-the-tests"


class FakeJudgeServer(FakeServer):
    """A judge server whose replies a test chooses.

    `reply(prompt, number)` returns a text, or an HTTP response as (status, body, headers). `number`
    counts the requests from 0.
    """

    key = KEY

    def __init__(self) -> None:
        super().__init__()
        self.reply: Callable[[str, int], Any] = lambda prompt, number: "A"

    def list_models(self, handler: BaseHTTPRequestHandler) -> None:
        key_is_right = handler.headers["Authorization"] == f"Bearer {KEY}"
        send(handler, 200 if key_is_right else 401, b'{"data": []}')

    def respond(self, handler: BaseHTTPRequestHandler, number: int, content: bytes) -> None:
        reply = self.reply(json.loads(content)["messages"][0]["content"], number)
        if isinstance(reply, tuple):
            status, body, headers = reply
            send(handler, status, body, **headers)
        else:
            send(handler, 200, completion(reply))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeJudgeServer]:
    """A judge server, whose address the environment variables give."""
    server = FakeJudgeServer()
    monkeypatch.setenv("JUDGE_BASE_URL", server.url)
    monkeypatch.setenv("JUDGE_MODEL", MODEL)
    monkeypatch.setenv("JUDGE_API_KEY", KEY)
    yield server
    server.close()


@pytest.fixture
def proxy(server: FakeJudgeServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """A proxy in front of the judge server; JUDGE_BASE_URL is the address of the proxy."""
    proxy = FaultyProxy(server.url)
    monkeypatch.setenv("JUDGE_BASE_URL", proxy.url)
    yield proxy
    proxy.close()


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """Settings to evaluate six items of each built-in benchmark (shapes/NAME) with the server."""
    settings = RunConfig(output_dir=str(tmp_path / "artifacts"))
    settings.model.dtype = Dtype.float32
    settings.data.min_pixels, settings.data.max_pixels = 3136, 12544  # 56 x 56 and 112 x 112
    evaluate = settings.evaluate
    evaluate.limit, evaluate.max_new_tokens, evaluate.resamples = 6, 8, 100
    evaluate.judge = JudgeKind.endpoint
    evaluate.judge_client.backoff_s = 0.01  # a short pause before a retry, to save time
    evaluate.judge_client.timeout_s = 20
    return settings
