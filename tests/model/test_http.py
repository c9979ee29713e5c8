"""The http engine: whatever fails, no response is lost or returned for another request.

Before its first request the engine checks the server with requests of its own (the server check).
Requests with the same `view` have the same image and text, so an image is encoded once per view.
"""

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
from tests.model.answering import ModelServer, completion_body, expected_response, parse_body

KEY = "sk-never-to-be-seen-42"  # must not appear in messages
MAX_PIXELS = 112 * 112  # 16 image tokens of 28 x 28 pixels


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    """A fake server; expected_response() is its response to a request."""
    monkeypatch.setenv("MODEL_API_KEY", KEY)
    server = ModelServer()
    yield server
    server.close()


def make_config(url: str, **changes: Any) -> ModelConfig:
    """A configuration with 8 open requests and `changes` in model.server."""
    config = ModelConfig(engine=EngineKind.http, url=url)
    config.server.max_concurrency, config.server.timeout_s = 8, 20
    config.server.backoff_s = 0.01
    for name, value in changes.items():
        setattr(config.server, name, value)
    return config


def make_engine(server: ModelServer, **changes: Any) -> OpenAIEngine:
    """An engine that has checked the server, with `changes` in model.server."""
    return server_check.connect(make_config(server.url, **changes), MAX_PIXELS)


def make_requests(count: int, num_images: int = 5) -> list[Request]:
    """Requests with the seeds 0, 1, ...; three in a row have the same text."""
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


def send_completion(handler: Any, text: Any, **changes: Any) -> bool:
    """Send a completion of completion_body(text, **changes); returns True, as inject_fault must."""
    send(handler, 200, json.dumps(completion_body(text, **changes)).encode())
    return True


def send_error(handler: Any, status: int, content: bytes = b"oops") -> bool:
    """Send an error; returns True, as inject_fault must."""
    send(handler, status, content)
    return True


def all_correct(results: list[Any], requests: list[Request]) -> bool:
    """Whether every response is the one that belongs to its request."""
    return [result.text for result in results] == [
        expected_response(request) for request in requests
    ]


def test_every_response_belongs_to_its_request_and_concurrency_is_limited(
    server: ModelServer,
) -> None:
    requests, engine = make_requests(120), make_engine(server)
    all_open = threading.Barrier(8, timeout=60)

    def inject_fault(handler: Any, body: dict, number: int) -> bool:
        if number <= 8:
            all_open.wait()  # the first eight are responded to only when all of them are open
        return False

    server.max_open = 0  # forget the requests of the server check
    server.inject_fault, server.delay_s = inject_fault, 0.01
    results = generate_all(engine, requests)
    assert all_correct(results, requests)
    # A server returns no token ids; the fake server reports 5 tokens.
    assert results[0] == Completion(
        expected_response(requests[0]), token_ids=(), hit_eos=True, reported_tokens=5
    )
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
    # The URL of one image of random pixels has more than 56 x 84 x 3 = 14,112 bytes.
    urls = openai_engine.DataUrlCache(max_bytes=20_000)
    for request in make_requests(20, num_images=20):
        urls.get(request.images[0])
    assert urls.num_bytes <= 20_000
    assert urls.num_encoded == 20


TWO_CHOICES = json.dumps({"choices": completion_body("A")["choices"] * 2}).encode()
FAULTS: dict[str, Callable[[Any], Any]] = {
    "two choices": lambda handler: send(handler, 200, TWO_CHOICES),
    "no choice": lambda handler: send(handler, 200, b'{"choices": []}'),
    "aborted": lambda handler: send_completion(handler, "A", reason="abort"),
    "not JSON": lambda handler: send(handler, 200, b"<html>please sign in</html>"),
    "empty body": lambda handler: send(handler, 200, b""),
    "empty text": lambda handler: send_completion(handler, "", tokens=0),
    "many tokens, empty text": lambda handler: send_completion(handler, "", tokens=9),
    "null text": lambda handler: send_completion(handler, None, tokens=3),
    "lone surrogate": lambda handler: send_completion(handler, "A\ud800"),
    "object as finish_reason": lambda handler: send_completion(handler, "A", reason={}),
    "list as finish_reason": lambda handler: send_completion(handler, "A", reason=["stop"]),
    "number as text": lambda handler: send_completion(handler, 7),
    "500": lambda handler: send(handler, 500, b"oops"),
    "503": lambda handler: send(handler, 503, b"oops"),
    "429": lambda handler: send(handler, 429, b"{}", Retry_After="0"),
    "404 of a router": lambda handler: send(handler, 404, b"{}"),
    "502 with Retry-After": lambda handler: send(handler, 502, b"<html>", Retry_After="0.05"),
    "dropped": FaultyProxy.drop,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_requests_with_faulty_responses_are_retried_until_all_are_correct(
    server: ModelServer, fault: str
) -> None:
    def inject_fault(handler: Any, body: dict, number: int) -> bool:
        is_faulty = number % 3 == 1
        if is_faulty:
            FAULTS[fault](handler)
        return is_faulty

    engine, requests = make_engine(server, max_attempts=12), make_requests(30)
    server.inject_fault = inject_fault
    results = generate_all(engine, requests)
    assert all_correct(results, requests)
    assert server.num_requests == 30 + sum(engine.faults.values())
    assert sum(engine.faults.values()) >= 10  # every third of at least 30 requests


def test_a_slow_response_times_out_and_is_retried(server: ModelServer) -> None:
    def inject_fault(handler: Any, body: dict, number: int) -> bool:
        if number == 1:
            time.sleep(5.0)  # longer than timeout_s
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
    server.inject_fault = lambda handler, body, number: send_error(handler, status)
    results = []
    with pytest.raises(OSError, match=rf"samples in a row have no response; the last one: {last}"):
        results.extend(engine.stream(feed(enumerate(make_requests(150)))))
    assert not results
    # The server is suspected after 32 samples without a response. Three requests with the same text
    # count as one sample, and eight requests are open.
    assert 32 <= server.num_requests < 32 * 3 + 8


def test_many_refused_samples_fail_even_if_no_other_request_follows(server: ModelServer) -> None:
    engine, requests = make_engine(server), make_requests(110)

    def refuse_all_but_ten(handler: Any, body: dict, number: int) -> bool:
        if is_failing := body["seed"] >= 10:
            send(handler, 400, b'{"error": {"message": "maximum context length is 256 tokens"}}')
        return is_failing

    server.inject_fault = refuse_all_but_ten
    results = generate_all(engine, requests)
    message = "the server answers 400: maximum context length is 256 tokens"
    assert set(results[10:]) == {GenerationError(message)}
    assert all_correct(results[:10], requests[:10])
    # The engine adds up to three plain requests, to test whether the server works.
    assert 110 < server.num_requests <= 110 + 3


def test_no_sample_is_marked_failed_if_the_server_fails_all_images(server: ModelServer) -> None:
    engine = make_engine(server, max_attempts=1)
    server.inject_fault = lambda handler, body, number: (
        "image_url" in str(body) and send_error(handler, 500)
    )
    with pytest.raises(OSError, match=r"samples in a row have no response"):
        generate_all(engine, make_requests(150))


@pytest.mark.parametrize("failure", ["context too small", "500"])
def test_no_sample_is_marked_failed_if_the_server_fails_every_sample(
    server: ModelServer, failure: str
) -> None:
    engine = make_engine(server, max_attempts=1)
    requests = [replace(request, max_new_tokens=50) for request in make_requests(150)]

    def inject_fault(handler: Any, body: dict, number: int) -> bool:
        if failure == "500":
            is_plain_request = "Say yes." in str(body)  # sent to test whether the server works
            return not is_plain_request and send_error(handler, 500)
        return body["max_tokens"] >= 50 and send_error(handler, 400, b"context too small")

    server.inject_fault = inject_fault
    with pytest.raises(OSError, match=r"samples in a row have no response"):
        generate_all(engine, requests)


def test_many_failures_of_a_few_samples_are_blamed_on_the_samples(server: ModelServer) -> None:
    engine = make_engine(server, max_attempts=1)
    # A view names a sample and its image; these are 15 requests for each of 4 samples.
    requests = [
        replace(request, view=f"{request.seed % 4}/full_image") for request in make_requests(60)
    ]
    server.inject_fault = lambda handler, body, number: send_error(handler, 500)
    assert all(isinstance(result, GenerationError) for result in generate_all(engine, requests))


def test_refusals_before_the_first_completion_are_blamed_on_the_samples(
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
    assert server.num_requests == 150  # and no plain request to test the server


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
def test_a_plain_request_decides_whether_a_rejected_request_or_the_server_is_at_fault(
    server: ModelServer, retry_after: str
) -> None:
    """A plain request is a short text without an image; the engine sends it as a test."""
    engine = make_engine(server, max_outage_s=0.3)
    requests = make_requests(5)[4:]  # the one with seed 4
    rejected_seeds = [4]

    def inject_fault(handler: Any, body: dict, number: int) -> bool:
        if is_failing := body["seed"] in rejected_seeds:
            send(handler, 429, b"{}", Retry_After=retry_after)
        return is_failing

    server.inject_fault = inject_fault
    (result,) = generate_all(engine, requests)
    assert isinstance(result, GenerationError)
    assert "rejected while others were completed" in result.reason
    rejected_seeds.append(0)  # the seed of the plain request
    message = "busy" if retry_after == "0.01" else "asks to wait for 7200 s"
    with pytest.raises(OSError, match=message):
        generate_all(engine, requests)


def test_a_lone_surrogate_is_replaced_and_an_impossible_token_count_is_dropped(
    server: ModelServer,
) -> None:
    engine, requests = make_engine(server), make_requests(2)

    def inject_fault(handler: Any, body: dict, number: int) -> bool:
        if body["seed"] == 0:
            send(handler, 400, b'{"error": {"message": "half \\ud800"}}')
        else:
            send_completion(handler, "7", tokens=10**20)
        return True

    server.inject_fault = inject_fault
    refusal = GenerationError("the server answers 400: half ?")
    seven = Completion("7", token_ids=(), hit_eos=True, reported_tokens=None)
    assert generate_all(engine, requests) == [refusal, seven]


def test_the_server_check_obeys_retry_after_and_repeats_the_request(server: ModelServer) -> None:
    respond, times = server.respond, []

    def reject_the_first(handler: Any, number: int, content: bytes) -> None:
        times.append(time.monotonic())
        if len(times) == 1:
            return send(handler, 429, b"{}", Retry_After="0.3")
        return respond(handler, number, content)

    server.respond = reject_the_first
    # "top_k=-1" names the first fields that the check tries, so the server has taken them.
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
    server.inject_fault = lambda handler, body, number: send_completion(handler, "", tokens=1)
    empty = Completion("", token_ids=(), hit_eos=True, reported_tokens=1)  # the end token
    assert generate_all(engine, make_requests(1)) == [empty]


def test_reasoning_that_the_server_removes_is_an_error(server: ModelServer) -> None:
    engine, completion = make_engine(server), completion_body("7")
    completion["choices"][0]["message"]["reasoning_content"] = "three and four"
    content = json.dumps(completion).encode()

    def inject_fault(handler: Any, body: dict, number: int) -> bool:
        send(handler, 200, content)
        return True

    server.inject_fault = inject_fault
    (result,) = generate_all(engine, make_requests(1))
    assert isinstance(result, GenerationError)
    assert "without reasoning parser" in result.reason


def test_during_an_outage_all_requests_wait_with_a_warning_and_none_fails(
    server: ModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    engine, requests = make_engine(server, max_attempts=1), make_requests(200)
    server.delay_s = 0.005

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
    assert "waiting for up to 1800 s more" in log  # the default max_outage_s
    assert "is back after" in log


def test_a_server_that_stays_away_is_an_error_that_names_its_address(server: ModelServer) -> None:
    engine = make_engine(server, max_outage_s=0.3)
    requests = make_requests(50)
    stream = engine.stream(feed(enumerate(requests)))
    results = [next(stream) for _ in range(5)]
    server.down()
    with pytest.raises(OSError, match=r"has been away for .*max_outage_s") as error:
        results.extend(stream)
    assert server.url in str(error.value)
    assert all(result.text == expected_response(requests[i]) for i, result in results)
    server.up()  # so that the fixture can close it


def test_a_request_that_kills_the_server_does_not_fail_the_others(
    server: ModelServer,
) -> None:
    engine, requests = make_engine(server, max_attempts=4), make_requests(40)
    lock = threading.Lock()  # held while the server restarts

    def restart() -> None:
        server.models_status = 503
        time.sleep(0.3)  # all requests are dropped meanwhile
        server.models_status = 200

    def inject_fault(handler: Any, body: dict, number: int) -> bool:
        if body["seed"] == 7 and lock.acquire(blocking=False):
            server.models_status = 503
            threading.Thread(target=lambda: (restart(), lock.release())).start()
        if server.models_status == 503 or body["seed"] == 7:
            FaultyProxy.drop(handler)
            return True
        time.sleep(0.01)
        return False

    server.inject_fault = inject_fault
    results = generate_all(engine, requests)
    # max_attempts=4 after the two crashes that made the engine send it alone.
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
    assert gaps.max() > 0.8  # seconds, of the pause of 1 s
    # Up to 8 requests are open at the first rejection, and up to 8 follow until it arrives.
    assert sum(sent_at < times[0] + 0.8 for sent_at in times) <= 8 + 8


def test_responses_that_arrived_before_a_fatal_error_are_still_yielded(server: ModelServer) -> None:
    engine, requests = make_engine(server), make_requests(8)
    all_open = threading.Barrier(8, timeout=20)

    def inject_fault(handler: Any, body: dict, number: int) -> bool:
        all_open.wait()
        if is_failing := body["seed"] == 3:
            time.sleep(0.3)
            send(handler, 401, b"{}")
        return is_failing

    def read_slowly(pairs: Iterator[Any]) -> Iterator[Any]:
        for pair in pairs:
            time.sleep(0.3)  # the error arrives while the caller handles the first result
            yield pair

    server.inject_fault = inject_fault
    results = []
    with pytest.raises(OSError, match="the server answers 401"):
        results.extend(read_slowly(engine.stream(feed(enumerate(requests)))))
    assert len(results) == 7
    assert all(result.text == expected_response(requests[i]) for i, result in results)


def test_a_closed_stream_cancels_its_requests(server: ModelServer) -> None:
    engine = make_engine(server)
    server.delay_s = 0.05
    stream = engine.stream(feed(enumerate(make_requests(100))))
    next(stream)
    began = time.monotonic()
    stream.close()
    engine.close()
    assert time.monotonic() - began < 1
    time.sleep(0.2)
    assert server.num_requests < 30  # of 100, with 8 open at a time


def test_a_missing_server_is_an_error_within_seconds_that_names_the_address() -> None:
    # No server listens on port 9.
    began = time.monotonic()
    with pytest.raises(ConfigError, match=r"model.url=http://127.0.0.1:9/v1: no server answers"):
        server_check.connect(make_config("http://127.0.0.1:9/v1"), MAX_PIXELS)
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
    """The fields switch off the server's own sampling defaults, such as a top_k."""
    assert make_engine(server).info["sampling"] == "top_k=-1"
    server.refused_fields = ("top_k",)
    assert make_engine(server).info["sampling"] == "generation_config"
    server.refused_fields = ("top_k", "generation_config")
    assert make_engine(server).info["sampling"] == "none"
    assert "the server's own sampling defaults apply" in caplog.text


def test_the_server_check_finds_that_seeds_are_ignored(
    server: ModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.honors_seeds = False
    assert make_engine(server).info["seeds"] == "ignored"
    assert "does not honor seeds" in caplog.text


def test_a_server_that_does_not_sample_is_refused(server: ModelServer) -> None:
    server.does_sample = False
    with pytest.raises(ConfigError, match="does not sample"):
        make_engine(server)


def test_a_server_that_does_not_see_images_is_refused(server: ModelServer) -> None:
    # 112 x 112 pixels are 16 tokens; the fake server adds a start and an end token.
    assert make_engine(server).info["image_tokens"] == {"side": 112, "server": 18, "expected": 16}
    server.sees_images = False
    with pytest.raises(ConfigError, match="the model does not see it"):
        make_engine(server)


def test_if_the_largest_image_is_refused_smaller_ones_are_tried(
    server: ModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    respond = server.respond

    def refuse_large_images(handler: Any, number: int, content: bytes) -> None:
        _, _, sizes = parse_body(json.loads(content))
        if any(side > max_side for size in sizes for side in size):
            message = b'{"error": {"message": "maximum context length is 16384 tokens"}}'
            return send(handler, 400, message)
        return respond(handler, number, content)

    server.respond, max_side = refuse_large_images, 50
    info = make_engine(server).info
    assert info["image_tokens"] == {"side": 28, "server": 3, "expected": 1}
    message = "the server answers 400: maximum context length is 16384 tokens"
    assert info["image_refused"] == 112
    warning = f"an image of 112 x 112 is refused ({message}), one of 28 x 28 is not"
    assert warning in caplog.text
    max_side = 27  # smaller than the smallest image of the check, 28 x 28
    with pytest.raises(ConfigError, match="maximum context length"):
        make_engine(server)


def test_engine_settings_do_not_depend_on_the_address_or_limits() -> None:
    config = make_config("http://a/v1")
    other_server = make_config("http://b:80/v1", max_concurrency=3, max_attempts=9)
    assert config.engine_settings == other_server.engine_settings
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
def test_an_invalid_address_is_a_settings_error(changes: dict, message: str) -> None:
    config = make_config("http://a/v1")
    for name, value in changes.items():
        setattr(config, name, value)
    assert any(name == "url" and message in problem for name, problem in config.check())


def test_a_server_and_its_extra_fields_can_be_set_on_the_command_line() -> None:
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
    server.inject_fault = lambda handler, body, number: number == 2 and send_error(handler, 500)
    assert all_correct(generate_all(engine, requests), requests)
    server.models_status = 503
    with pytest.raises(ConfigError, match="the server answers 503"):
        make_engine(server)
