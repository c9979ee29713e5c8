"""The stop file, and SIGTERM for processes that only the stop file may end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from difftrain.cli import use_all_cores
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.stop_request import STOP_VARIABLE, is_requested
from difftrain.records import Measure, Score, Stratum

CODE = """
import multiprocessing, os, signal, sys, time
from difftrain.pipeline.stop_request import ignore_sigterm
ignore_sigterm()
context = multiprocessing.get_context("fork")
runs = context.Event()
child = context.Process(target=lambda: (runs.set(), time.sleep(60)))
child.start()
runs.wait()
child.terminate()
child.join(20)
print("child", child.exitcode, flush=True)
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(0.2)
print("alive", flush=True)
"""


def test_a_stop_is_requested_by_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(STOP_VARIABLE, raising=False)
    assert not is_requested()
    monkeypatch.setenv(STOP_VARIABLE, str(tmp_path / "stop"))
    assert not is_requested()
    (tmp_path / "stop").touch()
    assert is_requested()


def test_a_job_learns_that_its_run_has_saved_a_part_or_finished_a_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STOP_VARIABLE, str(tmp_path / "grpo-0.1.stop"))
    saved = tmp_path / "grpo-0.1.saved"
    score = Score(sample_id="a", measure=Measure.pism, value=0.5, stratum=Stratum.hard)
    parquet.write_part(tmp_path, "0", [score])
    saved.unlink()
    manifest.write_manifest(tmp_path, settings={}, inputs={}, seconds=0.0, counts={})
    assert saved.exists()


@pytest.mark.parametrize("has_stop_file", [True, False])
def test_sigterm_ends_a_process_only_without_a_stop_file_and_always_its_children(
    has_stop_file: bool,
) -> None:
    environment = {key: value for key, value in os.environ.items() if key != STOP_VARIABLE}
    environment |= {STOP_VARIABLE: "stop"} if has_stop_file else {}
    ended = subprocess.run(
        [sys.executable, "-c", CODE], env=environment, capture_output=True, text=True
    )
    assert ended.stdout.startswith(f"child {-signal.SIGTERM}\n"), ended.stderr
    assert ("alive" in ended.stdout) == has_stop_file
    assert ended.returncode == (0 if has_stop_file else -signal.SIGTERM)


def test_a_single_process_uses_the_cores_that_it_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 4, 5}, raising=False)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("DIFFTRAIN_THREADS", raising=False)
    use_all_cores(World())
    assert os.environ["OMP_NUM_THREADS"] == "3"
