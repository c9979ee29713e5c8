"""The engine that asks a server: whatever goes wrong, no answer is lost and none is wrong."""

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
from difftrain.config.engine import EngineKind
from difftrain.config.model import ModelConfig
from difftrain.config.run_config import ConfigError, resolve
from difftrain.model.engines import openai_engine, server_check
from difftrain.model.engines.openai_engine import OpenAIEngine
from difftrain.model.engines.types import Completion, GenerationError, Request, generate_all
from tests.listening import FaultyProxy, send
from tests.model.answering import ModelServer, expected_of, whole
from tests.model.answering import read as read_body

KEY = "sk-never-to-be-seen-42"
PIXELS = 784 * 16


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    """A server whose answers are known."""
    monkeypatch.setenv("MODEL_API_KEY", KEY)
    found = ModelServer()
    yield found
    found.close()


def settings(url: str, **changes: Any) -> ModelConfig:
    found = ModelConfig(engine=EngineKind.http, url=url)
    found.server.max_concurrency, found.server.timeout_s = 8, 20
    found.server.backoff_s = 0.01
    for name, value in changes.items():
        setattr(found.server, name, value)
    return found


def engine(server: ModelServer, **changes: Any) -> OpenAIEngine:
    return server_check.connect(settings(server.url, **changes), PIXELS)


def requests(number: int, pictures: int = 5) -> list[Request]:
    """Requests with words, a picture of noise (one of a few) and a seed each."""
    noise = np.random.default_rng(0).integers(0, 256, (pictures, 56, 84, 3), dtype=np.uint8)
    shown = [Image.fromarray(each) for each in noise]
    return [
        Request(
            parts=(shown[place % pictures], f"How many? ({place // 3})"),
            seed=place,
            temperature=0.7,
            max_new_tokens=20,
        )
        for place in range(number)
    ]


def right(found: list[Any], asked: list[Request]) -> bool:
    """Whether every answer is the one that belongs to its request."""
    return [each.text for each in found] == [expected_of(each) for each in asked]


def test_every_answer_belongs_to_its_request_and_no_more_are_open_than_allowed(
    server: ModelServer,
) -> None:
    asked, made = requests(120), engine(server)
    server.delay, server.most_open = 0.05, 0
    found = generate_all(made, asked)
    assert right(found, asked)
    assert found[0] == Completion(expected_of(asked[0]), (), True, 5)
    assert found[0].num_tokens == 5
    assert server.in_earnest == 120
    assert 4 < server.most_open <= 8
    assert made.info["seeds"] == "honored"
    assert server.keys == {f"Bearer {KEY}"}


def test_a_request_says_everything_that_decides_its_answer(server: ModelServer) -> None:
    generate_all(engine(server, extra={"bad_words": ["x"]}), requests(1))
    body = server.heard[-1]
    assert [turn["role"] for turn in body["messages"]] == ["system", "user"]
    wanted = {"temperature": 0.7, "seed": 0, "max_tokens": 20, "top_p": 1.0, "top_k": -1}
    wanted |= {"repetition_penalty": 1.0, "min_p": 0.0, "model": "tiny", "bad_words": ["x"]}
    assert wanted.items() <= body.items()


def test_pictures_arrive_unchanged_and_are_encoded_once_a_view(server: ModelServer) -> None:
    made = engine(server)
    before = made.model.data_urls.encoded
    asked = requests(40, pictures=3)
    assert right(generate_all(made, asked), asked)
    assert made.model.data_urls.encoded - before == 3


def test_data_urls_are_forgotten_when_they_grow_too_large() -> None:
    urls = openai_engine.DataUrlCache(max_bytes=20_000)
    for each in requests(20, pictures=20):
        urls.get(each.images[0])
    assert urls.bytes <= 20_000
    assert urls.encoded == 20


SPOILT: dict[str, Callable[[Any], None]] = {
    "two choices": lambda h: send(
        h, 200, json.dumps({"choices": whole("A")["choices"] * 2}).encode()
    ),
    "no choice": lambda h: send(h, 200, b'{"choices": []}'),
    "half": lambda h: send(h, 200, json.dumps(whole("A", reason="abort")).encode()),
    "not JSON": lambda h: send(h, 200, b"<html>please sign in</html>"),
    "nothing": lambda h: send(h, 200, b""),
    "no words": lambda h: send(h, 200, json.dumps(whole("", tokens=0)).encode()),
    "many tokens, no words": lambda h: send(h, 200, json.dumps(whole("", tokens=9)).encode()),
    "null": lambda h: send(h, 200, json.dumps(whole(None, tokens=3)).encode()),
    "half a character": lambda h: send(h, 200, json.dumps(whole("A\ud800")).encode()),
    "no reason": lambda h: send(h, 200, json.dumps(whole("A", reason={})).encode()),
    "reasons": lambda h: send(h, 200, json.dumps(whole("A", reason=["stop"])).encode()),
    "a number": lambda h: send(h, 200, json.dumps(whole(7)).encode()),
    "500": lambda h: send(h, 500, b"oops"),
    "503": lambda h: send(h, 503, b"oops"),
    "busy": lambda h: send(h, 429, b"{}", Retry_After="0"),
    "404 of a router": lambda h: send(h, 404, b"{}"),
    "gateway": lambda h: send(h, 502, b"<html>", Retry_After="0.05"),
    "dropped": FaultyProxy.drop,
}


@pytest.mark.parametrize("fault", SPOILT)
def test_a_spoilt_answer_is_asked_again_and_none_is_lost_or_wrong(
    server: ModelServer, fault: str
) -> None:
    def spoils(handler: Any, body: dict, number: int) -> bool:
        if number % 3 == 1:
            SPOILT[fault](handler)
        return number % 3 == 1

    made, asked = engine(server, max_attempts=12), requests(30)
    server.spoils = spoils
    found = generate_all(made, asked)
    assert right(found, asked)
    assert server.in_earnest == 30 + sum(made.faults.values())
    assert sum(made.faults.values()) >= 10


def test_a_slow_answer_is_given_up_and_asked_again(server: ModelServer) -> None:
    def spoils(handler: Any, body: dict, number: int) -> bool:
        if number == 1:
            time.sleep(5.0)
            FaultyProxy.drop(handler)
        return number == 1

    made, asked = engine(server, timeout_s=3.0), requests(6)
    server.spoils = spoils
    assert right(generate_all(made, asked), asked)
    assert made.faults == {"slow": 1}


def test_what_never_succeeds_is_set_aside_with_the_reason_after_so_many_tries(
    server: ModelServer,
) -> None:
    tries = []

    def spoils(handler: Any, body: dict, number: int) -> bool:
        bad = body["seed"] == 4
        if bad:
            tries.append(number)
            send(handler, 500, b'{"error": {"message": "CUDA error for sk-never-to-be-seen-42"}}')
        return bad

    made, asked = engine(server, max_attempts=3), requests(9)
    server.spoils = spoils
    found = generate_all(made, asked)
    assert len(tries) == 3
    told = "3 attempts failed, the last: the server answers 500: CUDA error for ..."
    assert found.pop(4) == GenerationError(told)
    asked.pop(4)
    assert right(found, asked)


def test_what_the_server_refuses_is_not_asked_again(server: ModelServer) -> None:
    def spoils(handler: Any, body: dict, number: int) -> bool:
        if bad := body["seed"] == 2:
            send(handler, 400, b'{"error": {"message": "prompt of 9999 tokens is too long"}}')
        return bad

    made, asked = engine(server), requests(5)
    server.spoils = spoils
    found = generate_all(made, asked)
    assert found[2] == GenerationError("the server answers 400: prompt of 9999 tokens is too long")
    assert server.in_earnest == 5


@pytest.mark.parametrize(
    ("status", "last"), [(500, "1 attempts failed"), (400, "the server answers 400")]
)
def test_a_server_that_fails_for_everybody_sets_nobody_aside(
    server: ModelServer, status: int, last: str
) -> None:
    made = engine(server, max_attempts=1)
    server.spoils = lambda handler, body, number: send(handler, status, b"oops") or True
    found = []
    with pytest.raises(OSError, match=rf"samples in a row have no response; the last one: {last}"):
        found.extend(made.stream(iterator(requests(150))))
    assert not found
    assert 32 <= server.in_earnest < 32 * 3 + 8


def refused(handler: Any, body: dict) -> bool:
    """Refuse the later requests of many, as a server does that their prompts are too long for."""
    if bad := body["seed"] >= 10:
        send(handler, 400, b'{"error": {"message": "maximum context length is 256 tokens"}}')
    return bad


def test_samples_that_are_too_long_and_come_last_are_set_aside_however_many(
    server: ModelServer,
) -> None:
    made, asked = engine(server), requests(110)
    server.spoils = lambda handler, body, number: refused(handler, body)
    found = generate_all(made, asked)
    told = "the server answers 400: maximum context length is 256 tokens"
    assert set(found[10:]) == {GenerationError(told)}
    assert right(found[:10], asked[:10])
    assert 110 < server.in_earnest <= 110 + 3


def test_a_server_that_fails_at_every_picture_sets_nobody_aside(server: ModelServer) -> None:
    made = engine(server, max_attempts=1)
    server.spoils = lambda handler, body, number: (
        "image_url" in str(body) and (send(handler, 500, b"oops") or True)
    )
    with pytest.raises(OSError, match=r"samples in a row have no response"):
        generate_all(made, requests(150))


@pytest.mark.parametrize("how", ["asks for too much", "fails"])
def test_a_server_that_answers_plain_words_and_nothing_of_the_work_sets_nobody_aside(
    server: ModelServer, how: str
) -> None:
    made = engine(server, max_attempts=1)
    asked = [replace(each, max_new_tokens=50) for each in requests(150)]

    def spoils(handler: Any, body: dict, number: int) -> bool:
        if how == "fails":
            return "Say yes." not in str(body) and (send(handler, 500, b"oops") or True)
        return body["max_tokens"] >= 50 and (send(handler, 400, b"context too small") or True)

    server.spoils = spoils
    with pytest.raises(OSError, match=r"samples in a row have no response"):
        generate_all(made, asked)


def test_many_draws_of_few_samples_that_fail_are_set_aside(server: ModelServer) -> None:
    made = engine(server, max_attempts=1)
    asked = [replace(each, view=f"{each.seed % 4}/whole") for each in requests(60)]
    server.spoils = lambda handler, body, number: send(handler, 500, b"oops") or True
    assert all(isinstance(each, GenerationError) for each in generate_all(made, asked))


def test_quick_refusals_beside_a_slow_answer_are_the_samples_own(server: ModelServer) -> None:
    made, asked = engine(server), requests(150)

    def spoils(handler: Any, body: dict, number: int) -> bool:
        if body["seed"] == 0:
            time.sleep(0.5)
        if bad := 0 < body["seed"] < 120:
            send(handler, 400, b'{"error": {"message": "too long"}}')
        return bad

    server.spoils = spoils
    found = generate_all(made, asked)
    assert set(found[1:120]) == {GenerationError("the server answers 400: too long")}
    assert right(found[:1] + found[120:], asked[:1] + asked[120:])
    assert server.in_earnest == 150


def test_a_request_that_is_turned_away_while_others_are_answered_is_set_aside(
    server: ModelServer,
) -> None:
    def spoils(handler: Any, body: dict, number: int) -> bool:
        if bad := body["seed"] == 4:
            send(handler, 503, b'{"error": {"message": "no room"}}', Retry_After="0.01")
        return bad

    made, asked = engine(server, max_attempts=2, max_concurrency=2), requests(60)
    server.spoils = spoils
    found = generate_all(made, asked)
    last = found.pop(4)
    asked.pop(4)
    assert isinstance(last, GenerationError)
    told = "rejected while others were completed, the last: the server answers 503: no room"
    assert last.reason.endswith(told)
    assert right(found, asked)


@pytest.mark.parametrize("wanted", ["0.01", "7200"])
def test_the_last_request_that_is_always_turned_away_ends_too(
    server: ModelServer, wanted: str
) -> None:
    made, asked = engine(server, max_outage_s=0.3), requests(5)[4:]

    def spoils(handler: Any, body: dict, number: int) -> bool:
        if bad := body["seed"] in turned_away:
            send(handler, 429, b"{}", Retry_After=wanted)
        return bad

    server.spoils, turned_away = spoils, [4]
    (found,) = generate_all(made, asked)
    assert isinstance(found, GenerationError)
    assert "rejected while others were completed" in found.reason
    turned_away.append(0)
    with pytest.raises(OSError, match="busy" if wanted == "0.01" else "asks to wait for 7200 s"):
        generate_all(made, asked)


def test_what_no_file_can_hold_is_not_taken_from_a_server(server: ModelServer) -> None:
    made, asked = engine(server), requests(2)

    def spoils(handler: Any, body: dict, number: int) -> bool:
        if body["seed"] == 0:
            send(handler, 400, b'{"error": {"message": "half \\ud800"}}')
        else:
            send(handler, 200, json.dumps(whole("7", tokens=10**20)).encode())
        return True

    server.spoils = spoils
    refused = GenerationError("the server answers 400: half ?")
    assert generate_all(made, asked) == [refused, Completion("7", (), True, None)]


def test_the_trial_waits_before_it_asks_again_and_keeps_the_dialect(server: ModelServer) -> None:
    plain, times = server.answer, []

    def busy(handler: Any, number: int, content: bytes) -> None:
        times.append(time.monotonic())
        if len(times) == 1:
            return send(handler, 429, b"{}", Retry_After="0.3")
        return plain(handler, number, content)

    server.answer = busy
    assert engine(server).info["sampling"] == "top_k=-1"
    assert times[1] - times[0] > 0.29


def test_a_trial_that_fails_is_no_dialect_that_is_refused(server: ModelServer) -> None:
    server.answer = lambda handler, number, content: send(handler, 500, b"oops")
    with pytest.raises(ConfigError, match="the server answers 500"):
        engine(server, max_attempts=3)
    assert len(server.heard) == 3
    assert all("top_k" in body for body in server.heard)


@pytest.mark.parametrize(
    "words", ["what is <|image_pad|>?", "<|im_end|>\n<|im_start|>system", "<image>"]
)
def test_words_that_a_server_takes_for_its_own_tokens_are_not_sent(
    server: ModelServer, words: str
) -> None:
    bad = Request(parts=(words,), max_new_tokens=4)
    (found,) = generate_all(engine(server), [bad])
    assert isinstance(found, GenerationError)
    assert "contains the special token" in found.reason
    assert server.in_earnest == 0


def test_a_model_that_ends_at_once_has_said_nothing_and_that_is_an_answer(
    server: ModelServer,
) -> None:
    made = engine(server)
    server.spoils = lambda handler, body, number: (
        send(handler, 200, json.dumps(whole("", tokens=1)).encode()) or True
    )
    assert generate_all(made, requests(1)) == [Completion("", (), True, 1)]


def test_thoughts_taken_out_of_the_answer_are_told(server: ModelServer) -> None:
    made, body = engine(server), whole("7")
    body["choices"][0]["message"]["reasoning_content"] = "three and four"
    server.spoils = lambda handler, _, number: send(handler, 200, json.dumps(body).encode()) or True
    (found,) = generate_all(made, requests(1))
    assert isinstance(found, GenerationError)
    assert "without reasoning parser" in found.reason


def test_a_server_that_goes_away_is_waited_for_and_told_and_nothing_counts(
    server: ModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    made, asked = engine(server, max_attempts=1), requests(200)
    server.delay = 0.005

    def bounce() -> None:
        while server.in_earnest < 60:
            time.sleep(0.005)
        server.down()
        time.sleep(1.0)
        server.up()

    thread = threading.Thread(target=bounce)
    thread.start()
    found = generate_all(made, asked)
    thread.join()
    assert right(found, asked)
    told = caplog.text
    assert f"model.url={server.url} does not answer" in told
    assert "waiting for up to 1800 s more" in told
    assert "is back after" in told


def test_a_server_that_stays_away_ends_the_stream_with_its_name(server: ModelServer) -> None:
    made = engine(server, max_outage_s=0.3)
    stream = made.stream(iterator(requests(50)))
    got = [next(stream) for _ in range(5)]
    server.down()
    with pytest.raises(OSError, match=r"has been away for .*max_outage_s") as error:
        got.extend(stream)
    assert server.url in str(error.value)
    assert all(answer.text == expected_of(request) for request, answer in got)
    server.up()


def iterator(asked: list[Request]) -> Callable[[int], list[tuple[Request, Request]]]:
    """What `stream` takes, with each request as its own key."""
    waiting = iter(asked)

    def more(room: int) -> list[tuple[Request, Request]]:
        return [(each, each) for _, each in zip(range(room), waiting, strict=False)]

    return more


def test_a_request_that_kills_the_server_does_not_take_the_others_along(
    server: ModelServer,
) -> None:
    made, asked = engine(server, max_attempts=4), requests(40)
    lock = threading.Lock()

    def restart() -> None:
        server.models = 503
        time.sleep(0.3)
        server.models = 200

    def spoils(handler: Any, body: dict, number: int) -> bool:
        if body["seed"] == 7 and lock.acquire(blocking=False):
            server.models = 503
            threading.Thread(target=lambda: (restart(), lock.release())).start()
        if server.models == 503:
            FaultyProxy.drop(handler)
            return True
        time.sleep(0.01)
        return False

    server.spoils = spoils
    found = generate_all(made, asked)
    assert found.pop(7) == GenerationError("the server went down 6 times during this request")
    asked.pop(7)
    assert right(found, asked)


def test_a_wanted_pause_is_kept_by_everybody(server: ModelServer) -> None:
    made, asked = engine(server), requests(20)
    times: list[float] = []

    def spoils(handler: Any, body: dict, number: int) -> bool:
        times.append(time.monotonic())
        if number == 1:
            send(handler, 429, b"{}", Retry_After="1")
        else:
            time.sleep(0.02)
        return number == 1

    server.spoils = spoils
    assert right(generate_all(made, asked), asked)
    gaps = np.diff(sorted(times))
    assert gaps.max() > 0.8
    assert sum(each < times[0] + 0.8 for each in times) <= 8 + 8


def test_answers_that_came_in_before_the_end_are_still_given(server: ModelServer) -> None:
    made, asked = engine(server), requests(8)
    come = threading.Barrier(8, timeout=20)

    def spoils(handler: Any, body: dict, number: int) -> bool:
        come.wait()
        if bad := body["seed"] == 3:
            time.sleep(0.3)
            send(handler, 401, b"{}")
        return bad

    server.spoils = spoils
    stream, got = made.stream(iterator(asked)), []
    with pytest.raises(OSError, match="the server answers 401"):
        got.extend(time.sleep(0.3) or each for each in stream)
    assert len(got) == 7
    assert all(answer.text == expected_of(request) for request, answer in got)


def test_a_stream_that_nobody_reads_on_ends_at_once(server: ModelServer) -> None:
    made = engine(server)
    server.delay = 0.05
    stream = made.stream(iterator(requests(100)))
    next(stream)
    began = time.monotonic()
    stream.close()
    made.close()
    assert time.monotonic() - began < 1
    time.sleep(0.2)
    assert server.in_earnest < 30


def test_nobody_at_the_start_is_told_within_seconds_with_the_address() -> None:
    began = time.monotonic()
    with pytest.raises(ConfigError, match=r"model.url=http://127.0.0.1:9/v1: no server answers"):
        server_check.connect(settings("http://127.0.0.1:9/v1"), PIXELS)
    assert time.monotonic() - began < 6


def test_a_key_that_is_turned_away_is_told_without_the_key(server: ModelServer) -> None:
    server.models = 401
    with pytest.raises(ConfigError, match=r"model\.server\.api_key_env=MODEL_API_KEY") as error:
        engine(server)
    assert KEY not in str(error.value)


def test_a_model_that_the_server_does_not_know_is_told(server: ModelServer) -> None:
    server.answer = lambda handler, number, content: send(handler, 404, b"{}")
    with pytest.raises(ConfigError, match=r"are model\.url and model\.server\.name right"):
        engine(server)


def test_a_field_that_the_server_refuses_is_left_out_and_the_artifact_says_so(
    server: ModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    assert engine(server).info["sampling"] == "top_k=-1"
    server.refuses = ("top_k",)
    assert engine(server).info["sampling"] == "generation_config"
    server.refuses = ("top_k", "generation_config")
    assert engine(server).info["sampling"] == "none"
    assert "the server's own sampling defaults apply" in caplog.text


def test_seeds_are_found_out_and_not_believed(
    server: ModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.keeps_seeds = False
    assert engine(server).info["seeds"] == "ignored"
    assert "does not honor seeds" in caplog.text


def test_a_server_that_does_not_sample_is_refused(server: ModelServer) -> None:
    server.samples = False
    with pytest.raises(ConfigError, match="does not sample"):
        engine(server)


def test_a_server_that_does_not_look_at_pictures_is_refused(server: ModelServer) -> None:
    assert engine(server).info["image_tokens"] == {"side": 112, "server": 18, "expected": 16}
    server.sees = False
    with pytest.raises(ConfigError, match="the model does not see it"):
        engine(server)


def test_a_server_that_refuses_the_largest_picture_is_asked_with_smaller_ones(
    server: ModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    plain = server.answer

    def small_only(handler: Any, number: int, content: bytes) -> None:
        _, _, sizes = read_body(json.loads(content))
        if any(side > most for size in sizes for side in size):
            told = b'{"error": {"message": "maximum context length is 16384 tokens"}}'
            return send(handler, 400, told)
        return plain(handler, number, content)

    server.answer, most = small_only, 50
    about = engine(server).info
    assert about["image_tokens"] == {"side": 28, "server": 3, "expected": 1}
    told = "the server answers 400: maximum context length is 16384 tokens"
    assert about["image_refused"] == 112
    said = caplog.text
    assert f"an image of 112 x 112 is refused ({told}), one of 28 x 28 is not" in said
    most = 27
    with pytest.raises(ConfigError, match="maximum context length"):
        engine(server)


def test_nothing_of_address_and_limits_makes_another_artifact() -> None:
    one, two = (
        settings("http://a/v1"),
        settings("http://b:80/v1", max_concurrency=3, max_attempts=9),
    )
    assert one.engine_settings == two.engine_settings
    assert settings("http://a/v1", name="other").engine_settings != one.engine_settings
    assert settings("http://a/v1", extra={"top_k": 5}).engine_settings != one.engine_settings
    assert ModelConfig().engine_settings == {}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"url": None}, "is needed with model.engine=http"),
        ({"url": "host:8000"}, "must be an address"),
        ({"url": "http://me:secret@host/v1"}, "must not hold a password"),
        ({"engine": EngineKind.hf}, "is used only with model.engine=http"),
    ],
)
def test_an_impossible_address_is_told_with_the_settings(changes: dict, told: str) -> None:
    found = settings("http://a/v1")
    for name, value in changes.items():
        setattr(found, name, value)
    assert any(key == "url" and told in rule for key, rule in found.check())


def test_a_server_is_named_on_the_command_line_with_fields_of_its_own() -> None:
    words = ["model.engine=http", "model.url=http://host:8000/v1", "+model.server.extra.top_k=20"]
    config = resolve(
        compose_config([*words, "+model.server.extra.chat_template_kwargs={think: false}"])
    )
    assert config.model.server.extra == {"top_k": 20, "chat_template_kwargs": {"think": False}}
    with pytest.raises(ConfigError, match=r"model\.url=null: is needed with model\.engine=http"):
        compose_config(["model.engine=http"])
    with pytest.raises(ConfigError, match=r"expected one of \[hf, vllm, http\]"):
        compose_config(["model.engine=htp"])
    with pytest.raises(ConfigError, match="may not set seed"):
        compose_config([*words, "+model.server.extra.seed=1"])


def test_a_server_whose_list_of_models_is_broken_is_there(server: ModelServer) -> None:
    server.models = 500
    made, asked = engine(server), requests(6)
    server.spoils = lambda handler, body, number: (
        number == 2 and (send(handler, 500, b"oops") or True)
    )
    assert right(generate_all(made, asked), asked)
    server.models = 503
    with pytest.raises(ConfigError, match="the server answers 503"):
        engine(server)
