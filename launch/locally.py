"""The runs of a sweep on this machine, some at a time, each with its share of cores and GPUs."""

import json
import os
import resource
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

from difftrain.config.engine import EngineKind
from difftrain.config.run_config import ConfigError
from difftrain.pipeline import manifest
from launch.command_line import THREADS, fail
from launch.jobs import Job

ROOT = Path(__file__).resolve().parent.parent
ONE_PROCESS = ("--num_processes", "1", "--num_machines", "1", "--mixed_precision", "no",
               "--dynamo_backend", "no")  # fmt: skip
SHOWN = 12
"""Last lines of a failed run that are shown."""
LAUNCHER_S_OWN = ("subprocess.CalledProcessError", "multiprocessing.errors.ChildFailedError")
"""How the tracebacks end that accelerate launch adds to those of its processes."""
START = "=== "
"""What a log's line begins with where the run is started, and started again."""
POLL_SECONDS = 0.5
PATIENCE_SECONDS = 20.0
"""How long an interrupted run may take to end by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A sweep: its runs in order, how many at a time, where its logs and its plan lie."""

    name: str
    folder: Path
    jobs: list[Job]
    at_a_time: int
    accelerate: Path | None

    def log(self, job: Job) -> Path:
        """The log of a run."""
        return self.folder / f"{job.label}.log"

    @property
    def processes(self) -> int:
        """Processes of one run on one machine, as accelerate's configuration has them."""
        if self.accelerate is None:
            return 1
        config: Any = OmegaConf.load(self.accelerate)
        return int(config.get("num_processes", 1)) // int(config.get("num_machines", 1)) or 1

    @property
    def devices(self) -> int:
        """GPUs of one run: one for each process, or those over which it spreads vLLM's engine."""
        models = [job.config.model for job in self.jobs]
        spread = [
            each.vllm.tensor_parallel_size for each in models if each.engine is EngineKind.vllm
        ]
        return self.processes * max(spread, default=1)


@dataclass(slots=True)
class Running:
    """A run that has been started, and the place (0 to at_a_time - 1) that it takes."""

    job: Job
    process: subprocess.Popen[bytes]
    place: int
    started: float = field(default_factory=time.time)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def gpus() -> list[str]:
    """The GPUs that this process may use, by what CUDA_VISIBLE_DEVICES calls them."""
    if (given := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [each for each in given.split(",") if each.strip()]
    if shutil.which("nvidia-smi") is None:
        return []
    told = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    lines = [line for line in told.stdout.splitlines() if line.startswith("GPU ")]
    return [str(number) for number, _ in enumerate(lines)] if not told.returncode else []


def check(plan: Plan) -> None:
    """Raises ConfigError where so many runs at a time want more GPUs than there are."""
    there, each = gpus(), plan.devices
    wanted = plan.at_a_time * each
    if there and plan.at_a_time > 1 and wanted > len(there):
        raise ConfigError(
            [
                f"jobs={plan.at_a_time}: times {each} for each run is {wanted} GPUs, "
                f"but there are {len(there)}; at most jobs={max(1, len(there) // each)}"
            ]
        )


def command(plan: Plan, job: Job) -> list[str]:
    """The command line that starts a run."""
    chosen = ONE_PROCESS if plan.accelerate is None else ("--config_file", str(plan.accelerate))
    launch = [sys.executable, "-m", "accelerate.commands.launch", *chosen]
    port = [] if plan.at_a_time == 1 or plan.processes == 1 else ["--main_process_port", "0"]
    return [*launch, *port, str(ROOT / "launch" / "train.py"), *job.words]


def environment(plan: Plan, place: int) -> dict[str, str]:
    """A run's environment: its share of the cores and of the GPUs.

    A run sees no other GPU even where it runs alone: one process that saw several would be given
    larger batches by transformers, which TRL refuses, after the probe was paid for.
    """
    threads = max(1, cores() // (plan.at_a_time * plan.processes))
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {
        THREADS: str(threads),
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(path)),
    }
    if there := gpus():
        first = place * plan.devices
        own["CUDA_VISIBLE_DEVICES"] = ",".join(there[first : first + plan.devices])
    return os.environ | own


def shown(plan: Plan) -> list[str]:
    """The plan in words: each run, whether it is finished, and the command that starts it."""
    lines = [f"sweep {plan.name}: {len(plan.jobs)} runs, {plan.at_a_time} at a time; "
             f"logs in {plan.folder}"]  # fmt: skip
    failed = failed_before(plan)
    for job in plan.jobs:
        state = "finished" if job.is_finished() and job.label not in failed else "to do"
        lines.append(f"{job.label}: {state}\n  {shlex.join(command(plan, job))}")
    return lines


def run(plan: Plan) -> None:
    """Start every run that is not finished, and come back when all have ended.

    A run that fails is shown with its last lines and left. Interrupted, all are ended (exit 1).
    """
    done = failed_before(plan)
    waiting = deque(job for job in plan.jobs if not job.is_finished() or job.label in done)
    total, record = len(waiting), Record(plan)
    print(f"sweep {plan.name}: {len(plan.jobs)} runs, {len(plan.jobs) - total} finished earlier, "
          f"{plan.at_a_time} at a time; logs in {plan.folder}", flush=True)  # fmt: skip
    running: list[Running] = []
    before = signal.signal(signal.SIGTERM, interrupted)
    try:
        while waiting or running:
            free = sorted({*range(plan.at_a_time)} - {each.place for each in running})
            for place in free[: len(waiting)]:
                running.append(start(plan, waiting.popleft(), place))
            for each in [*running]:
                # Asked one by one: with its end its processor time joins that of all ended runs.
                if each.process.poll() is not None:
                    running.remove(each)
                    record.ended(each, total, len(waiting) + len(running))
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        stop(running)
        fail("interrupted; the same command continues from here", 1)
    finally:
        signal.signal(signal.SIGTERM, before)


def interrupted(*_: Any) -> None:
    """Treat a request to end like Ctrl-C, so that no run is left behind."""
    raise KeyboardInterrupt


def start(plan: Plan, job: Job, place: int) -> Running:
    """Start a run in a process group of its own; what it says goes to the end of its log."""
    words = command(plan, job)
    plan.folder.mkdir(parents=True, exist_ok=True)
    with plan.log(job).open("ab") as log:
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        log.write(f"\n{START}{now}: {shlex.join(words)}\n".encode())
        log.flush()
        process = subprocess.Popen(
            words,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=Path.cwd(),
            env=environment(plan, place),
            start_new_session=True,
        )
    return Running(job, process, place)


def stop(running: list[Running]) -> None:
    """End these runs with all their processes: first asked, then killed."""
    for each in running:
        if each.process.poll() is None:
            os.killpg(each.process.pid, signal.SIGTERM)
    until = time.time() + PATIENCE_SECONDS
    for each in running:
        try:
            each.process.wait(max(0.1, until - time.time()))
        except subprocess.TimeoutExpired:
            os.killpg(each.process.pid, signal.SIGKILL)


class Record:
    """What became of each run: told as it ends, and kept in status.json."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.started, self.count = plan, time.time(), 0
        self.worked = processor_seconds()
        self.path = plan.folder / "status.json"
        self.known: dict[str, Any] = known(self.path)

    def ended(self, each: Running, total: int, left: int) -> None:
        """A run has ended: say so, with its last lines if it failed."""
        self.count += 1
        job, log = each.job, self.plan.log(each.job)
        seconds, worked = time.time() - each.started, processor_seconds()
        good = each.process.returncode == 0 and job.is_finished()
        self.known[job.label] = {
            "code": each.process.returncode,
            "finished": good,
            "seconds": round(seconds, 1),
            "processor_seconds": round(worked - self.worked, 1),
            "run": job.places.run.name,
            "words": list(job.words),
            "log": log.name,
        }
        self.worked = worked
        manifest.write_json(self.path, self.known)
        rest = left * (time.time() - self.started) / self.count
        place, soon = f"[{self.count}/{total}] {job.label}", f"; about {rest / 60:.0f} min left"
        if good:
            print(f"{place}: done in {seconds:.0f} s{soon if left else ''}", flush=True)
            return
        print(f"{place}: FAILED after {seconds:.0f} s, {why(each.process.returncode, log)}; "
              f"skipped, its log is {log}", flush=True)  # fmt: skip
        print("\n".join(f"    {line}" for line in last_lines(log)), flush=True)


def processor_seconds() -> float:
    """Processor time of all runs that have ended, whatever else the machine did meanwhile."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def why(code: int, log: Path) -> str:
    """An exit code in words. accelerate launch turns every one into 1, so the log is asked too."""
    refused = ("ConfigError:", "NothingUsable:", "NothingChosen:", "MissingArtifact:")
    if code == 2 or any(line.startswith(refused) for line in last_lines(log, 60)):
        return "refused (bad settings or input)"
    return f"ended by signal {-code}" if code < 0 else f"exit code {code}"


def last_lines(log: Path, number: int = SHOWN) -> list[str]:
    """The end of a run's last start; of a progress bar only what was seen last.

    That a launcher saw its process fail is left out, for it hides why.
    """
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - (1 << 16)))
        text = file.read().decode(errors="replace")
    text = text.rpartition(f"\n{START}")[2]
    before, mark, behind = text.rpartition("Traceback (most recent call last):")
    if mark and any(each in behind for each in LAUNCHER_S_OWN):
        text = before
    lines = [line.rsplit("\r", 1)[-1].rstrip() for line in text.split("\n")]
    return [line for line in lines if line][-number:]


def known(path: Path) -> dict[str, Any]:
    """What an earlier start of this sweep wrote down."""
    return json.loads(path.read_text()) if path.is_file() else {}


def failed_before(plan: Plan) -> set[str]:
    """Runs whose last start failed though their report is there, as where a tracker failed."""
    return {
        label for label, each in known(plan.folder / "status.json").items() if not each["finished"]
    }


def forget(plan: Plan, jobs: list[Job]) -> None:
    """Take out of status.json how these runs ended here, for they are started elsewhere."""
    path = plan.folder / "status.json"
    if path.is_file():
        gone = {job.label for job in jobs}
        left = {label: each for label, each in known(path).items() if label not in gone}
        manifest.write_json(path, left)
