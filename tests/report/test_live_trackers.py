"""Trackers that follow a run: what they get while it trains, after a resume, and when down.

Every test uses the tracker's own client and reads back what it has written.
"""

import json
import os
import pickle
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import wandb
from tensorboard.backend.event_processing.plugin_event_accumulator import (
    EventAccumulator as PluginEventAccumulator,
)
from wandb.sdk.lib import wbauth

from difftrain.config.report import ReportConfig, Tracker
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.stage import Heartbeat
from difftrain.records import Sample
from difftrain.report.inputs import RunInputs
from difftrain.report.trackers import live
from difftrain.report.trackers.content import TrackerState, scrubbed
from difftrain.report.trackers.live import live_trackers
from difftrain.train import callbacks
from tests.report.tracker_files import finished_records, history, read_events
from tests.report.tracker_process import start

MakeRun = Callable[..., RunInputs]
ROOT = Path(__file__).parents[2]
PROCESS = [sys.executable, "-m", "tests.report.tracker_process"]
CLOSED_PORT = "http://127.0.0.1:9"  # nothing listens there


@pytest.fixture
def inputs(make_run: MakeRun) -> RunInputs:
    """A toy run whose training has not logged a step yet."""
    toy = make_run(size=9, control=False)
    (toy.arms["tuned"].train / "train_log.jsonl").unlink()
    return toy


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """W&B writes files only, and what it keeps in this process ends with the test."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield
    wandb.teardown()
    wbauth.unauthenticate_session(update_settings=False)


def log_steps(inputs: RunInputs, *steps: int, added: float = 0.0) -> None:
    """Log steps of training; the reward is a tenth of the step, and what is added."""
    rows = [{"step": step, "reward": step / 10 + added, "seconds": float(step)} for step in steps]
    callbacks.append_rows(inputs.arms["tuned"].train / "train_log.jsonl", rows)


def log_completion(inputs: RunInputs, step: int) -> Sample:
    """Log a completion for the first sample; returns the sample."""
    sample = parquet.read_rows(inputs.data, Sample)[0]
    row = {"step": step, "sample_id": sample.sample_id, "completion": "four", "accuracy": 1.0}
    callbacks.append_rows(inputs.arms["tuned"].train / "completions.jsonl", [row])
    return sample


def rewards_in_tensorboard(inputs: RunInputs) -> list[tuple[int, float]]:
    scalars = read_events(inputs.folder / "tensorboard" / "tuned").Scalars("reward")
    return [(scalar.step, pytest.approx(scalar.value)) for scalar in scalars]


def test_tensorboard_has_each_step_as_soon_as_it_is_logged(inputs: RunInputs) -> None:
    sender = start(Tracker.tensorboard, inputs)
    log_steps(inputs, 1, 2)
    sender.send_new()
    assert rewards_in_tensorboard(inputs) == [(1, 0.1), (2, 0.2)]
    log_steps(inputs, 3)
    with (inputs.arms["tuned"].train / "train_log.jsonl").open("a") as log:
        log.write('{"step": 4, "rewa')  # a line that is being written
    sender.send_new()
    sender.send_new()
    assert rewards_in_tensorboard(inputs) == [(1, 0.1), (2, 0.2), (3, 0.3)]


def test_an_evaluation_is_sent_although_its_step_was_sent_before(inputs: RunInputs) -> None:
    sender = start(Tracker.tensorboard, inputs)
    log_steps(inputs, 1)
    sender.send_new()
    row = {"step": 1, callbacks.EVAL_REWARD: 0.5}
    callbacks.append_rows(inputs.arms["tuned"].train / callbacks.EVAL_LOG, [row])
    sender.send_new()
    events = read_events(inputs.folder / "tensorboard" / "tuned")
    assert [scalar.step for scalar in events.Scalars(callbacks.EVAL_REWARD)] == [1]


def test_tensorboard_shows_the_new_values_of_steps_that_a_resumed_run_repeats(
    inputs: RunInputs,
) -> None:
    sender = start(Tracker.tensorboard, inputs)
    log_steps(inputs, 1, 2, 3)
    sender.send_new()
    sender.close(failed=True)
    callbacks.truncate_log(inputs.arms["tuned"].train, last_step=1)
    resumed = start(Tracker.tensorboard, inputs)
    log_steps(inputs, 2, 3, 4, added=0.5)
    for _ in range(2):
        resumed.send_new()
    expected = [(1, 0.1), (2, 0.7), (3, 0.8), (4, 0.9)]
    assert rewards_in_tensorboard(inputs) == expected
    # The reader of TensorBoard's server has rules of its own.
    reader = PluginEventAccumulator(str(inputs.folder / "tensorboard" / "tuned")).Reload()
    values = [
        (row.step, pytest.approx(row.tensor_proto.float_val[0])) for row in reader.Tensors("reward")
    ]
    assert values == expected


def test_a_killed_sender_sends_its_last_rows_again_instead_of_losing_them(
    inputs: RunInputs,
) -> None:
    """Clients send in the background: what they had in memory may be lost."""
    log_steps(inputs, 1)
    start(Tracker.tensorboard, inputs).send_new()  # not closed
    assert TrackerState.load(inputs.folder, Tracker.tensorboard).sent == {}


def test_steps_of_a_second_round_continue_those_of_the_first(inputs: RunInputs) -> None:
    second = inputs.arms["tuned"].train.with_name("second")
    arms = {"tuned": replace(inputs.arms["tuned"], train=second)}
    later: Any = type("Later", (), {"arms": arms, "stages": dict})()
    inputs = replace(inputs, later_rounds=[later])
    second.mkdir()
    log_steps(inputs, 1, 2)
    callbacks.append_rows(second / "train_log.jsonl", [{"step": 1, "reward": 0.9, "seconds": 1.0}])
    start(Tracker.tensorboard, inputs).send_new()
    assert rewards_in_tensorboard(inputs) == [(1, 0.1), (2, 0.2), (3, 0.9)]


def test_tensorboard_gets_completions_with_their_image(inputs: RunInputs) -> None:
    sample = log_completion(inputs, step=1)
    start(Tracker.tensorboard, inputs).send_new()
    events = read_events(inputs.folder / "tensorboard" / "tuned")
    (image,) = events.Images("completions/1/image 1")
    assert (image.step, image.encoded_image_string) == (1, sample.images[0])
    (text,) = events.Tensors("completions")
    content = text.tensor_proto.string_val[0].decode()
    assert "**completion**: four" in content
    assert "**accuracy**: 1.0" in content


def test_progress_is_sent_while_a_stage_runs_and_once_when_it_ends(inputs: RunInputs) -> None:
    (inputs.probe / manifest.MANIFEST).rename(inputs.probe / "later")
    hearts = [Heartbeat(inputs.probe, World(rank, 2)) for rank in range(2)]
    sender = start(Tracker.tensorboard, inputs)
    for done in (2, 5, 5):
        for heart in hearts:
            heart.progress(done, total=10)
            heart.save()
        sender.send_progress()
        sender.state.created -= 1  # as if a second had passed
    (inputs.probe / "later").rename(inputs.probe / manifest.MANIFEST)
    hearts[0].clear()
    sender.send_progress()
    sender.send_progress()
    events = read_events(inputs.folder / "tensorboard" / "run")
    shares = [scalar.value for scalar in events.Scalars("progress/probe/share")]
    assert shares == pytest.approx([0.2, 0.5, 1.0])  # of both ranks; the third row is not new
    assert [scalar.value for scalar in events.Scalars("progress/probe/done")] == [4, 10]
    assert not list(inputs.probe.glob(".progress-*"))


def wandb_files(inputs: RunInputs) -> list[Path]:
    return sorted(inputs.folder.glob("wandb/offline-run-*/*.wandb"))


def test_wandb_has_the_first_step_while_the_run_is_open(inputs: RunInputs) -> None:
    sender = start(Tracker.wandb, inputs)
    log_steps(inputs, 1)
    sender.send_new()
    deadline = time.time() + 60
    while not history(wandb_files(inputs)[0]):
        assert time.time() < deadline
        time.sleep(0.1)
    (row,) = history(wandb_files(inputs)[0])
    assert (row["tuned/step"], row["tuned/reward"]) == (1, 0.1)
    sender.close()


def test_a_resumed_run_continues_its_wandb_run(inputs: RunInputs) -> None:
    first = start(Tracker.wandb, inputs)
    log_steps(inputs, 1, 2)
    sample = log_completion(inputs, step=1)
    first.send_new()
    first.close(failed=True)
    finished_records(wandb_files(inputs)[0])
    time.sleep(1.1)  # offline folders are named after the second
    second = start(Tracker.wandb, inputs)
    log_steps(inputs, 3)
    second.send_new()
    callbacks.truncate_log(inputs.arms["tuned"].train, last_step=2)
    log_steps(inputs, 3, added=0.5)  # repeated after a crash
    second.send_new()
    second.close()
    paths = wandb_files(inputs)
    assert len(paths) == 2
    runs = [
        record.run
        for path in paths
        for record in finished_records(path)
        if record.WhichOneof("record_type") == "run"
    ]
    assert len({run.run_id for run in runs}) == 1
    assert {run.run_group for run in runs} == {"shapes/pism"}
    rows = [row for path in paths for row in history(path)]
    # W&B refuses a step below the last one.
    assert [row["_step"] for row in rows] == [0, 1, 2, 3, 4]
    rewards = [(row["tuned/step"], row["tuned/reward"]) for row in rows if "tuned/reward" in row]
    assert rewards == [(1, 0.1), (2, 0.2), (3, 0.3), (3, 0.8)]
    (path,) = paths[0].parent.glob("files/media/table/tuned/completions*.json")
    table = json.loads(path.read_text())
    row = dict(zip(table["columns"], table["data"][0], strict=True))
    assert (row["completion"], row["question"], row["answer"]) == (
        "four", sample.question, sample.answer,
    )  # fmt: skip
    artifact = next(
        record.artifact
        for record in finished_records(paths[0])
        if record.WhichOneof("record_type") == "artifact"
    )
    assert any(file.path.endswith(".png") for file in artifact.manifest.contents)


def test_mlflow_gets_curves_completions_scores_and_the_report_in_one_run(
    run_and_report: tuple[RunInputs, dict], inputs: RunInputs
) -> None:
    pytest.importorskip("mlflow", reason="needs difftrain[mlflow]")
    from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]

    log_steps(inputs, 1, 2)
    row = {"step": 3, "reward": 0.3, "seconds": 3.0, "seconds/grading": 1.0, "rewards/a/b": 1.0}
    callbacks.append_rows(inputs.arms["tuned"].train / "train_log.jsonl", [row])
    sample = log_completion(inputs, step=1)
    first = start(Tracker.mlflow, inputs)
    first.send_new()
    first.close(failed=True)
    second = start(Tracker.mlflow, inputs)
    log_steps(inputs, 4)
    second.send_new()
    second.send_report(*run_and_report)
    second.close()
    client = MlflowClient((inputs.folder.parents[1] / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("difftrain")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == run.data.tags["job_type"] == "grpo_hard"
    assert run.data.tags["group"] == "shapes/pism"
    assert run.info.status == "FINISHED"
    assert run.data.params["seed"] == "1"
    rewards = client.get_metric_history(run.info.run_id, "tuned/reward")
    assert [(metric.step, metric.value) for metric in rewards] == [
        (1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4),
    ]  # fmt: skip
    assert run.data.metrics["tuned/seconds.grading"] == 1.0
    report = run_and_report[1]
    assert run.data.metrics["scores/tuned.mean.score"] == report["means"]["tuned"]["score"]
    artifacts = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"report.md", "report.html", "samples.json", "completions"} <= artifacts
    path = client.download_artifacts(run.info.run_id, "completions/tuned.json")
    table = json.loads(Path(path).read_text())
    values = dict(zip(table["columns"], table["data"][0], strict=True))
    assert (values["completion"], values["question"]) == ("four", sample.question)
    assert values["image 1"]["type"] == "image"


def test_mlflow_has_one_run_although_its_server_refuses_the_settings(
    inputs: RunInputs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pytest.importorskip("mlflow", reason="needs difftrain[mlflow]")
    from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]

    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    first = replace(inputs, settings=inputs.settings | {"100%": 1})  # a name that MLflow refuses
    start(Tracker.mlflow, first)
    assert "the settings are in settings.json instead: Invalid value" in caplog.text
    start(Tracker.mlflow, replace(inputs, settings=inputs.settings | {"seed": 2}))  # changed
    client = MlflowClient()
    experiment = client.get_experiment_by_name("difftrain")
    (run,) = client.search_runs([experiment.experiment_id])
    path = client.download_artifacts(run.info.run_id, "settings.json")
    assert json.loads(Path(path).read_text())["100%"] == 1


def test_trackio_gets_curves_and_completions_in_one_run(inputs: RunInputs, tmp_path: Path) -> None:
    """In another process, because trackio reads the folder of its database at import."""
    pytest.importorskip("trackio", reason="needs difftrain[trackio]")
    log_steps(inputs, 1, 2)
    log_completion(inputs, step=1)
    for _ in range(2):
        environment = os.environ | {"TRACKIO_DIR": str(tmp_path / "trackio")}
        subprocess.run(
            [*PROCESS, "send", "trackio"],
            input=pickle.dumps(inputs), env=environment, cwd=ROOT, check=True, timeout=300,
        )  # fmt: skip
        log_steps(inputs, 3)
    with sqlite3.connect(tmp_path / "trackio" / "difftrain.db") as database:
        query = "select distinct run_name from metrics"
        ((name,),) = database.execute(query).fetchall()
        rows = database.execute("select step, metrics from metrics order by id").fetchall()
    assert name.startswith(inputs.folder.name)
    values = [(step, json.loads(metrics)) for step, metrics in rows]
    rewards = [(step, row["tuned/reward"]) for step, row in values if "tuned/reward" in row]
    assert rewards == [(1, 0.1), (2, 0.2), (3, 0.3)]
    (table,) = [row["tuned/completions"] for _, row in values if "tuned/completions" in row]
    assert table["_value"][0]["completion"] == "four"
    assert "image 1" in table["_value"][0]


def test_messages_of_a_tracker_hide_passwords_in_addresses() -> None:
    message = scrubbed("no answer:\n  https://me:secret@server/api timed out")
    assert message == "no answer: https://hidden@server/api timed out"


def test_completions_are_logged_from_the_first_step_and_then_regularly(tmp_path: Path) -> None:
    report = ReportConfig(completions=2, completions_steps=3)
    log = callbacks.CompletionLog(tmp_path, report, ["accuracy", "format"])
    for step in range(1, 6):
        for text in ("first", "second"):  # batches of the same step
            log.add(step, list("abcd"), [text] * 4, [[1, 0]] * 4)
    rows = callbacks.read_log(tmp_path, callbacks.COMPLETION_LOG)
    assert [(row["step"], row["sample_id"]) for row in rows] == [
        (1, "a"), (1, "c"), (4, "a"), (4, "c"),
    ]  # fmt: skip
    assert rows[0] == {
        "step": 1, "sample_id": "a", "completion": "first", "accuracy": 1.0, "format": 0.0,
    }  # fmt: skip
    (tmp_path / callbacks.EVAL_LOG).touch()
    callbacks.truncate_log(tmp_path, last_step=2)
    assert len(callbacks.read_log(tmp_path, callbacks.COMPLETION_LOG)) == 2


@pytest.fixture
def down(monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B's server is down, and a run waits only a short time for it."""
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", CLOSED_PORT)
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setattr(live, "FINISH_SECONDS", 3.0)


@pytest.mark.usefixtures("down")
def test_a_tracker_that_is_down_neither_stops_a_run_nor_the_other_trackers(
    run_and_report: tuple[RunInputs, dict], inputs: RunInputs, caplog: pytest.LogCaptureFixture
) -> None:
    started = time.time()
    with live_trackers([Tracker.wandb, Tracker.tensorboard], lambda: inputs) as send:
        assert time.time() - started < 2  # the run goes on while the processes start
        log_steps(inputs, 1)
        deadline = time.time() + 240
        while not (inputs.folder / "tensorboard" / "tuned").is_dir():
            assert time.time() < deadline
            time.sleep(0.2)
        end = time.time()
        send(*run_and_report)
        assert time.time() - end < 2 * live.FINISH_SECONDS
    assert rewards_in_tensorboard(inputs) == [(1, 0.1)]
    (warning,) = [text for text in caplog.messages if "may lack" in text]
    assert warning.startswith("wandb may lack the last rows")


def test_whatever_a_client_raises_is_one_line_in_the_log_of_the_run(
    inputs: RunInputs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_MODE", "no mode")  # for which W&B raises a ValueError of pydantic
    with live_trackers([Tracker.wandb], lambda: inputs):
        deadline = time.time() + 240
        while not caplog.messages:
            assert time.time() < deadline
            time.sleep(0.2)
    first, *_ = caplog.messages
    assert first.startswith(
        "wandb: not reached, training goes on, next try in 60 s: ValidationError"
    )
    assert "\n" not in first


@pytest.mark.slow
def test_trackers_of_a_killed_run_send_what_there_is_and_end(inputs: RunInputs) -> None:
    command = [*PROCESS, "follow", "tensorboard"]
    parent = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT)
    assert parent.stdin is not None
    parent.stdin.write(pickle.dumps(inputs))
    parent.stdin.close()
    deadline = time.time() + 240
    while not (inputs.folder / "tracking" / "tensorboard.json").is_file():
        assert time.time() < deadline
        time.sleep(0.1)
    log_steps(inputs, 1)
    parent.kill()
    parent.wait()
    while TrackerState.load(inputs.folder, Tracker.tensorboard).sent != {
        "tuned/train_log.jsonl": 1
    }:
        assert time.time() < deadline
        time.sleep(0.1)
    assert rewards_in_tensorboard(inputs) == [(1, 0.1)]
