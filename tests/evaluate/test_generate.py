"""Responses are stored, and the next run requests the missing ones, even if the engine failed."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from difftrain.config.evaluate import EvaluateConfig, SystemPrompt
from difftrain.config.judge import JudgeKind
from difftrain.config.model import EngineKind
from difftrain.config.run_config import ConfigError, RunConfig
from difftrain.evaluate import grade, write_results
from difftrain.evaluate.generate import (
    FAILED_FOLDER,
    ResponseKey,
    ResponseStatus,
    ResponseStore,
    StoredResponse,
    pixel_budgets,
    response_key,
    stream_responses,
)
from difftrain.evaluate.loading import BenchmarkItem, load_items
from difftrain.model.engines import openai_engine, server_check
from difftrain.model.engines.openai_engine import OpenAIEngine
from difftrain.model.engines.types import Completion, write_engine_info
from difftrain.pipeline import coordination, manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.model_session import ModelSession
from difftrain.pipeline.paths import RunPaths
from difftrain.recipes import benchmarks
from difftrain.records import Arm, ItemResult, ItemStatus
from tests.listening import send
from tests.model.answering import ModelServer

NAME = "shapes/MMStar"  # a built-in imitation of the benchmark MMStar
PIXELS = 3136, 12544  # minimum and maximum per image


@pytest.fixture
def server() -> Iterator[ModelServer]:
    """A fake server of the evaluated model."""
    running = ModelServer()
    yield running
    running.close()


@pytest.fixture
def config(server: ModelServer, tmp_path: Path) -> RunConfig:
    """Settings to evaluate six items with the server, which gets one request at a time."""
    config = RunConfig(output_dir=str(tmp_path))
    config.data.min_pixels, config.data.max_pixels = PIXELS
    config.model.engine, config.model.url = EngineKind.http, server.url
    config.model.server.max_concurrency, config.model.server.backoff_s = 1, 0.01
    config.evaluate.benchmarks, config.evaluate.limit = [NAME], 6
    config.evaluate.judge, config.evaluate.resamples = JudgeKind.none, 100
    return config


def evaluate_with_server(config: RunConfig) -> Path:
    """Evaluate the base model with the server; returns the folder of the results."""
    paths = RunPaths(config)
    folders = grade.EvaluationFolders(
        paths.responses(Arm.base), paths.evaluation(Arm.base), paths.judge_replies
    )

    def engine(_: int, max_pixels: int) -> OpenAIEngine:
        return server_check.connect(config.model, max_pixels)

    grade.evaluate(engine, folders, "tiny", config.evaluate, config.model, PIXELS, World())
    return folders.results


def stored_responses(config: RunConfig) -> list[StoredResponse]:
    return parquet.read_rows(RunPaths(config).responses(Arm.base), StoredResponse)


def test_an_item_without_a_response_is_counted_and_requested_again_by_the_next_run(
    server: ModelServer, config: RunConfig, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse_one_request(handler: Any, body: dict, number: int) -> bool:
        """Whether this request was refused."""
        if is_refused := number == 3:
            send(handler, 400, b'{"error": {"message": "too <answer>long</answer>"}}')
        return is_refused

    server.inject_fault = refuse_one_request
    folder = evaluate_with_server(config)
    (failed,) = [result for result in parquet.read_rows(folder, ItemResult) if result.score is None]
    assert failed.error == "the server answers 400: too <answer>long</answer>"
    assert (failed.status, failed.response) == (ItemStatus.failed, None)
    content = manifest.read_manifest(folder)
    assert content is not None
    assert content["counts"]["no_response"] == 1
    assert "1 items got no response from the engine" in caplog.text
    assert not write_results.is_finished(folder)
    assert failed.item_id not in {row.item_id for row in stored_responses(config)}
    assert server.num_requests == 6
    assert evaluate_with_server(config) == folder
    assert server.num_requests == 6 + 1  # the second run requests the failed item alone
    assert write_results.is_finished(folder)
    assert len(stored_responses(config)) == 6
    assert all(result.score is not None for result in parquet.read_rows(folder, ItemResult))


def test_responses_from_before_the_server_failed_are_not_requested_again(
    server: ModelServer, config: RunConfig
) -> None:
    def refuse_fourth_request(handler: Any, body: dict, number: int) -> bool:
        """Whether this request was refused."""
        if is_refused := number == 4:
            send(handler, 401, b"")
        return is_refused

    server.inject_fault = refuse_fourth_request
    with pytest.raises(OSError, match="the server answers 401"):
        evaluate_with_server(config)
    assert len(stored_responses(config)) == 3
    assert write_results.is_finished(evaluate_with_server(config))
    assert server.num_requests == 4 + 3  # the second run requests three items


def test_responses_are_written_to_disk_while_the_engine_generates_the_next_one(
    server: ModelServer, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Responses are written soon after they arrive.
    monkeypatch.setattr(parquet, "MAX_BUFFER_SECONDS", 0.3)
    monkeypatch.setattr(openai_engine, "IDLE_CALL_S", 0.05)
    config.evaluate.limit = 3
    timed_out_requests: list[int] = []

    def wait_for_a_part(handler: Any, body: dict, number: int) -> bool:
        """Delay the third response until the first ones are on disk; inject no fault."""
        deadline = time.monotonic() + 20
        while number == 3 and not parquet.parts(RunPaths(config).responses(Arm.base)):
            time.sleep(0.05)
            if time.monotonic() > deadline:
                timed_out_requests.append(number)
                break
        return False

    server.inject_fault = wait_for_a_part
    evaluate_with_server(config)
    assert not timed_out_requests
    assert len(stored_responses(config)) == 3


def test_an_item_is_read_only_when_the_engine_asks_for_its_request(config: RunConfig) -> None:
    items_read: list[BenchmarkItem] = []

    class TwoAtATimeEngine:
        """An engine that requests two items at a time and responds `yes` to each."""

        info: ClassVar = {"engine": "hf"}

        def stream(
            self, next_requests: Callable, on_idle: Callable
        ) -> Iterator[tuple[ResponseKey, Completion]]:
            while requests := next_requests(2):
                for key, _ in requests:
                    yield key, Completion("yes", token_ids=(), hit_eos=True)

        def close(self) -> None: ...

    def read_items() -> Iterator[tuple[ResponseKey, BenchmarkItem]]:
        for item in load_items(config.evaluate):
            items_read.append(item)
            yield response_key(item), item

    budgets = pixel_budgets(config.evaluate, PIXELS)
    responses = stream_responses(TwoAtATimeEngine(), read_items(), config.evaluate, budgets)
    first = next(responses)
    assert (first.item_id, first.response) == ("0", "yes")
    assert len(items_read) == 2
    assert [row.item_id for row in responses] == ["1", "2", "3", "4", "5"]


def test_other_rules_need_no_server_if_all_responses_are_stored(
    server: ModelServer, config: RunConfig
) -> None:
    def evaluate() -> Path:
        paths, session = RunPaths(config), ModelSession(config.model, config.data)
        benchmarks.check_engine(paths, session)
        return benchmarks.evaluate_base(config, paths, World(), session)

    first = evaluate()
    server.down()
    config.evaluate.rules = "2026-08"
    assert evaluate() != first
    config.evaluate.limit = 7  # six of these items have a stored response
    with pytest.raises(ConfigError, match="no server answers there"):
        evaluate()
    config.evaluate.system = SystemPrompt.none  # other prompts need other responses
    with pytest.raises(ConfigError, match="no server answers there"):
        benchmarks.check_engine(RunPaths(config), ModelSession(config.model, config.data))
    server.up()


def test_scores_md_and_the_manifest_name_the_engine_and_its_image_tokens(
    config: RunConfig,
) -> None:
    config.model.server.name = "served-7b"
    folder = evaluate_with_server(config)
    scores_md = (folder / "scores.md").read_text()
    assert "| engine | http served as served-7b |" in scores_md
    # Expected is one token per 28 x 28 pixels; the fake server adds a start and an end token.
    assert "| image tokens | 18 for an image of 112 x 112, where 16 are expected |" in scores_md
    assert "dtype" not in scores_md
    content = manifest.read_manifest(folder)
    assert content is not None
    assert (content["settings"]["engine"], content["settings"]["dtype"]) == ("http", None)
    assert len(content["inputs"][f"items of {NAME}"]) == 12  # a hash of 12 characters


def test_the_dtype_of_local_engines_and_a_server_that_shrinks_images_are_reported(
    tmp_path: Path,
) -> None:
    engines = [{"engine": "hf"}, {"engine": "vllm", "version": "0.11"}]
    assert write_results.engine_lines(engines) == [("engine", "hf"), ("engine", "vllm 0.11")]
    assert write_results.dtype_of(engines, "bfloat16") == "bfloat16"
    for engine in engines:
        write_engine_info(tmp_path, engine)
    settings = write_results.settings_of(EvaluateConfig(), tmp_path, "bfloat16")
    assert (settings["engine"], settings["dtype"]) == ("hf, vllm", "bfloat16")
    counts = {"judge": {}, "engines": engines}
    values = write_results.scores_md_values(EvaluateConfig(), counts, "bfloat16", PIXELS)
    assert values["dtype"] == "bfloat16"
    tokens = {"side": 112, "server": 4, "expected": 16}
    served = [{"engine": "http", "served": "x", "image_tokens": tokens}]
    assert write_results.dtype_of(served, "bfloat16") is None
    _, (name, text) = write_results.engine_lines(served)
    assert name == "image tokens"
    assert text.endswith("16 are expected: the server shrinks images")


def test_failed_items_count_as_complete_in_this_run_and_are_deleted_by_the_next(
    tmp_path: Path,
) -> None:
    rows = [
        StoredResponse(benchmark=NAME, item_id="1", prompt_hash="x", response="A"),
        StoredResponse(
            benchmark=NAME,
            item_id="2",
            prompt_hash="x",
            response=None,
            status=ResponseStatus.failed,
            error="too long",
        ),
    ]
    keys = [(NAME, "1", "x"), (NAME, "2", "x")]
    store = ResponseStore(tmp_path)
    store.add(1, rows)  # as rank 1
    assert store.is_complete(keys)
    (part,) = parquet.parts(tmp_path / FAILED_FOLDER)
    written_at = part.stat().st_mtime
    before_this_run = coordination.STARTED - 9  # seconds
    os.utime(part, (before_this_run, before_this_run))
    assert not store.is_complete(keys)
    os.utime(part, (written_at, written_at))
    assert store.is_complete(keys)
    assert store.missing(keys) == {keys[1]}
    assert store[keys[1]] == rows[1]
    store.forget_failed(World(0, 2))  # rank 0 of 2, which deletes nothing of rank 1
    assert store.is_complete(keys)
    store.forget_failed(World(1, 2))
    assert not store.is_complete(keys)
    store.add(7, rows[1:])  # as rank 7, which this run of 2 ranks does not have
    store.forget_failed(World(0, 2))
    assert not parquet.parts(tmp_path / FAILED_FOLDER)
