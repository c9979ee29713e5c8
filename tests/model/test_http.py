"""The http engine: whatever fails, no response is lost or given to another request."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from difftrain.cli.overrides import compose_config
from difftrain.config.model import EngineKind, ModelConfig
from difftrain.config.run_config import ConfigError, resolve
from difftrain.model.engines import openai_engine, server_check
from difftrain.model.engines.openai_engine import OpenAIEngine
from difftrain.model.engines.types import Completion, GenerationError, Request, feed, generate_all
from tests.listening import FaultyProxy, send
from tests.model.answering import ModelServer, completion_body, expected_of, parse_body

KEY = "sk-never-to-be-seen-42"
PIXELS = 784 * 16


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    """A server whose responses are known."""
    monkeypatch.setenv("MODEL_API_KEY", KEY)
    server = ModelServer()
    yield server
    server.close()


def make_config(url: str, **changes: Any) -> ModelConfig:
    config = ModelConfig(engine=EngineKind.http, url=url)
    config.server.max_concurrency, config.server.timeout_s = 8, 20
    config.server.backoff_s = 0.01
    for name, value in changes.items():
        setattr(config.server, name, value)
    return config


def make_engine(server: ModelServer, **changes: Any) -> OpenAIEngine:
    return server_check.connect(make_config(server.url, **changes), PIXELS)


def make_requests(count: int, num_images: int = 5) -> list[Request]:
    """Requests with different seeds; they share `num_images` noise images."""
    noise = np.random.default_rng(0).integers(0, 256, (num_images, 56, 84, 3), dtype=np.uint8)
    images = [Image.fromarray(pixels) for pixels in noise]
    return [
        Request(
            parts=(images[i % num_images], f"How many? ({i // 3})"),
            seed=i,
            temperature=0.7,
            max_new_tokens=20,
        )
        for i in range(count)
    ]


def all_correct(results: list[Any], requests: list[Request]) -> bool:
    """Whether every response is the one that belongs to its request."""
    return [result.text for result in results] == [expected_of(request) for request in requests]


def test_every_response_belongs_to_its_request_and_concurrency_is_limited(
    server: ModelServer,
) -> None:
    requests, engine = make_requests(120), make_engine(server)
    all_open = threading.Barrier(8, timeout=60)

    def inject_fault(handler: Any, body: dict, number: int) -> bool:
        if number <= 8:
            all_open.wait()  # the first eight are responded to only when all of them are open
        return False

    server.inject_fault, server.delay, server.max_open = inject_fault, 0.01, 0
    results = generate_all(engine, requests)
    assert all_correct(results, requests)
    assert results[0] == Completion(expected_of(requests[0]), (), True, 5)
    assert results[0].num_tokens == 5
    assert server.num_requests == 120
    assert server.max_open == 8
    assert engine.info["seeds"] == "honored"
    assert server.keys == {f"Bearer {KEY}"}


def test_a_request_contains_everything_that_decides_its_response(server: ModelServer) -> None:
    generate_all(make_engine(server, extra={"bad_words": ["x"]}), make_requests(1))
    body = server.bodies[-1]
    assert [turn["role"] for turn in body["messages"]] == ["system", "user"]
    expected = {"temperature": 0.7, "seed": 0, "max_tokens": 20, "top_p": 1.0, "top_k": -1}
    expected |= {"repetition_penalty": 1.0, "min_p": 0.0, "model": "tiny", "bad_words": ["x"]}
    assert expected.items() <= body.items()


def test_images_arrive_unchanged_and_are_encoded_once_per_view(server: ModelServer) -> None:
    engine = make_engine(server)
    before = engine.data_urls.num_encoded
    requests = make_requests(40, num_images=3)
    assert all_correct(generate_all(engine, requests), requests)
    assert engine.data_urls.num_encoded - before == 3


def test_data_urls_are_evicted_when_the_cache_is_full() -> None:
    urls = openai_engine.DataUrlCache(max_bytes=20_000)
    for request in make_requests(20, num_images=20):
        urls.get(request.images[0])
    assert urls.num_bytes <= 20_000
    assert urls.num_encoded == 20


FAULTS: dict[str, Callable[[Any], None]] = {
    "two choices": lambda h: send(
        h, 200, json.dumps({"choices": completion_body("A")["choices"] * 2}).encode()
    ),
    "no choice": lambda h: send(h, 200, b'{"choices": []}'),
    "aborted": lambda h: send(h, 200, json.dumps(completion_body("A", reason="abort")).encode()),
    "not JSON": lambda h: send(h, 200, b"<html>please sign in</html>"),
    "empty body": lambda h: send(h, 200, b""),
    "empty text": lambda h: send(h, 200, json.dumps(completion_body("", tokens=0)).encode()),
    "many tokens, empty text": lambda h: send(
        h, 200, json.dumps(completion_body("", tokens=9)).encode()
    ),
    "null text": lambda h: send(h, 200, json.dumps(completion_body(None, tokens=3)).encode()),
    "lone surrogate": lambda h: send(h, 200, json.dumps(completion_body("A\ud800")).encode()),
    "object as finish_reason": lambda h: send(
        h, 200, json.dumps(completion_body("A", reason={})).encode()
    ),
    "list as finish_reason": lambda h: send(
        h, 200, json.dumps(completion_body("A", reason=["stop"])).encode()
    ),
    "number as text": lambda h: send(h, 200, json.dumps(completion_body(7)).encode()),
    "500": lambda h: send(h, 500, b"oops"),
    "503": lambda h: send(h, 503, b"oops"),
    "429": lambda h: send(h, 429, b"{}", Retry_After="0"),
    "404 of a router": lambda h: send(h, 404, b"{}"),
    "502 with Retry-After": lambda h: send(h, 502, b"<html>", Retry_After="0.05"),
    "dropped": FaultyProxy.drop,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_response_is_retried_and_none_is_lost_or_wrong(
    server: ModelServer, fault: str
) -> None:
    def inject_fault(handler: Any, body: dict, number: int) -> bool:
        if number % 3 == 1:
            FAULTS[fault](handler)
        return number % 3 == 1

    engine, requests = make_engine(server, max_attempts=12), make_requests(30)
    server.inject_fault = inject_fault
    results = generate_all(engine, requests)
    assert all_correct(results, requests)
    assert server.num_requests == 30 + sum(engine.faults.values())
    assert sum(engine.faults.values()) >= 10


def test_a_slow_response_times_out_and_is_retried(server: ModelServer) -> None:
    def inject_fault(handler: Any, body: dict, number: int) -> bool:
        if number == 1:
            time.sleep(5.0)
            FaultyProxy.drop(handler)
        return number == 1

    engine, requests = make_engine(server, timeout_s=3.0), make_requests(6)
    server.inject_fault = inject_fault
    assert all_correct(generate_all(engine, requests), requests)
    assert engine.faults == {"slow": 1}


def test_a_request_that_never_succeeds_fails_with_the_reason_after_max_attempts(
    server: ModelServer,
) -> None:
    attempts = []

    def inject_fault(handler: Any, body: dict, number: int) -> bool:
        is_failing = body["seed"] == 4
        if is_failing:
            attempts.append(number)
            send(handler, 500, b'{"error": {"message": "CUDA error for sk-never-to-be-seen-42"}}')
        return is_failing

    engine, requests = make_engine(server, max_attempts=3), make_requests(9)
    server.inject_fault = inject_fault
    results = generate_all(engine, requests)
    assert len(attempts) == 3
    message = "3 attempts failed, the last: the server answers 500: CUDA error for ..."
    assert results.pop(4) == GenerationError(message)
    requests.pop(4)
    assert all_correct(results, requests)


def test_a_refused_request_is_not_retried(server: ModelServer) -> None:
    def inject_fault(handler: Any, body: dict, number: int) -> bool:
        if is_failing := body["seed"] == 2:
            send(handler, 400, b'{"error": {"message": "prompt of 9999 tokens is too long"}}')
        return is_failing

    engine, requests = make_engine(server), make_requests(5)
    server.inject_fault = inject_fault
    results = generate_all(engine, requests)
    assert results[2] == GenerationError(
        "the server answers 400: prompt of 9999 tokens is too long"
    )
    assert server.num_requests == 5


@pytest.mark.parametrize(
    ("status", "last"), [(500, "1 attempts failed"), (400, "the server answers 400")]
)
def test_no_sample_is_marked_failed_if_the_server_fails_every_request(
    server: ModelServer, status: int, last: str
) -> None:
    engine = make_engine(server, max_attempts=1)
    server.inject_fault = lambda handler, body, number: send(handler, status, b"oops") or True
    results = []
    with pytest.raises(OSError, match=rf"samples in a row have no response; the last one: {last}"):
        results.extend(engine.stream(feed(enumerate(make_requests(150)))))
    assert not results
    assert 32 <= server.num_requests < 32 * 3 + 8


def refuse_all_but_ten(handler: Any, body: dict) -> bool:
    """Refuse every request after the first ten, as if its prompt were too long."""
    if is_failing := body["seed"] >= 10:
        send(handler, 400, b'{"error": {"message": "maximum context length is 256 tokens"}}')
    return is_failing


def test_too_long_samples_at_the_end_fail_even_if_there_are_many(
    server: ModelServer,
) -> None:
    engine, requests = make_engine(server), make_requests(110)
    server.inject_fault = lambda handler, body, number: refuse_all_but_ten(handler, body)
    results = generate_all(engine, requests)
    message = "the server answers 400: maximum context length is 256 tokens"
    assert set(results[10:]) == {GenerationError(message)}
    assert all_correct(results[:10], requests[:10])
    assert 110 < server.num_requests <= 110 + 3


def test_no_sample_is_marked_failed_if_the_server_fails_at_every_image(server: ModelServer) -> None:
    engine = make_engine(server, max_attempts=1)
    server.inject_fault = lambda handler, body, number: (
        "image_url" in str(body) and (send(handler, 500, b"oops") or True)
    )
    with pytest.raises(OSError, match=r"samples in a row have no response"):
        generate_all(engine, make_requests(150))


@pytest.mark.parametrize("failure", ["context too small", "500"])
def test_no_sample_is_marked_failed_if_only_plain_requests_succeed(
    server: ModelServer, failure: str
) -> None:
    engine = make_engine(server, max_attempts=1)
    requests = [replace(request, max_new_tokens=50) for request in make_requests(150)]

    def inject_fault(handler: Any, body: dict, number: int) -> bool:
        if failure == "500":
            return "Say yes." not in str(body) and (send(handler, 500, b"oops") or True)
        return body["max_tokens"] >= 50 and (send(handler, 400, b"context too small") or True)

    server.inject_fault = inject_fault
    with pytest.raises(OSError, match=r"samples in a row have no response"):
        generate_all(engine, requests)


def test_many_failing_draws_of_few_samples_are_blamed_on_the_samples(server: ModelServer) -> None:
    engine = make_engine(server, max_attempts=1)
    requests = [replace(r, view=f"{r.seed % 4}/full_image") for r in make_requests(60)]
    server.inject_fault = lambda handler, body, number: send(handler, 500, b"oops") or True
    assert all(isinstance(result, GenerationError) for result in generate_all(engine, requests))


def test_quick_refusals_beside_a_slow_response_are_blamed_on_the_samples(
    server: ModelServer,
) -> None:
    engine, requests = make_engine(server), make_requests(150)

    def inject_fault(handler: Any, body: dict, number: int) -> bool:
        if body["seed"] == 0:
            time.sleep(0.5)
        if is_failing := 0 < body["seed"] < 120:
            send(handler, 400, b'{"error": {"message": "too long"}}')
        return is_failing

    server.inject_fault = inject_fault
    results = generate_all(engine, requests)
    assert set(results[1:120]) == {GenerationError("the server answers 400: too long")}
    assert all_correct(results[:1] + results[120:], requests[:1] + requests[120:])
    assert server.num_requests == 150


def test_a_request_that_is_rejected_while_others_are_completed_fails(
    server: ModelServer,
) -> None:
    def inject_fault(handler: Any, body: dict, number: int) -> bool:
        if is_failing := body["seed"] == 4:
            send(handler, 503, b'{"error": {"message": "no room"}}', Retry_After="0.01")
        return is_failing

    engine, requests = make_engine(server, max_attempts=2, max_concurrency=2), make_requests(60)
    server.inject_fault = inject_fault
    results = generate_all(engine, requests)
    failed = results.pop(4)
    requests.pop(4)
    assert isinstance(failed, GenerationError)
    message = "rejected while others were completed, the last: the server answers 503: no room"
    assert failed.reason.endswith(message)
    assert all_correct(results, requests)


@pytest.mark.parametrize("retry_after", ["0.01", "7200"])
def test_a_last_request_that_is_always_rejected_fails_or_ends_the_run(
    server: ModelServer, retry_after: str
) -> None:
    engine, requests = make_engine(server, max_outage_s=0.3), make_requests(5)[4:]

    def inject_fault(handler: Any, body: dict, number: int) -> bool:
        if is_failing := body["seed"] in rejected_seeds:
            send(handler, 429, b"{}", Retry_After=retry_after)
        return is_failing

    server.inject_fault, rejected_seeds = inject_fault, [4]
    (result,) = generate_all(engine, requests)
    assert isinstance(result, GenerationError)
    assert "rejected while others were completed" in result.reason
    rejected_seeds.append(0)
    message = "busy" if retry_after == "0.01" else "asks to wait for 7200 s"
    with pytest.raises(OSError, match=message):
        generate_all(engine, requests)


def test_text_and_counts_that_no_file_can_hold_are_replaced_or_dropped(
    server: ModelServer,
) -> None:
    engine, requests = make_engine(server), make_requests(2)

    def inject_fault(handler: Any, body: dict, number: int) -> bool:
        if body["seed"] == 0:
            send(handler, 400, b'{"error": {"message": "half \\ud800"}}')
        else:
            send(handler, 200, json.dumps(completion_body("7", tokens=10**20)).encode())
        return True

    server.inject_fault = inject_fault
    refusal = GenerationError("the server answers 400: half ?")
    assert generate_all(engine, requests) == [refusal, Completion("7", (), True, None)]


def test_the_server_check_retries_after_a_pause_with_the_same_fields(server: ModelServer) -> None:
    respond, times = server.respond, []

    def busy(handler: Any, number: int, content: bytes) -> None:
        times.append(time.monotonic())
        if len(times) == 1:
            return send(handler, 429, b"{}", Retry_After="0.3")
        return respond(handler, number, content)

    server.respond = busy
    assert make_engine(server).info["sampling"] == "top_k=-1"
    assert times[1] - times[0] > 0.29


def test_a_failing_server_is_distinguished_from_one_that_refuses_sampling_fields(
    server: ModelServer,
) -> None:
    server.respond = lambda handler, number, content: send(handler, 500, b"oops")
    with pytest.raises(ConfigError, match="the server answers 500"):
        make_engine(server, max_attempts=3)
    assert len(server.bodies) == 3
    assert all("top_k" in body for body in server.bodies)


@pytest.mark.parametrize(
    "prompt", ["what is <|image_pad|>?", "<|im_end|>\n<|im_start|>system", "<image>"]
)
def test_a_prompt_with_special_tokens_is_not_sent(server: ModelServer, prompt: str) -> None:
    request = Request(parts=(prompt,), max_new_tokens=4)
    (result,) = generate_all(make_engine(server), [request])
    assert isinstance(result, GenerationError)
    assert "contains the special token" in result.reason
    assert server.num_requests == 0


def test_an_empty_response_of_a_model_that_ends_at_once_is_a_completion(
    server: ModelServer,
) -> None:
    engine = make_engine(server)
    server.inject_fault = lambda handler, body, number: (
        send(handler, 200, json.dumps(completion_body("", tokens=1)).encode()) or True
    )
    assert generate_all(engine, make_requests(1)) == [Completion("", (), True, 1)]


def test_reasoning_that_the_server_removes_is_an_error(server: ModelServer) -> None:
    engine, body = make_engine(server), completion_body("7")
    body["choices"][0]["message"]["reasoning_content"] = "three and four"
    server.inject_fault = lambda handler, _, number: (
        send(handler, 200, json.dumps(body).encode()) or True
    )
    (result,) = generate_all(engine, make_requests(1))
    assert isinstance(result, GenerationError)
    assert "without reasoning parser" in result.reason


def test_during_an_outage_all_requests_wait_with_a_warning_and_none_fails(
    server: ModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    engine, requests = make_engine(server, max_attempts=1), make_requests(200)
    server.delay = 0.005

    def stop_and_restart() -> None:
        while server.num_requests < 60:
            time.sleep(0.005)
        server.down()
        time.sleep(1.0)
        server.up()

    thread = threading.Thread(target=stop_and_restart)
    thread.start()
    results = generate_all(engine, requests)
    thread.join()
    assert all_correct(results, requests)
    log = caplog.text
    assert f"model.url={server.url} does not answer" in log
    assert "waiting for up to 1800 s more" in log
    assert "is back after" in log


def test_a_server_that_stays_away_ends_the_stream_with_its_address(server: ModelServer) -> None:
    engine = make_engine(server, max_outage_s=0.3)
    requests = make_requests(50)
    stream = engine.stream(feed(enumerate(requests)))
    results = [next(stream) for _ in range(5)]
    server.down()
    with pytest.raises(OSError, match=r"has been away for .*max_outage_s") as error:
        results.extend(stream)
    assert server.url in str(error.value)
    assert all(result.text == expected_of(requests[i]) for i, result in results)
    server.up()


def test_a_request_that_kills_the_server_does_not_fail_the_others(
    server: ModelServer,
) -> None:
    engine, requests = make_engine(server, max_attempts=4), make_requests(40)
    lock = threading.Lock()

    def restart() -> None:
        server.models_status = 503
        time.sleep(0.3)
        server.models_status = 200

    def inject_fault(handler: Any, body: dict, number: int) -> bool:
        if body["seed"] == 7 and lock.acquire(blocking=False):
            server.models_status = 503
            threading.Thread(target=lambda: (restart(), lock.release())).start()
        if server.models_status == 503:
            FaultyProxy.drop(handler)
            return True
        time.sleep(0.01)
        return False

    server.inject_fault = inject_fault
    results = generate_all(engine, requests)
    assert results.pop(7) == GenerationError("the server went down 6 times during this request")
    requests.pop(7)
    assert all_correct(results, requests)


def test_retry_after_pauses_every_request(server: ModelServer) -> None:
    engine, requests = make_engine(server), make_requests(20)
    times: list[float] = []

    def inject_fault(handler: Any, body: dict, number: int) -> bool:
        times.append(time.monotonic())
        if number == 1:
            send(handler, 429, b"{}", Retry_After="1")
        else:
            time.sleep(0.02)
        return number == 1

    server.inject_fault = inject_fault
    assert all_correct(generate_all(engine, requests), requests)
    gaps = np.diff(sorted(times))
    assert gaps.max() > 0.8
    assert sum(moment < times[0] + 0.8 for moment in times) <= 8 + 8  # those open before the pause


def test_responses_that_arrived_before_a_fatal_error_are_still_yielded(server: ModelServer) -> None:
    engine, requests = make_engine(server), make_requests(8)
    all_open = threading.Barrier(8, timeout=20)

    def inject_fault(handler: Any, body: dict, number: int) -> bool:
        all_open.wait()
        if is_failing := body["seed"] == 3:
            time.sleep(0.3)
            send(handler, 401, b"{}")
        return is_failing

    server.inject_fault = inject_fault
    stream, results = engine.stream(feed(enumerate(requests))), []
    with pytest.raises(OSError, match="the server answers 401"):
        results.extend(time.sleep(0.3) or pair for pair in stream)
    assert len(results) == 7
    assert all(result.text == expected_of(requests[i]) for i, result in results)


def test_a_closed_stream_ends_at_once(server: ModelServer) -> None:
    engine = make_engine(server)
    server.delay = 0.05
    stream = engine.stream(feed(enumerate(make_requests(100))))
    next(stream)
    began = time.monotonic()
    stream.close()
    engine.close()
    assert time.monotonic() - began < 1
    time.sleep(0.2)
    assert server.num_requests < 30


def test_no_server_at_the_start_is_an_error_within_seconds_with_the_address() -> None:
    began = time.monotonic()
    with pytest.raises(ConfigError, match=r"model.url=http://127.0.0.1:9/v1: no server answers"):
        server_check.connect(make_config("http://127.0.0.1:9/v1"), PIXELS)
    assert time.monotonic() - began < 6


def test_a_rejected_key_is_an_error_that_does_not_show_the_key(server: ModelServer) -> None:
    server.models_status = 401
    with pytest.raises(ConfigError, match=r"model\.server\.api_key_env=MODEL_API_KEY") as error:
        make_engine(server)
    assert KEY not in str(error.value)


def test_a_model_that_the_server_does_not_have_is_an_error(server: ModelServer) -> None:
    server.respond = lambda handler, number, content: send(handler, 404, b"{}")
    with pytest.raises(ConfigError, match=r"are model\.url and model\.server\.name right"):
        make_engine(server)


def test_a_sampling_field_that_the_server_refuses_is_left_out_and_recorded(
    server: ModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    assert make_engine(server).info["sampling"] == "top_k=-1"
    server.refused_fields = ("top_k",)
    assert make_engine(server).info["sampling"] == "generation_config"
    server.refused_fields = ("top_k", "generation_config")
    assert make_engine(server).info["sampling"] == "none"
    assert "the server's own sampling defaults apply" in caplog.text


def test_seeds_are_tested_and_not_assumed(
    server: ModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.honors_seeds = False
    assert make_engine(server).info["seeds"] == "ignored"
    assert "does not honor seeds" in caplog.text


def test_a_server_that_does_not_sample_is_refused(server: ModelServer) -> None:
    server.samples = False
    with pytest.raises(ConfigError, match="does not sample"):
        make_engine(server)


def test_a_server_that_does_not_see_images_is_refused(server: ModelServer) -> None:
    assert make_engine(server).info["image_tokens"] == {"side": 112, "server": 18, "expected": 16}
    server.sees_images = False
    with pytest.raises(ConfigError, match="the model does not see it"):
        make_engine(server)


def test_if_the_largest_image_is_refused_smaller_ones_are_tried(
    server: ModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    respond = server.respond

    def small_only(handler: Any, number: int, content: bytes) -> None:
        _, _, sizes = parse_body(json.loads(content))
        if any(side > max_side for size in sizes for side in size):
            message = b'{"error": {"message": "maximum context length is 16384 tokens"}}'
            return send(handler, 400, message)
        return respond(handler, number, content)

    server.respond, max_side = small_only, 50
    info = make_engine(server).info
    assert info["image_tokens"] == {"side": 28, "server": 3, "expected": 1}
    message = "the server answers 400: maximum context length is 16384 tokens"
    assert info["image_refused"] == 112
    warning = f"an image of 112 x 112 is refused ({message}), one of 28 x 28 is not"
    assert warning in caplog.text
    max_side = 27
    with pytest.raises(ConfigError, match="maximum context length"):
        make_engine(server)


def test_address_and_limits_do_not_change_the_fingerprint() -> None:
    config, moved = (
        make_config("http://a/v1"),
        make_config("http://b:80/v1", max_concurrency=3, max_attempts=9),
    )
    assert config.engine_settings == moved.engine_settings
    assert make_config("http://a/v1", name="other").engine_settings != config.engine_settings
    assert make_config("http://a/v1", extra={"top_k": 5}).engine_settings != config.engine_settings
    assert ModelConfig().engine_settings == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"url": None}, "is needed with model.engine=http"),
        ({"url": "host:8000"}, "must be an address"),
        ({"url": "http://me:secret@host/v1"}, "must not hold a password"),
        ({"engine": EngineKind.hf}, "is used only with model.engine=http"),
    ],
)
def test_an_impossible_address_is_a_settings_error(changes: dict, message: str) -> None:
    config = make_config("http://a/v1")
    for name, value in changes.items():
        setattr(config, name, value)
    assert any(key == "url" and message in rule for key, rule in config.check())


def test_a_server_and_extra_fields_are_set_on_the_command_line() -> None:
    overrides = [
        "model.engine=http",
        "model.url=http://host:8000/v1",
        "+model.server.extra.top_k=20",
    ]
    config = resolve(
        compose_config([*overrides, "+model.server.extra.chat_template_kwargs={think: false}"])
    )
    assert config.model.server.extra == {"top_k": 20, "chat_template_kwargs": {"think": False}}
    with pytest.raises(ConfigError, match=r"model\.url=null: is needed with model\.engine=http"):
        compose_config(["model.engine=http"])
    with pytest.raises(ConfigError, match=r"expected one of \[hf, vllm, http\]"):
        compose_config(["model.engine=htp"])
    with pytest.raises(ConfigError, match="may not set seed"):
        compose_config([*overrides, "+model.server.extra.seed=1"])


def test_a_server_whose_list_of_models_is_broken_is_reachable(server: ModelServer) -> None:
    server.models_status = 500
    engine, requests = make_engine(server), make_requests(6)
    server.inject_fault = lambda handler, body, number: (
        number == 2 and (send(handler, 500, b"oops") or True)
    )
    assert all_correct(generate_all(engine, requests), requests)
    server.models_status = 503
    with pytest.raises(ConfigError, match="the server answers 503"):
        make_engine(server)
