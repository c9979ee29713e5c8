"""A probe with a faulty server: every sample is either scored or recorded as failed.

The probe samples several responses (draws) to a sample at every mask ratio, the hidden share of the
image. A rollout is a graded response. The fake server counts requests from 1 (`number`).
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from difftrain.config.model import EngineKind
from difftrain.config.run_config import RunConfig
from difftrain.data import prompts
from difftrain.model.engines import openai_engine, server_check
from difftrain.model.engines.openai_engine import OpenAIEngine
from difftrain.model.loading import LoadedModel
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.probe import run, schedule
from difftrain.probe.attention_pass import response_token_ids, responses_to_measure
from difftrain.records import Measure, Rollout, Sample, Verdict, View
from tests.listening import FaultyProxy, send
from tests.model.answering import ModelServer, parse_body


@pytest.fixture
def server() -> Iterator[ModelServer]:
    model_server = ModelServer()
    yield model_server
    model_server.close()


def make_config(server: ModelServer, folder: Path) -> RunConfig:
    """A small probe: 2 mask ratios, 3 draws at every ratio, at most 6 requests at a time."""
    config = RunConfig(output_dir=str(folder))
    config.probe.mask_percents, config.probe.draws = [0, 50], 3
    config.data.min_pixels, config.data.max_pixels = 56 * 56, 112 * 112
    config.model.engine, config.model.url = EngineKind.http, server.url
    config.model.server.max_concurrency, config.model.server.backoff_s = 6, 0.01
    return config


def run_probe(server: ModelServer, samples: list[Sample], folder: Path, **changes: Any) -> Path:
    """Run a probe; returns its folder. `changes` are settings of config.model.server."""
    config = make_config(server, folder)
    for name, value in changes.items():
        setattr(config.model.server, name, value)

    def create_engine() -> OpenAIEngine:
        return server_check.connect(config.model, config.data.max_pixels)

    run.run_probe(create_engine, samples, folder / "probe", World(), {}, config, config.seed)
    return folder / "probe"


def sorted_rollouts(folder: Path) -> list[Rollout]:
    return sorted(
        parquet.read_rows(folder, Rollout),
        key=lambda row: (row.sample_id, row.mask_percent, row.draw),
    )


def test_a_sample_that_the_server_refuses_fails_with_its_reason_and_the_others_are_scored(
    server: ModelServer, shapes_samples: list[Sample], tmp_path: Path
) -> None:
    failing_text = prompts.user_text(shapes_samples[3].question, shapes_samples[3].options)
    failing_pixels: list[bytes] = []

    def inject_fault(handler: Any, body: dict, number: int) -> bool:
        """Whether the request number `number` has been answered with a fault."""
        text, pixels, _ = parse_body(body)
        if is_failing := text == failing_text and (not failing_pixels or pixels == failing_pixels):
            failing_pixels[:] = pixels  # one sample only: others may have the same text
            send(handler, 400, b'{"error": {"message": "too long"}}')
        return is_failing

    server.inject_fault = inject_fault
    folder = run_probe(server, shapes_samples, tmp_path)
    ((failed_id, reason),) = schedule.failed_samples(folder).items()
    assert reason == "the server answers 400: too long"
    content = manifest.read_manifest(folder)
    assert content is not None
    scored = {row.sample_id for row in sorted_rollouts(folder)} - {failed_id}
    assert len(scored) + 1 == len(shapes_samples) == content["counts"]["samples"]
    assert content["counts"]["quarantined"] == 1
    assert content["counts"]["reasons"] == {"no answer": 1}  # the reason for a failed request
    (line,) = (folder / "quarantine.jsonl").read_text().splitlines()
    assert json.loads(line) == {"source": failed_id, "reason": f"no answer: {reason}"}
    scored_samples = schedule.without_failed(shapes_samples, folder)
    assert {sample.sample_id for sample in scored_samples} == scored
    (engine,) = content["settings"]["engines"]
    assert engine["engine"] == "http"
    assert engine["seeds"] == "honored"


def test_faults_change_no_rollout_and_a_written_draw_is_not_requested_again(
    server: ModelServer, shapes_samples: list[Sample], tmp_path: Path
) -> None:
    samples = shapes_samples[:8]
    without_faults = run_probe(server, samples, tmp_path / "one", max_concurrency=1)
    faults = [None, "status 500", None, "drop the connection", None, "HTML page", None]

    def inject_fault(handler: Any, body: dict, number: int) -> bool:
        fault = faults[number % len(faults)]
        if fault == "status 500":
            send(handler, 500, b"oops")
        elif fault == "HTML page":
            send(handler, 200, b"<html>")
        elif fault == "drop the connection":
            FaultyProxy.drop(handler)
        return fault is not None

    server.inject_fault = inject_fault
    with_faults = run_probe(server, samples, tmp_path / "two", max_attempts=12)
    assert sorted_rollouts(with_faults) == sorted_rollouts(without_faults)
    assert not schedule.failed_samples(with_faults)
    num_requests = len(server.bodies)
    (with_faults / "manifest.json").unlink()  # so that the probe runs again
    run_probe(server, samples, tmp_path / "two")
    assert len(server.bodies) == num_requests


def test_a_run_after_an_outage_requests_only_the_missing_responses(
    server: ModelServer, shapes_samples: list[Sample], tmp_path: Path
) -> None:
    def inject_fault(handler: Any, body: dict, number: int) -> bool:
        is_away = number > 30
        if is_away:
            server.models_status = 503  # the engine polls the list of models in an outage
            FaultyProxy.drop(handler)
        return is_away

    server.inject_fault = inject_fault
    with pytest.raises(OSError, match="has been away"):
        run_probe(server, shapes_samples, tmp_path, max_outage_s=0.2)
    first = sorted_rollouts(tmp_path / "probe")
    assert len(first) == 30
    assert manifest.read_manifest(tmp_path / "probe") is None
    server.models_status, server.inject_fault = 200, lambda *_: False
    num_requests = server.num_requests
    all_rollouts = sorted_rollouts(run_probe(server, shapes_samples, tmp_path))
    assert len(all_rollouts) - len(first) == server.num_requests - num_requests
    draws = {(row.sample_id, row.mask_percent, row.draw) for row in all_rollouts}
    assert len(draws) == len(all_rollouts)


def test_responses_are_written_while_the_server_does_not_respond(
    server: ModelServer,
    shapes_samples: list[Sample],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Rollouts are written soon after they arrive.
    monkeypatch.setattr(parquet, "MAX_BUFFER_SECONDS", 0.3)
    monkeypatch.setattr(openai_engine, "IDLE_CALL_S", 0.05)
    timed_out: list[int] = []

    def inject_fault(handler: Any, body: dict, number: int) -> bool:
        deadline = time.monotonic() + 20  # the first verdict may wait for the graders to start
        # Six requests are answered at once; the others wait until a part file is on disk.
        while number > 6 and not parquet.parts(tmp_path / "probe") and not timed_out:
            time.sleep(0.05)
            if time.monotonic() > deadline:
                timed_out.append(number)
        return False

    server.inject_fault = inject_fault
    folder = run_probe(server, shapes_samples[:8], tmp_path)
    assert not timed_out
    # More than the six that were answered at once and the six that waited: the probe went on.
    assert len(sorted_rollouts(folder)) > 12


def test_the_manifest_has_the_sum_of_the_seconds_of_all_runs(
    server: ModelServer, shapes_samples: list[Sample], tmp_path: Path
) -> None:
    def inject_fault(handler: Any, body: dict, number: int) -> bool:
        is_away = number > 5
        if is_away:
            time.sleep(1.0)  # the first run takes at least this long
            server.models_status = 503
            FaultyProxy.drop(handler)
        return is_away

    server.inject_fault = inject_fault
    with pytest.raises(OSError, match="has been away"):
        run_probe(server, shapes_samples[:4], tmp_path, max_outage_s=0.1)
    server.models_status, server.inject_fault = 200, lambda *_: False
    started = time.time()
    folder = run_probe(server, shapes_samples[:4], tmp_path)
    second_run = time.time() - started
    content = manifest.read_manifest(folder)
    assert content is not None
    assert content["seconds"] > second_run + 0.5  # 0.5: half of the first run's sleep
    assert not list(folder.glob(".elapsed-*"))


def test_a_response_without_token_ids_is_measured_with_the_tokens_of_its_text(
    tiny: LoadedModel,
) -> None:
    text = "<think>2 and 3 <|image_pad|></think><answer>5</answer>"
    row = Rollout(
        sample_id="a", view=View.full_image, mask_percent=0, draw=0, seed=1, response=text,
        num_tokens=9, token_ids=(), hit_eos=True, verdict=Verdict.correct,
    )  # fmt: skip
    ids = response_token_ids(tiny, row)
    tokenizer = tiny.processor.tokenizer
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids[:-1]) == text
    assert tiny.image_token not in ids
    # By default, the tokenizer would turn <|image_pad|> into an image token.
    assert tokenizer(text)["input_ids"].count(tiny.image_token) == 1
    # The attention measure CMAB is taken from this response: sample "a", draw 0.
    assert list(responses_to_measure([row], [Measure.cmab], draws=10)) == [("a", 0)]
