"""Run a sweep on this machine. Parallel runs share its cores and GPUs equally."""

import json
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

import difftrain
from difftrain.cli import THREADS_VARIABLE
from difftrain.config.model import EngineKind
from difftrain.config.run_config import ConfigError
from difftrain.pipeline import manifest
from difftrain.sweep.expand import SweepRun
from difftrain.sweep.failure import START_PREFIX, failure_reason, last_lines

logger = logging.getLogger(__name__)
ROOT = Path(difftrain.__file__).resolve().parents[1]  # the folder with the package difftrain
TRAIN_SCRIPT = ROOT / "launch" / "train.py"
ONE_PROCESS = ("--num_processes", "1", "--num_machines", "1", "--mixed_precision", "no",
               "--dynamo_backend", "no")  # fmt: skip
POLL_SECONDS = 0.5
STOP_TIMEOUT_SECONDS = 20.0  # how long an interrupted run may take to end by itself


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPlan:
    """A sweep: its runs in order, how many run at a time, and the folder of logs and status."""

    name: str
    folder: Path
    runs: list[SweepRun]
    at_a_time: int
    accelerate: Path | None

    def log(self, run: SweepRun) -> Path:
        """The log of a run."""
        return self.folder / f"{run.label}.log"

    @property
    def status_path(self) -> Path:
        """The file with the outcome of each run."""
        return self.folder / "status.json"

    @property
    def num_processes(self) -> int:
        """How many processes one run has on one machine; at least 1."""
        if self.accelerate is None:
            return 1
        config: Any = OmegaConf.load(self.accelerate)
        return int(config.get("num_processes", 1)) // int(config.get("num_machines", 1)) or 1

    @property
    def gpus_per_run(self) -> int:
        """GPUs that a run needs: one per process, or as many as the process's vLLM engine uses."""
        models = [run.config.model for run in self.runs]
        vllm = [model.vllm for model in models if model.engine is EngineKind.vllm]
        return self.num_processes * max((engine.tensor_parallel_size for engine in vllm), default=1)


@dataclass(slots=True)
class StartedRun:
    """A run that has been started, and the slot (0 to at_a_time - 1) that it occupies."""

    run: SweepRun
    process: subprocess.Popen[bytes]
    slot: int
    start_time: float = field(default_factory=time.time)


def available_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in visible.split(",") if name.strip()]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    lines = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]
    return [] if listed.returncode else [str(index) for index, _ in enumerate(lines)]


def max_runs_at_a_time(plan: SweepPlan) -> int:
    """How many runs fit on this machine: one per core, if there are enough GPUs for all."""
    cores, gpus = len(os.sched_getaffinity(0)), available_gpus()
    return min(cores, max(1, len(gpus) // plan.gpus_per_run)) if gpus else cores


def check_gpus(plan: SweepPlan) -> None:
    """Raises ConfigError if the parallel runs need more GPUs than there are."""
    gpus, per_run = available_gpus(), plan.gpus_per_run
    needed = plan.at_a_time * per_run
    if gpus and plan.at_a_time > 1 and needed > len(gpus):
        problem = (
            f"jobs={plan.at_a_time}: at {per_run} GPUs per run this needs {needed} GPUs, but there "
            f"are {len(gpus)}; use at most jobs={max(1, len(gpus) // per_run)}"
        )
        raise ConfigError([problem])


def train_target() -> list[str]:
    """What accelerate launch starts: launch/train.py of a checkout, else the installed module."""
    return [str(TRAIN_SCRIPT)] if TRAIN_SCRIPT.is_file() else ["-m", "difftrain.cli", "train"]


def command(plan: SweepPlan, run: SweepRun) -> list[str]:
    """The command line that starts a run."""
    config = ONE_PROCESS if plan.accelerate is None else ("--config_file", str(plan.accelerate))
    launch = [sys.executable, "-m", "accelerate.commands.launch", *config]
    if plan.at_a_time > 1 and plan.num_processes > 1:
        launch += ["--main_process_port", "0"]  # 0: any free port, as parallel runs need several
    return [*launch, *train_target(), *run.overrides]


def environment(plan: SweepPlan, slot: int) -> dict[str, str]:
    """A run's environment: its share of the cores and of the GPUs.

    Other GPUs are hidden even if runs are not parallel: if one process has several visible GPUs,
    transformers enlarges its batches. TRL rejects these, but only after the probe has finished.
    """
    threads = max(1, len(os.sched_getaffinity(0)) // (plan.at_a_time * plan.num_processes))
    python_path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {
        THREADS_VARIABLE: str(threads),
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(python_path)),
    }
    if gpus := available_gpus():
        first = slot * plan.gpus_per_run
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[first : first + plan.gpus_per_run])
    return os.environ | variables


def print_plan(plan: SweepPlan) -> None:
    """Print each run, whether it is finished, and the command that starts it."""
    print(f"sweep {plan.name}: {len(plan.runs)} runs, {plan.at_a_time} at a time; "
          f"logs in {plan.folder}")  # fmt: skip
    unfinished = {run.label for run in unfinished_runs(plan)}
    for run in plan.runs:
        state = "to do" if run.label in unfinished else "finished"
        print(f"{run.label}: {state}\n  {shlex.join(command(plan, run))}")


def unfinished_runs(plan: SweepPlan) -> list[SweepRun]:
    """Runs without report or checkpoint, and runs whose last start failed (even if both exist)."""
    failed = {label for label, outcome in read_status(plan).items() if not outcome["finished"]}
    return [run for run in plan.runs if not run.is_finished() or run.label in failed]


def read_status(plan: SweepPlan) -> dict[str, Any]:
    """The content of status.json: the outcome of each run so far, by the run's label."""
    return json.loads(plan.status_path.read_text()) if plan.status_path.is_file() else {}


def run_all(plan: SweepPlan) -> None:
    """Start every run that is not finished; returns when all have ended.

    If a run fails, the last lines of its log are printed and the sweep goes on. On Ctrl-C and
    SIGTERM it ends all runs and raises KeyboardInterrupt.
    """
    waiting, sweep_start_time = deque(unfinished_runs(plan)), time.time()
    total = len(waiting)
    print(f"sweep {plan.name}: {len(plan.runs)} runs, {len(plan.runs) - total} finished earlier, "
          f"{plan.at_a_time} at a time; logs in {plan.folder}", flush=True)  # fmt: skip
    running: list[StartedRun] = []
    # SIGTERM is treated like Ctrl-C, so that no run continues alone.
    old_handler = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while waiting or running:
            free_slots = sorted({*range(plan.at_a_time)} - {started.slot for started in running})
            for slot in free_slots[: len(waiting)]:
                running.append(_start(plan, waiting.popleft(), slot))
            for started in [*running]:
                # wait4 also gives the processor time of this process; pid is 0 while it runs.
                pid, status, usage = os.wait4(started.process.pid, os.WNOHANG)
                if pid:
                    started.process.returncode = os.waitstatus_to_exitcode(status)
                    running.remove(started)
                    remaining = len(waiting) + len(running)
                    elapsed = time.time() - sweep_start_time
                    minutes = remaining * elapsed / (total - remaining) / 60
                    time_left = f"; about {minutes:.0f} min left" if remaining else ""
                    progress = f"[{total - remaining}/{total}]"
                    _record_end(plan, started, usage.ru_utime + usage.ru_stime, progress, time_left)
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        _stop(running)
        raise
    finally:
        signal.signal(signal.SIGTERM, old_handler)


def _start(plan: SweepPlan, run: SweepRun, slot: int) -> StartedRun:
    """Start a run in its own process group and append its output to its log."""
    arguments = command(plan, run)
    plan.folder.mkdir(parents=True, exist_ok=True)
    logger.debug("starting %s: %s", run.label, shlex.join(arguments))
    with plan.log(run).open("ab") as log:
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        log.write(f"\n{START_PREFIX}{now}: {shlex.join(arguments)}\n".encode())
        log.flush()
        process = subprocess.Popen(
            arguments, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env=environment(plan, slot), start_new_session=True,
        )  # fmt: skip
    return StartedRun(run, process, slot)


def _stop(running: list[StartedRun]) -> None:
    """End these runs with all their processes: SIGTERM, then SIGKILL after a timeout."""
    for started in running:
        if started.process.poll() is None:
            os.killpg(started.process.pid, signal.SIGTERM)
    deadline = time.time() + STOP_TIMEOUT_SECONDS
    for started in running:
        try:
            started.process.wait(max(0.1, deadline - time.time()))
        except subprocess.TimeoutExpired:
            os.killpg(started.process.pid, signal.SIGKILL)


def _record_end(
    plan: SweepPlan, started: StartedRun, processor_seconds: float, progress: str, time_left: str
) -> None:
    """Write a run's outcome into status.json and print it, with its last lines if it failed."""
    run, exit_code, log = started.run, started.process.returncode, plan.log(started.run)
    seconds, succeeded = time.time() - started.start_time, exit_code == 0 and run.is_finished()
    outcome = {
        "code": exit_code,
        "finished": succeeded,
        "seconds": round(seconds, 1),
        "processor_seconds": round(processor_seconds, 1),
        "run": run.paths.run.name,
        "overrides": list(run.overrides),
        "log": log.name,
    }
    manifest.write_json(plan.status_path, read_status(plan) | {run.label: outcome})
    if succeeded:
        print(f"{progress} {run.label}: done in {seconds:.0f} s{time_left}", flush=True)
        return
    reason = failure_reason(exit_code, log)
    print(f"{progress} {run.label}: FAILED after {seconds:.0f} s, {reason}; "
          f"skipped; its log is {log}", flush=True)  # fmt: skip
    print("\n".join(f"    {line}" for line in last_lines(log)), flush=True)
