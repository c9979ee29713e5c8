"""Calls the judge, a language model that grades responses, unless a reply is in the cache.

Its address and key come from environment variables and appear in no message, file or log.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import uuid4

from difftrain.config import judge as judge_config
from difftrain.config.judge import KEY, JudgeClientConfig, JudgeKind
from difftrain.config.run_config import ConfigError
from difftrain.evaluate import benchmark_named
from difftrain.evaluate.harness import JudgeDown
from difftrain.model.engines import transport
from difftrain.model.engines.transport import Fault, RequestError, ServerUnavailable
from difftrain.shapes.benchmarks import judge as stub_judge

CACHE_VERSION = 2  # part of every cache key; increase it if a request's content changes
DEFAULT_MAX_TOKENS = 2048  # of a reply, if the harness (VLMEvalKit) sets no other limit
# Before this day the harness limited the replies of MM-Vet's judge to 3 tokens.
MMVET_LONG_REPLIES_FROM = "2026-05-28"
MAX_PAUSE_S = 120.0  # a server that asks for a longer pause is not called again in this run
MAX_FAILURES_IN_A_ROW = 24  # after so many, the server is not called again in this run
# Only these faults count as failures in a row, and refusals by a server that has never replied.
OUTAGE_FAULTS = {Fault.limited, Fault.server, Fault.lost, Fault.slow, Fault.malformed}
FATAL_STATUSES = {  # HTTP statuses after which every other call would fail too
    401: "the server answers 401: is JUDGE_API_KEY right?",
    402: "the server answers 402: the account cannot pay",
    403: "the server answers 403: the key has no access to this model",
    404: "the server answers 404: are JUDGE_BASE_URL and JUDGE_MODEL right?",
    405: "the server answers 405: is JUDGE_BASE_URL right?",
}


def cache_key(
    server: str, model: str, prompt: str, temperature: float, max_tokens: int, attempt: int
) -> str:
    """The key of a reply. If the harness repeats an equal call, `attempt` is its number."""
    content = [CACHE_VERSION, server, model, prompt, float(temperature), max_tokens, attempt]
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()


class ReplyCache:
    """The judge's replies on disk, so that no reply is paid for twice. Failures are not stored.

    A folder of JSON-lines files. Every process appends to its own file and reads all files, so that
    parallel ranks and runs cannot mix their lines. A line begins with a line break and is written
    in one call: if the process is killed while it writes, only this line is lost.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = Lock()
        self._file: FileIO | None = None
        self._replies: dict[str, str] = {}
        for path in sorted(folder.glob("replies-*.jsonl")):
            for entry in read_entries(path):
                self._replies.setdefault(entry["key"], entry["reply"])

    def get(self, key: str) -> str | None:
        return self._replies.get(key)

    def add(self, key: str, reply: str, **metadata: Any) -> str:
        """Store a reply and return it, or the reply that the key already has. Raises OSError."""
        with self._lock:
            if key in self._replies:
                return self._replies[key]
            if self._file is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._file = FileIO(self.folder / f"replies-{uuid4().hex}.jsonl", "a")  # unbuffered
            line = ("\n" + json.dumps({"key": key, "reply": reply, **metadata})).encode()
            if self._file.write(line) < len(line):
                raise OSError(f"no space left for a judge's reply in {self.folder}")
            self._replies[key] = reply
            return reply

    def close(self) -> None:
        """Close the file; replies are on disk even if this is never called."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None


def read_entries(path: Path) -> list[dict[str, Any]]:
    """The complete entries of one file; a line cut off by a kill is skipped."""
    entries = []
    for line in path.read_bytes().split(b"\n"):
        with suppress(ValueError):
            match json.loads(line):
                case {"key": str(), "reply": str()} as entry:
                    entries.append(entry)
    return entries


class JudgeUsage:
    """Counts while one checkpoint's items are graded.

    `replies` counts all replies, `from_cache` those from disk, `unusable` those without a grade,
    `calls` HTTP requests including retries, and `failed_items` items on which the judge failed.
    """

    def __init__(self) -> None:
        self._lock = Lock()  # not needed for faults: only the client's event loop counts them
        self.counts = Counter(replies=0, from_cache=0, calls=0, unusable=0, failed_items=0)
        self.faults: Counter[Fault] = Counter()  # requests without a reply, or not sent
        self.messages: dict[Fault, str] = {}  # the last message of each fault, without secrets

    def add(self, name: str, by: int = 1) -> None:
        """Add to one of the counts, from any thread."""
        with self._lock:
            self.counts[name] += by

    def as_dict(self) -> dict[str, Any]:
        """The counts as JSON; `last_words` holds the last message of each fault."""
        return {
            **self.counts,
            "faults": {fault.value: count for fault, count in sorted(self.faults.items())},
            "last_words": {fault.value: text for fault, text in sorted(self.messages.items())},
        }


def format_usage(name: str, usage: Mapping[str, Any]) -> str:
    """The counts as one line of scores.md; `name` is the judge's model."""
    faults = []
    for fault, count in usage.get("faults", {}).items():
        message = usage.get("last_words", {}).get(fault)
        faults.append(f"{fault.replace('_', ' ')} {count}" + (f" ({message})" if message else ""))
    line = (
        f"{name}: {usage['replies']} replies ({usage['from_cache']} from the cache), "
        f"{usage['calls']} calls, {usage['unusable']} unusable replies, "
        f"{usage['failed_items']} items without a score because the judge failed; "
        f"faults: {', '.join(faults) or 'none'}"
    )
    stopped = usage.get("stopped")
    return f"{line}; no further call was made, because {stopped}" if stopped else line


class JudgeServer:
    """The judge's server, named by environment variables; may be used from several threads."""

    def __init__(self, config: JudgeClientConfig, usage: JudgeUsage) -> None:
        self.model = os.environ[judge_config.MODEL].strip()
        self._config, self._usage, timeout_s = config, usage, config.timeout_s
        url, key = os.environ[judge_config.URL], os.environ.get(KEY, "")
        self._client = transport.ServerClient(url, key, timeout_s, FATAL_STATUSES, hide_url=True)
        self.breaker = transport.CircuitBreaker(self._client)  # pauses or stops all calls
        self._failures_in_a_row, self._has_replied, self._is_closed = 0, False, False

    def check_key(self) -> None:
        """Raise ConfigError if the server rejects the key; if it cannot be reached, do nothing."""
        with suppress(RequestError):
            status = self._client.run(self._client.models_status(self._config.timeout_s))
            if status in (401, 403):
                raise ConfigError([f"evaluate.judge=endpoint: the server rejects {KEY} ({status})"])

    def reply(self, prompt: str, temperature: float, max_tokens: int) -> str:
        """The judge's reply, stripped. Raises JudgeDown if there is none after all attempts."""
        if self._is_closed:
            raise JudgeDown("stopped")
        # One user message and no system prompt, as the reference harness sends it.
        body = {"model": self.model, "messages": [{"role": "user", "content": prompt}]}
        body |= {"temperature": temperature, "max_tokens": max_tokens}
        try:
            return self._client.run(self._reply(body))
        except CancelledError:
            raise JudgeDown("stopped") from None

    async def _reply(self, body: Mapping[str, Any]) -> str:
        failures = 0
        while True:
            try:
                await self.breaker.wait()
            except ServerUnavailable as error:
                self._usage.faults[Fault.outage] += 1
                raise JudgeDown(str(error)) from None
            max_calls = self._config.max_calls
            if max_calls is not None and self._usage.counts["calls"] >= max_calls:
                self._usage.faults[Fault.over_budget] += 1
                raise JudgeDown(f"evaluate.judge_client.max_calls={max_calls}: no call is left")
            self._usage.add("calls")
            try:
                reply = await self._client.complete(body, _parse_reply)
            except RequestError as error:
                failures += 1
                gives_up = error.permanent or failures >= self._config.max_attempts
                self._note_failure(error, gives_up)
                if gives_up:
                    raise JudgeDown(error.message) from None
                pause = self._config.backoff_s * 2 ** (failures - 1)
                await self.breaker.sleep(min(MAX_PAUSE_S, pause))
            else:
                self._failures_in_a_row, self._has_replied = 0, True
                return reply

    def _note_failure(self, error: RequestError, gives_up: bool) -> None:
        """Count a failed request; pause or stop all calls if further calls would fail as well."""
        self._usage.faults[error.fault] += 1
        self._usage.messages[error.fault] = error.message
        pause = error.retry_after or 0.0
        self.breaker.pause(min(pause, MAX_PAUSE_S))
        if error.fatal and not self._has_replied:
            self.breaker.trip(error.message)
        elif pause > MAX_PAUSE_S:
            self.breaker.trip(f"the server asks to wait for {pause:.0f} s")
        if gives_up:
            has_replied = self._has_replied or self._usage.counts["from_cache"] > 0
            refuses_all = error.fault is Fault.refused and not has_replied
            if error.fault in OUTAGE_FAULTS or refuses_all:
                self._failures_in_a_row += 1
        if self._failures_in_a_row >= MAX_FAILURES_IN_A_ROW:
            self.breaker.trip(
                f"{MAX_FAILURES_IN_A_ROW} calls in a row have failed, the last one: {error.message}"
            )

    def close(self) -> None:
        """Cancel open calls and refuse further ones."""
        self._is_closed = True
        self._client.close()


def _parse_reply(response: Mapping[str, Any]) -> str:
    """The text of a response's first choice, stripped. Raises RequestError if there is none."""
    match response["choices"]:
        case [{"message": dict(message)} as choice, *_]:
            text = (transport.message_text(message) or "").strip()
        case _:
            raise RequestError(Fault.malformed, "the server's response is no chat completion")
    if text:
        return text
    reason = choice.get("finish_reason")
    is_permanent = reason in ("length", "content_filter")  # a retry would be empty too
    message = f"an empty reply (finish_reason {reason})"
    raise RequestError(Fault.empty, message, permanent=is_permanent)


class ItemJudge:
    """The judge of one item; a scorer calls it as judge(prompt, temperature)."""

    def __init__(self, client: "JudgeClient", max_tokens: int) -> None:
        self._client, self.max_tokens, self.num_replies = client, max_tokens, 0
        self._attempts: Counter[tuple[str, float]] = Counter()

    def __call__(self, prompt: str, temperature: float) -> str:
        """One reply. Raises JudgeDown if there is none."""
        attempt = self._attempts[prompt, temperature]
        self._attempts[prompt, temperature] += 1
        try:
            reply = self._client.reply(prompt, temperature, self.max_tokens, attempt)
        except JudgeDown:
            self._client.usage.add("failed_items")
            raise
        self._client.usage.add("replies")
        self.num_replies += 1
        return reply


class JudgeClient:
    """The judge of one checkpoint's items. Close it after use."""

    def __init__(self, kind: JudgeKind, config: JudgeClientConfig, cache: Path) -> None:
        self.kind, self.usage = kind, JudgeUsage()
        self.disk_full: OSError | None = None  # set if a reply could not be stored: stop grading
        uses_server = kind is JudgeKind.endpoint
        self.num_threads = config.max_concurrency if uses_server else 1
        self.server = JudgeServer(config, self.usage) if uses_server else None
        self._cache = ReplyCache(cache) if uses_server else None
        self._server_hash = judge_config.server_hash(kind) or ""

    def for_item(self, benchmark: str, rules: str) -> ItemJudge | None:
        """The judge of one item, or None if only rules decide. `rules` is a date, year first."""
        if judge_config.by_rules_alone(self.kind, benchmark):
            return None
        # The harness's limits.
        mmvet_tokens = 3 if rules < MMVET_LONG_REPLIES_FROM else DEFAULT_MAX_TOKENS
        max_tokens = {"MMVet": mmvet_tokens, "MathVista": 128, "MathVerse": 128, "LogicVista": 128}
        return ItemJudge(self, max_tokens.get(benchmark_named(benchmark).name, DEFAULT_MAX_TOKENS))

    def reply(self, prompt: str, temperature: float, max_tokens: int, attempt: int) -> str:
        """The cached reply, or else the server's. Raises JudgeDown."""
        if self.server is None or self._cache is None:  # judge=shapes: a function, not a model
            return stub_judge(prompt, temperature)
        model = self.server.model
        key = cache_key(self._server_hash, model, prompt, temperature, max_tokens, attempt)
        if (cached := self._cache.get(key)) is not None:
            self.usage.add("from_cache")
            return cached
        new_reply = self.server.reply(prompt, temperature, max_tokens)
        try:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            return self._cache.add(key, new_reply, model=model, at=now)
        except OSError as error:
            self.disk_full = error
            raise JudgeDown("the reply could not be stored") from error

    def counts(self) -> dict[str, Any]:
        """The usage, with the reason why calls were stopped, or None, as `stopped`."""
        return self.usage.as_dict() | {"stopped": self.server and self.server.breaker.error}

    def close(self) -> None:
        """Refuse further calls; close connections and cache."""
        if self.server is not None and self._cache is not None:
            self.server.close()
            self._cache.close()
