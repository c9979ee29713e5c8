"""Several servers in model.url that run the same model: equal shares, and one that goes down."""

import logging
import threading
import time
from collections.abc import Iterator

import pytest

from difftrain.config.model import EngineKind, ModelConfig, addresses
from difftrain.config.run_config import RunConfig
from difftrain.model.engines import server_check
from difftrain.model.engines.openai_engine import OpenAIEngine
from difftrain.model.engines.types import feed
from tests.model.answering import ModelServer, expected_response
from tests.model.test_http import MAX_PIXELS, all_correct, make_config, make_requests


@pytest.fixture
def servers() -> Iterator[list[ModelServer]]:
    """Three servers of the same model."""
    running = [ModelServer() for _ in range(3)]
    yield running
    for server in running:
        server.close()


def connect(servers: list[ModelServer]) -> OpenAIEngine:
    """An engine that shares its requests among the servers; a request may fail once only."""
    config = make_config(" ".join(server.url for server in servers), max_attempts=1)
    return server_check.connect(config, MAX_PIXELS)


def test_the_requests_are_shared_evenly(servers: list[ModelServer]) -> None:
    engine, requests = connect(servers), make_requests(120)
    for server in servers:
        server.delay_s = 0.01
    results = dict(engine.stream(feed(enumerate(requests))))
    engine.close()
    assert all_correct([results[i] for i in range(120)], requests)
    assert all(30 <= server.num_requests <= 50 for server in servers)
    assert max(server.max_open for server in servers) <= 4  # 8 open requests for three servers


def test_a_server_that_goes_down_is_left_out_and_tried_again(
    servers: list[ModelServer], caplog: pytest.LogCaptureFixture
) -> None:
    engine, requests = connect(servers), make_requests(600)
    for server in servers:
        server.delay_s = 0.03
    first = servers[0]
    was_down_at: list[int] = []

    def stop_and_restart() -> None:
        while first.num_requests < 20:
            time.sleep(0.005)
        first.down()
        was_down_at.append(first.num_requests)
        time.sleep(0.5)
        first.up()

    thread = threading.Thread(target=stop_and_restart)
    thread.start()
    with caplog.at_level(logging.WARNING):
        results = dict(engine.stream(feed(enumerate(requests))))
    thread.join()
    engine.close()
    assert all_correct([results[i] for i in range(600)], requests)  # with one attempt each
    assert caplog.text.count(f"model.url={first.url} does not work") == 1
    assert f"model.url={first.url} works again" in caplog.text
    assert first.num_requests > was_down_at[0] + 20
    assert "does not answer" not in caplog.text  # no request waited for it


def test_a_server_that_fails_every_request_does_not_get_all_of_them(
    servers: list[ModelServer],
) -> None:
    engine, requests = connect(servers), make_requests(100)
    engine.config.max_attempts = 5
    for server in servers[1:]:
        server.delay_s = 0.02  # a server that fails at once always has the fewest open requests

    def fail(handler: object, *_: object) -> bool:
        handler.send_error(500)  # pyright: ignore[reportAttributeAccessIssue]
        return True

    servers[0].inject_fault = fail
    results = dict(engine.stream(feed(enumerate(requests))))
    engine.close()
    assert all(results[i].text == expected_response(requests[i]) for i in range(100))
    assert servers[0].num_requests <= 12  # those that were open first, and one after each pause


def test_an_engine_starts_if_one_of_its_servers_is_up(servers: list[ModelServer]) -> None:
    servers[0].down()
    engine, requests = connect(servers), make_requests(10)
    results = dict(engine.stream(feed(enumerate(requests))))
    engine.close()
    assert all_correct([results[i] for i in range(10)], requests)
    servers[0].up()  # so that the fixture can close it


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://a:1/v1 http://b:1/v1", None),
        ("http://a:1/v1,http://b:1/v1/", None),
        ("http://a:1/v1 b:1", "must be an address"),
        ("http://a:1/v1 http://a:1/v1/", "names an address twice"),
        ("http://a:1/v1 http://x:y@b:1/v1", "must not hold a password"),
        ("  ", "must be an address"),
    ],
)
def test_every_address_is_checked(url: str, problem: str | None) -> None:
    problems = [
        rule for key, rule in ModelConfig(engine=EngineKind.http, url=url).check() if key == "url"
    ]
    assert [problem in rule for rule in problems] == ([] if problem is None else [True])
    if problem is None:
        assert addresses(url) == ["http://a:1/v1", "http://b:1/v1"]


def test_object_storage_as_output_folder_is_refused_with_the_reason() -> None:
    problems = dict(RunConfig(output_dir="s3://bucket/outputs").check())
    assert "stages lock, rename and append to files" in problems["output_dir"]
