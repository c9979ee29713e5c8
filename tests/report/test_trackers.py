"""What W&B and TensorBoard receive, read back from the files that they write.

The arms of a run are its models: base (not trained), tuned, and control (trained on as many random
samples). A stratum is a class of samples by difficulty: easy, medium, hard or unsolved.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportAttributeAccessIssue]
from wandb.sdk.lib import wbauth

from difftrain.config.report import Tracker
from difftrain.config.run_config import ConfigError
from difftrain.report.inputs import RunInputs, json_lines
from difftrain.report.trackers import check_login, send_report
from difftrain.report.trackers.content import flat_numbers
from tests.report.tracker_files import finished_records, item_values, read_events

RunAndReport = tuple[RunInputs, dict]  # the toy run and the content of its report.json


@pytest.fixture(scope="module")
def events_folder(run_and_report: RunAndReport) -> Path:
    """The folder of TensorBoard's event files for the toy run."""
    inputs, report = run_and_report
    send_report([Tracker.tensorboard], inputs, report)
    return inputs.folder / "tensorboard"


def test_tensorboard_gets_the_training_curves_of_both_trained_models(
    run_and_report: RunAndReport, events_folder: Path
) -> None:
    inputs, _ = run_and_report
    for arm in ("tuned", "control"):
        logged = json_lines(inputs.arms[arm].train / "train_log.jsonl")
        scalars = read_events(events_folder / arm).Scalars("reward")
        assert [scalar.step for scalar in scalars] == [row["step"] for row in logged]
        assert [scalar.value for scalar in scalars] == pytest.approx(
            [row["reward"] for row in logged]
        )


def test_tensorboard_gets_the_scores_of_the_base_model_and_of_both_trained_models(
    run_and_report: RunAndReport, events_folder: Path
) -> None:
    for arm in ("base", "tuned", "control"):
        (score,) = read_events(events_folder / arm).Scalars("scores/shapes/MathVista/score")
        assert score.value == pytest.approx(run_and_report[1][arm]["shapes/MathVista"]["score"])


def test_tensorboard_gets_strata_and_the_report_as_text(
    run_and_report: RunAndReport, events_folder: Path
) -> None:
    run = read_events(events_folder / "run")
    (hard,) = run.Scalars("counts/strata/hard")
    assert hard.value == run_and_report[1]["counts"]["strata"]["hard"]
    (text,) = run.Tensors("report")
    (content,) = text.tensor_proto.string_val
    assert content.decode().startswith("# grpo_hard")


def test_sending_again_replaces_the_tensorboard_files(
    run_and_report: RunAndReport, events_folder: Path
) -> None:
    send_report([Tracker.tensorboard], *run_and_report)
    assert len(list((events_folder / "tuned").iterdir())) == 1  # one file of events


def test_without_a_tracker_nothing_is_written(run_and_report: RunAndReport) -> None:
    inputs, report = run_and_report
    before = sorted(inputs.folder.rglob("*"))
    send_report([], inputs, report)
    assert sorted(inputs.folder.rglob("*")) == before


def test_a_missing_score_is_not_sent() -> None:
    assert flat_numbers({"tuned": {"score": None, "n": 0}, "name": "x"}) == {"tuned/n": 0}


def test_check_login_refuses_wandb_without_a_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(tmp_path)
    check_login([])
    check_login([Tracker.tensorboard])
    with pytest.raises(ConfigError, match=r"report_to=wandb: no login; run wandb login"):
        check_login([Tracker.wandb])
    for mode in ("offline", "disabled"):
        monkeypatch.setenv("WANDB_MODE", mode)
        check_login([Tracker.wandb])
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "not a key")
    with pytest.raises(ConfigError, match=r"report_to=wandb: .*WANDB_API_KEY"):
        check_login([Tracker.wandb])
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    check_login([Tracker.wandb])
    # Otherwise W&B uses this key in later tests.
    wbauth.unauthenticate_session(update_settings=False)


def test_the_trackers_do_not_import_torch() -> None:
    code = "import sys, difftrain.report.trackers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.fixture(scope="module")
def offline_records(
    run_and_report: RunAndReport, tmp_path_factory: pytest.TempPathFactory
) -> list[Record]:
    """The records that W&B writes for the toy run while offline."""
    inputs, report = run_and_report
    secret = "hf_do_not_send"
    # In the report's settings a secret is replaced by the word "hidden".
    settings = report["settings"] | {"hub_token": "hidden"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_SILENT", "true")
        for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
            patch.setenv(name, str(tmp_path_factory.mktemp("wandb")))
        patch.setenv("HF_TOKEN", secret)
        patch.setattr(sys, "argv", [*sys.argv, f"--token={secret}"])
        send_report([Tracker.wandb], inputs, report | {"settings": settings})
    (path,) = inputs.folder.glob("wandb/offline-run-*/*.wandb")
    records = finished_records(path)
    assert secret.encode() not in path.read_bytes()  # neither HF_TOKEN nor the command line
    return records


def run_record(records: list[Record]) -> Any:
    """The record with the run's names, settings and host."""
    (run,) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    return run


def test_wandb_gets_the_names_and_settings_of_the_run(offline_records: list[Record]) -> None:
    run = run_record(offline_records)
    assert run.project == "difftrain"
    assert run.display_name == run.job_type == "grpo_hard"
    assert run.run_group == "shapes/pism"  # data and difficulty measure
    assert list(run.tags) == ["grpo", "pism", "shapes", "tiny", "seed 1", "random control"]
    config = item_values(run.config.update)
    assert config["select"] == {
        "strata": ["hard"],
        "random": False,
        "rap": [],
        "ids": None,
        "sft_strata": [],
        "sft_random": False,
    }
    assert config["hub_token"] == "hidden"  # sent as it is in the report's settings


def test_wandb_gets_no_machine_name_command_or_code(offline_records: list[Record]) -> None:
    run = run_record(offline_records)
    assert not run.host
    assert not run.git.remote_url
    kinds = {record.WhichOneof("record_type") for record in offline_records}
    assert not kinds & {"environment", "stats", "output", "output_raw"}
    files = [file.path for record in offline_records for file in record.files.files]
    assert all(path.startswith("media/") for path in files)


def test_wandb_gets_the_training_curves_of_both_trained_models_by_their_own_steps(
    run_and_report: RunAndReport, offline_records: list[Record]
) -> None:
    metrics = [record.metric for record in offline_records]
    step_metrics = {metric.glob_name: metric.step_metric for metric in metrics}
    history = [item_values(record.history.item) for record in offline_records]
    for arm in ("tuned", "control"):
        assert step_metrics[f"{arm}/*"] == f"{arm}/step"
        curve_values = {
            row[f"{arm}/step"]: row[f"{arm}/reward"] for row in history if f"{arm}/step" in row
        }
        logged = json_lines(run_and_report[0].arms[arm].train / "train_log.jsonl")
        assert curve_values == {row["step"]: pytest.approx(row["reward"]) for row in logged}


@pytest.mark.parametrize(
    "name", ["rewards/accuracy/mean", "completions/mean_length", "frac_reward_zero_std"]
)
def test_wandb_gets_curves_of_the_stratum_hard(
    run_and_report: RunAndReport, offline_records: list[Record], name: str
) -> None:
    curve = f"{name}/stratum/hard"
    curve_values = [
        item_values(record.history.item).get(f"tuned/{curve}") for record in offline_records
    ]
    logged = json_lines(run_and_report[0].arms["tuned"].train / "train_log.jsonl")
    assert [value for value in curve_values if value is not None] == [
        pytest.approx(row[curve]) for row in logged
    ]


def test_wandb_gets_scores_and_strata_in_the_summary(
    run_and_report: RunAndReport, offline_records: list[Record]
) -> None:
    summary: dict = {}
    for record in offline_records:
        summary |= item_values(record.summary.update)
    report = run_and_report[1]
    for arm in ("base", "tuned", "control"):
        assert summary[f"scores/{arm}/mean/score"] == report["means"][arm]["score"]
    assert summary["counts/strata/hard"] == report["counts"]["strata"]["hard"]
    low_end = report["differences"]["tuned - base"]["low"]
    assert summary["differences/tuned - base/low"] == low_end
    for stage, cost in report["cost"]["by_stage"].items():
        assert summary[f"stages/{stage}/seconds"] == cost["seconds"]


def test_wandb_gets_samples_with_their_images(
    run_and_report: RunAndReport, offline_records: list[Record]
) -> None:
    (path,) = run_and_report[0].folder.glob("wandb/offline-run-*/files/media/table/*.json")
    table = json.loads(path.read_text())
    assert table["columns"][:4] == ["sample_id", "stratum", "task", "image 1"]
    assert {row[1] for row in table["data"]} == {"easy", "medium", "hard", "unsolved"}
    (artifact,) = [
        record.artifact
        for record in offline_records
        if record.WhichOneof("record_type") == "artifact"
    ]
    images = [file.path for file in artifact.manifest.contents if file.path.endswith(".png")]
    # Every sample of the toy run has one image.
    assert len(images) == len(table["data"])
