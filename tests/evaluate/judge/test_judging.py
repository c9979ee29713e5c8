"""Grading with a judge server that fails: retries, call limit, cache, counts and secrets.

The fixtures `server` (a fake judge server), `proxy` and `config` are in conftest.py. shapes/NAME is
a built-in imitation of the benchmark NAME; `config` has six items of each of six benchmarks.
"""

import json
import time
from collections.abc import Iterable, Sequence
from email.utils import formatdate
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from difftrain.config.evaluate import EvaluateConfig
from difftrain.config.judge import JudgeKind
from difftrain.config.run_config import ConfigError, RunConfig
from difftrain.evaluate import grade, score_item
from difftrain.evaluate.generate import StoredResponse
from difftrain.evaluate.harness import JudgeDown
from difftrain.evaluate.judge import (
    MAX_FAILURES_IN_A_ROW,
    JudgeClient,
    JudgeServer,
    JudgeUsage,
    format_usage,
)
from difftrain.evaluate.loading import BenchmarkItem, load_items
from difftrain.model.engines.transport import parse_retry_after
from difftrain.records import GradedBy, ItemResult, ItemStatus

UNREADABLE_PREDICTIONS = (
    "",
    "None",
    "nan",
    "I see | a pipe\n| and\n\nanother | row | 1.0\n",
    "x" * 100_000,
    "hm",
)
"""Predictions from which no rule can read an answer, so that the judge is called."""


def unreadable_pairs(config: EvaluateConfig) -> list[tuple[BenchmarkItem, str]]:
    """Every item with one of the unreadable predictions."""
    predictions = cycle(UNREADABLE_PREDICTIONS)
    return [(item, next(predictions)) for item in load_items(config)]


def as_stored(
    pairs: Iterable[tuple[BenchmarkItem, str]],
) -> list[tuple[BenchmarkItem, StoredResponse]]:
    """Each item with its prediction as a stored response."""
    return [
        (
            item,
            StoredResponse(
                benchmark=item.benchmark, item_id=item.key[1], prompt_hash="x", response=text
            ),
        )
        for item, text in pairs
    ]


def grade_pairs(
    config: RunConfig, pairs: Sequence[tuple[BenchmarkItem, str]]
) -> tuple[list[ItemResult], dict]:
    """The results of grading the pairs, and the judge's counts."""
    evaluate = config.evaluate
    judge = JudgeClient(evaluate.judge, evaluate.judge_client, Path(config.output_dir) / "judge")
    results = grade.grade_all(as_stored(pairs), evaluate, judge)
    return results, judge.counts()


def usable_reply(prompt: str, number: int) -> str:
    """A reply that the benchmark's scorer can use, and that depends only on the prompt."""
    if prompt.rstrip(" ").endswith("|"):  # MM-Vet's prompt, a table whose last cell is the score
        return f"0.{len(prompt) % 10}"
    if "Yes / No" in prompt:  # HallusionBench's prompt
        return ("Yes", "No")[len(prompt) % 2]
    return "ABCD"[len(prompt) % 4]


def judge_first_item(
    config: RunConfig, benchmark: str, prediction: str = "hm"
) -> tuple[ItemResult, dict]:
    """Grade a benchmark's first item; returns its result and the judge's counts.

    No rule reads an answer in the prediction `hm`.
    """
    config.evaluate.benchmarks = [f"shapes/{benchmark}"]
    config.evaluate.limit = 1
    (result,), counts = grade_pairs(config, [(load_items(config.evaluate)[0], prediction)])
    return result, counts


def test_results_are_the_same_with_and_without_injected_faults(
    server, proxy, config: RunConfig
) -> None:
    server.reply = usable_reply
    config.evaluate.judge_client.timeout_s = 4.0  # long enough for a busy machine
    proxy.slow_seconds = 6.0
    config.evaluate.judge_client.max_attempts = 8
    faults = [item for fault in proxy.FAULTS for item in (fault, None)]  # None: no fault
    proxy.fault = lambda number: faults[number % len(faults)]
    results, counts = grade_pairs(config, unreadable_pairs(config.evaluate))
    assert set(proxy.injected) == set(proxy.FAULTS)
    assert counts["failed_items"] == 0
    server_replies = counts["replies"] - counts["from_cache"]
    assert counts["calls"] == len(proxy.bodies) == server_replies + len(proxy.injected)
    assert sum(counts["faults"].values()) == len(proxy.injected)
    # The client counts the proxy's faults by these kinds.
    assert counts["faults"].keys() == {"limited", "server", "lost", "slow", "malformed", "empty"}
    config.output_dir += "-without-faults"
    proxy.fault = lambda number: None
    results_without_faults, second_counts = grade_pairs(config, unreadable_pairs(config.evaluate))
    assert results == results_without_faults
    assert second_counts["faults"] == {}


def test_a_second_pass_makes_no_call_and_gives_the_same_results(server, config: RunConfig) -> None:
    server.reply = usable_reply
    results, counts = grade_pairs(config, unreadable_pairs(config.evaluate))
    num_calls = len(server.bodies)
    assert counts["calls"] == num_calls > 20  # most of the 36 items need the judge
    second_results, second_counts = grade_pairs(config, unreadable_pairs(config.evaluate))
    assert second_results == results
    assert len(server.bodies) == num_calls
    assert second_counts["calls"] == 0
    assert second_counts["from_cache"] == second_counts["replies"] == counts["replies"]


@pytest.mark.parametrize(
    "change", ["model", "prompt", "max_tokens"], ids=lambda change: f"another {change}"
)
def test_the_cache_distinguishes_model_prompt_and_settings(
    server, config: RunConfig, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    server.reply = lambda prompt, number: f"0.{number}"  # number: 0, then 1
    first_result, _ = judge_first_item(config, "MMVet")
    assert first_result.score == 0.0
    if change == "model":
        monkeypatch.setenv("JUDGE_MODEL", "another")
    if change == "max_tokens":
        config.evaluate.rules = "2026-08"  # with these rules, a reply may have 2048 tokens, not 3
    result, counts = judge_first_item(config, "MMVet", "ha" if change == "prompt" else "hm")
    assert result.score == 0.1  # the reply to a second request, not the cached one
    assert counts["from_cache"] == 0


def test_a_request_has_the_temperatures_and_token_limits_of_the_reference_harness(
    server, config: RunConfig
) -> None:
    server.reply = lambda prompt, number: "too chatty"  # no number, so the call is repeated
    judge_first_item(config, "MMVet")
    assert [request["temperature"] for request in server.bodies] == [0.0, 0.5, 1.0, 1.5, 2.0]
    for request in server.bodies:
        assert request.keys() == {"model", "messages", "temperature", "max_tokens"}
        assert request["model"] == "judge-of-the-tests"
        assert request["max_tokens"] == 3
        (message,) = request["messages"]
        assert message["role"] == "user"
    # The third argument is the folder of the cached replies, which is not read here.
    client = JudgeClient(config.evaluate.judge, config.evaluate.judge_client, Path("none"))
    names = ("MMVet", "MathVista", "MMMU", "MathVerse", "WeMath", "LogicVista")
    judges = [client.for_item(name, "2026-08") for name in names]
    assert [judge and judge.max_tokens for judge in judges] == [2048, 128, 2048, 128, 2048, 128]
    client.close()


def test_a_repetition_at_the_same_temperature_is_a_separate_call(server, config: RunConfig) -> None:
    server.reply = lambda prompt, number: "A" if number == 2 else "who knows"  # A: the third reply
    result, counts = judge_first_item(config, "MMStar")
    assert len(server.bodies) == 3
    assert result.graded_by is GradedBy.judge
    assert (counts["replies"], counts["unusable"]) == (3, 2)
    second_result, second_counts = judge_first_item(config, "MMStar")
    assert second_result == result
    assert (second_counts["replies"], second_counts["calls"]) == (3, 0)


def test_mathverse_s_two_replies_are_counted_as_usable_and_cached(
    server, config: RunConfig
) -> None:
    """The first reply extracts the answer, the second says whether it is the gold answer."""
    server.reply = lambda prompt, number: ("about 90", "well", "1")[min(number, 2)]
    result, counts = judge_first_item(config, "MathVerse")
    assert (result.score, result.extracted) == (1.0, "about 90")
    assert (counts["replies"], counts["unusable"], counts["calls"]) == (3, 1, 3)
    second_result, second_counts = judge_first_item(config, "MathVerse")
    assert second_result == result
    assert (second_counts["calls"], second_counts["unusable"]) == (0, 1)


def test_mathverse_has_no_score_if_the_judge_fails_after_the_extraction(
    server, config: RunConfig
) -> None:
    server.reply = lambda prompt, number: "about 90" if number == 0 else (500, b"", {})
    config.evaluate.judge_client.max_attempts = 1
    result, counts = judge_first_item(config, "MathVerse")
    assert (result.score, result.status) == (None, ItemStatus.failed)
    assert (counts["replies"], counts["unusable"], counts["failed_items"]) == (1, 0, 1)


# name of a case -> reply, score of the item, expected counts. After an unusable reply, the judge is
# called again, at five temperatures in all. After `nan` or a failed call the item has no score.
BAD_REPLIES = {
    "nonsense": ("blorp", 0.0, {"unusable": 5}),
    "nan": ("nan", None, {"unusable": 1}),
    "too much": ("2.0", 0.0, {"unusable": 5}),
    "negative": ("-1", 0.0, {"unusable": 5}),
    "an essay": ("The score is 1.0, since " + "w " * 50_000, 0.0, {"unusable": 5}),
    "blanks": ("   \n ", None, {"failed_items": 1}),
}


@pytest.mark.parametrize("case", BAD_REPLIES)
def test_an_unusable_reply_is_counted_and_gives_no_credit(
    server, config: RunConfig, case: str
) -> None:
    reply, score, expected = BAD_REPLIES[case]
    server.reply = lambda prompt, number: reply
    result, counts = judge_first_item(config, "MMVet")
    assert (result.score, result.graded_by) == (score, None)
    for name, number in expected.items():
        assert counts[name] == number


# name of a case -> HTTP status, body, and the kind of fault that is counted
BROKEN_RESPONSES = {
    "nothing": (200, b"", "malformed"),
    "null": (200, json.dumps({"choices": [{"message": {"content": None}}]}).encode(), "empty"),
    "a number": (200, b"7", "malformed"),
    "no choices": (200, b'{"choices": []}', "malformed"),
    "deep nesting": (200, b"[" * 100_000, "malformed"),
    "not text": (200, b'{"choices": [{"message": {"content": 7}}]}', "malformed"),
    "too many requests": (429, b"", "limited"),
    "broken": (500, b"\xff\xfe", "server"),
    "overloaded": (529, b"{}", "server"),
    "too long": (400, b'{"error": {"message": "context length", "code": 7}}', "refused"),
    "moved": (302, b"", "refused"),
    "no credit": (429, b'{"error": {"message": "x", "code": "insufficient_quota"}}', "limited"),
}


@pytest.mark.parametrize("case", BROKEN_RESPONSES)
@pytest.mark.parametrize(
    "benchmark", ["MathVista", "MMVet", "HallusionBench", "MMStar", "MathVerse", "LogicVista"]
)
def test_a_broken_judge_gives_no_score_and_is_counted(
    server, config: RunConfig, case: str, benchmark: str
) -> None:
    status, body, fault = BROKEN_RESPONSES[case]
    server.reply = lambda prompt, number: (status, body, {})
    config.evaluate.judge_client.max_attempts = 2
    result, counts = judge_first_item(config, benchmark)
    assert (result.score, result.graded_by, result.status) == (None, None, ItemStatus.failed)
    assert counts["failed_items"] == 1
    assert counts["faults"] == {fault: len(server.bodies)}
    assert counts["replies"] == 0
    assert not list(Path(config.output_dir).rglob("replies-*")), "a failure must not be cached"


@pytest.mark.parametrize("status", [401, 403, 404, 405, 301])
def test_a_server_that_rejects_every_request_is_not_called_again(
    server, config: RunConfig, status: int
) -> None:
    server.reply = lambda prompt, number: (status, b"", {})
    results, counts = grade_pairs(config, unreadable_pairs(config.evaluate))
    # Only the calls that are open when the server first rejects one may follow.
    assert len(server.bodies) <= config.evaluate.judge_client.max_concurrency
    assert f"the server answers {status}" in counts["stopped"]
    assert "no further call was made, because the server answers" in format_usage("judge", counts)
    assert all(result.score is None for result in results if result.graded_by is None)


def test_further_calls_are_made_after_one_rejected_prompt(server, config: RunConfig) -> None:
    server.reply = lambda prompt, number: (
        (403, b"", {}) if number == 3 else usable_reply(prompt, number)
    )
    config.evaluate.judge_client.max_concurrency = 1
    _, counts = grade_pairs(config, unreadable_pairs(config.evaluate))
    assert counts["stopped"] is None
    assert counts["failed_items"] == 1


# The body of a response that refuses every request.
UNSUPPORTED = json.dumps(
    {"error": {"message": "'max_tokens' is not supported, use max_completion_tokens"}}
).encode()


def test_a_judge_that_refuses_everything_is_not_called_again_and_the_reason_is_shown(
    server, config: RunConfig
) -> None:
    server.reply = lambda prompt, number: (400, UNSUPPORTED, {})
    # Rules decide no item of MM-Vet, so the judge is called for all 60.
    config.evaluate.benchmarks, config.evaluate.limit = ["shapes/MMVet"], 60
    _, counts = grade_pairs(config, unreadable_pairs(config.evaluate))
    assert len(server.bodies) < MAX_FAILURES_IN_A_ROW + config.evaluate.judge_client.max_concurrency
    reason = "the server answers 400: 'max_tokens' is not supported, use max_completion_tokens"
    assert f"{MAX_FAILURES_IN_A_ROW} calls in a row have failed" in counts["stopped"]
    assert counts["last_words"] == {"refused": reason}  # the last message of each kind of fault
    assert f"refused {len(server.bodies)} ({reason})" in format_usage("judge", counts)


@pytest.mark.parametrize("when_it_replied", ["in this run", "in an earlier run"])
def test_further_calls_are_made_after_refusals_by_a_judge_that_has_replied(
    server, config: RunConfig, when_it_replied: str
) -> None:
    config.evaluate.judge_client.max_concurrency = 1
    config.evaluate.benchmarks, config.evaluate.limit = ["shapes/MMVet"], 40
    server.reply = lambda prompt, number: "0.5" if number == 0 else (400, UNSUPPORTED, {})
    if when_it_replied == "in an earlier run":
        grade_pairs(config, unreadable_pairs(config.evaluate)[:1])
    _, counts = grade_pairs(config, unreadable_pairs(config.evaluate))
    assert counts["stopped"] is None
    assert counts["failed_items"] == counts["faults"]["refused"] == 40 - 1


def test_a_refused_prompt_is_not_sent_again(server, config: RunConfig) -> None:
    server.reply = lambda prompt, number: (413, b"", {})
    judge_first_item(config, "MMVet")
    assert len(server.bodies) == 1


def test_a_call_is_repeated_after_the_pause_that_the_server_asks_for(
    server, config: RunConfig
) -> None:
    times: list[float] = []

    def reply(prompt: str, number: int) -> Any:
        times.append(time.monotonic())
        # The fake server sends the header as Retry-After. Its unit is seconds.
        return "0.5" if number else (429, b"", {"Retry_After": "1"})

    server.reply = reply
    assert judge_first_item(config, "MMVet")[0].score == 0.5
    assert 0.95 < times[1] - times[0] < 3  # seconds; the server asks for 1


def test_a_pause_that_the_server_asks_for_delays_all_calls(server, config: RunConfig) -> None:
    times: list[float] = []

    def reply(prompt: str, number: int) -> Any:
        times.append(time.monotonic())
        return (503, b"", {"Retry_After": "1"}) if number == 0 else "0.5"

    server.reply = reply
    config.evaluate.benchmarks, config.evaluate.limit = ["shapes/MMVet"], 30
    config.evaluate.judge_client.max_concurrency = 2
    results, _ = grade_pairs(config, unreadable_pairs(config.evaluate))
    assert all(result.score == 0.5 for result in results)
    # The calls that were already open, at most max_concurrency, may come before the pause ends.
    assert sum(later - times[0] < 0.95 for later in times[1:]) <= 2  # max_concurrency


@pytest.mark.parametrize(("header", "expected"), [("3", 3), ("0.25", 0.25), ("-5", 0)])
def test_retry_after_may_be_seconds(header: str, expected: float) -> None:
    assert parse_retry_after(header) == expected


@pytest.mark.parametrize(("ahead", "low", "high"), [(3600, 3500, 3600), (-60, 0, 0)])
def test_retry_after_may_be_a_date(ahead: float, low: float, high: float) -> None:
    wait = parse_retry_after(formatdate(time.time() + ahead, usegmt=True))
    assert wait is not None
    assert low <= wait <= high


@pytest.mark.parametrize("header", [None, "", "soon", "nan", "inf", "Mon, 99 Foo"])
def test_an_unreadable_retry_after_is_none(header: str | None) -> None:
    assert parse_retry_after(header) is None


def test_if_the_server_asks_for_a_pause_of_a_day_no_further_call_is_made(
    server, config: RunConfig
) -> None:
    server.reply = lambda prompt, number: (429, b"", {"Retry_After": "86400"})
    started = time.monotonic()
    results, counts = grade_pairs(config, unreadable_pairs(config.evaluate))
    assert time.monotonic() - started < 20
    assert len(server.bodies) <= config.evaluate.judge_client.max_concurrency
    assert "wait for 86400 s" in counts["stopped"]
    # Most of the 36 items need the judge.
    assert counts["failed_items"] == sum(result.score is None for result in results) > 20


def test_a_slow_judge_fails_after_the_timeout(server, config: RunConfig) -> None:
    def reply(prompt: str, number: int) -> str:
        time.sleep(1.0)
        return "0.5"

    server.reply = reply
    config.evaluate.judge_client.timeout_s = 0.2
    config.evaluate.judge_client.max_attempts = 2
    result, counts = judge_first_item(config, "MMVet")
    assert result.score is None
    assert counts["faults"] == {"slow": 2}


def test_if_there_is_no_server_all_calls_are_soon_stopped(
    server, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_BASE_URL", "http://127.0.0.1:9/v1")  # nothing listens on port 9
    config.evaluate.limit = 40
    started = time.monotonic()
    results, counts = grade_pairs(config, unreadable_pairs(config.evaluate))
    assert time.monotonic() - started < 30
    assert f"{MAX_FAILURES_IN_A_ROW} calls in a row have failed" in counts["stopped"]
    # 40 items of each of six benchmarks; after the calls have stopped, further items fail at once.
    assert counts["faults"]["outage"] > 50
    undecided_by_rules = [result for result in results if result.graded_by is None]
    assert undecided_by_rules
    assert all(result.score is None for result in undecided_by_rules)
    assert "127.0.0.1" not in json.dumps(counts)


def test_failures_with_replies_in_between_do_not_stop_the_calls(server, config: RunConfig) -> None:
    config.evaluate.judge_client.max_attempts = 1
    config.evaluate.judge_client.max_concurrency = 1
    config.evaluate.benchmarks, config.evaluate.limit = ["shapes/MMVet"], 80
    # Every eighth call gets a reply.
    server.reply = lambda prompt, number: "0.5" if number % 8 == 7 else (500, b"", {})
    results, counts = grade_pairs(config, unreadable_pairs(config.evaluate))
    assert counts["stopped"] is None
    assert counts["calls"] > 3 * MAX_FAILURES_IN_A_ROW
    assert sum(result.score == 0.5 for result in results) >= counts["calls"] // 8


def test_no_more_than_max_calls_are_made_and_further_items_have_no_score(
    server, config: RunConfig
) -> None:
    server.reply = usable_reply
    config.evaluate.judge_client.max_calls = 7
    results, counts = grade_pairs(config, unreadable_pairs(config.evaluate))
    assert len(server.bodies) == counts["calls"] == 7
    assert counts["faults"]["over_budget"] == counts["failed_items"]
    # Of the 36 items, more than 20 need the judge and at most 7 got its reply.
    assert sum(result.score is None for result in results) == counts["failed_items"] > 10
    config.evaluate.judge_client.max_calls = None
    results, counts = grade_pairs(config, unreadable_pairs(config.evaluate))
    assert counts["from_cache"] == 7
    assert all(result.score is not None for result in results)


def test_retries_count_towards_max_calls(server, config: RunConfig) -> None:
    server.reply = lambda prompt, number: (500, b"", {})
    config.evaluate.judge_client.max_calls = 2
    _, counts = judge_first_item(config, "MMVet")
    assert len(server.bodies) == 2
    assert counts["faults"] == {"over_budget": 1, "server": 2}


def test_a_failed_call_is_tried_three_times_as_by_the_reference_harness(
    server, config: RunConfig
) -> None:
    server.reply = lambda prompt, number: (500, b"", {})
    _, counts = judge_first_item(config, "MMVet")
    assert counts["faults"] == {"server": 3}


def test_no_more_than_max_concurrency_calls_are_open(server, config: RunConfig) -> None:
    def reply(prompt: str, number: int) -> str:
        time.sleep(0.03)
        return usable_reply(prompt, number)

    server.reply = reply
    config.evaluate.judge_client.max_concurrency = 3
    grade_pairs(config, unreadable_pairs(config.evaluate))
    assert server.max_open == 3


def test_the_key_is_sent_and_appears_nowhere_else(
    server, config: RunConfig, caplog: pytest.LogCaptureFixture, capfd
) -> None:
    key = server.key
    caplog.set_level(0)  # all levels

    def reply(prompt: str, number: int) -> Any:
        echo = json.dumps({"error": {"message": f"{key} may not ask {server.url}"}}).encode()
        return (400, echo, {}) if number % 2 else usable_reply(prompt, number)

    server.reply = reply
    results, counts = grade_pairs(config, unreadable_pairs(config.evaluate))
    assert server.keys == {f"Bearer {key}"}
    paths = [path for path in Path(config.output_dir).rglob("*") if path.is_file()]
    assert paths
    out = "".join(capfd.readouterr())
    texts = [path.read_text() for path in paths] + [str(results), caplog.text, out]
    texts += [format_usage("judge", counts), str(config)]
    for text in texts:
        assert key not in text
        assert server.url not in text


def test_the_values_of_openais_environment_variables_are_not_sent(
    server, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {
        "OPENAI_API_KEY": "sk-other",
        "OPENAI_ORG_ID": "org-other",
        "OPENAI_PROJECT_ID": "project-other",
        "OPENAI_CUSTOM_HEADERS": "X-Secret: other",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("JUDGE_API_KEY")
    judge = JudgeServer(config.evaluate.judge_client, JudgeUsage())
    assert judge.reply("?", temperature=0.0, max_tokens=3) == "A"  # the server's default reply
    judge.close()
    (headers,) = server.headers
    assert "Authorization" not in headers
    assert "other" not in str(headers)


def test_server_messages_are_shown_without_key_and_address(server, config: RunConfig) -> None:
    key = server.key
    # A message is cut after 300 characters, here inside the key. A part of the key must not remain.
    echo = json.dumps({"error": {"message": "x" * 260 + f" {key} at {server.url}"}}).encode()
    server.reply = lambda prompt, number: (422, echo, {})
    judge = JudgeServer(config.evaluate.judge_client, JudgeUsage())
    with pytest.raises(JudgeDown) as caught:
        judge.reply("?", temperature=0.0, max_tokens=3)
    assert "the server answers 422: xxx" in str(caught.value)
    assert key[:12] not in str(caught.value)
    assert server.url not in str(caught.value)


def test_a_rejected_key_is_an_error_before_the_model_generates(
    server, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    JudgeServer(config.evaluate.judge_client, JudgeUsage()).check_key()
    monkeypatch.setenv("JUDGE_API_KEY", "wrong")
    with pytest.raises(ConfigError, match=r"rejects JUDGE_API_KEY \(401\)") as caught:
        JudgeServer(config.evaluate.judge_client, JudgeUsage()).check_key()
    assert "wrong" not in str(caught.value)


def test_without_a_judge_the_rules_alone_decide(config: RunConfig) -> None:
    config.evaluate.judge = JudgeKind.none
    results, counts = grade_pairs(config, unreadable_pairs(config.evaluate))
    assert counts["replies"] == counts["calls"] == 0
    assert {result.graded_by for result in results} == {GradedBy.rule, None}
    for result, (item, prediction) in zip(results, unreadable_pairs(config.evaluate), strict=True):
        assert result.score == score_item(item.benchmark, prediction, item.row)
