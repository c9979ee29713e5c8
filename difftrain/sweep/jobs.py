"""The SLURM jobs of a sweep: their ids in jobs.json, their states, --status and --cancel."""

import json
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from difftrain.cli import fail
from difftrain.pipeline import manifest
from difftrain.pipeline.paths import RunPaths
from difftrain.records import Arm, TrainStage
from difftrain.sweep import local_launcher
from difftrain.sweep.expand import SweepRun
from difftrain.sweep.failure import error_line
from difftrain.sweep.local_launcher import SweepPlan

JOBS_FILE = "jobs.json"
TABLE_TASK = "comparison"  # label of the job that compares the runs
PROBE_PREFIX = "probe-"  # label of a task that only probes: this, then the label of a run
TRAIN_LOG = "train_log.jsonl"
QUEUE_FORMAT = "%F|%K|%T|%L|%r|%k"  # array's job, index, state, time left, reason, comment
ACTIVE_STATES: str = """
PENDING CONFIGURING RUNNING COMPLETING SUSPENDED STOPPED REQUEUED REQUEUE_HOLD REQUEUE_FED RESIZING
SIGNALING STAGE_OUT SPECIAL_EXIT RESV_DEL_HOLD
"""  # of a task that will still do something


@dataclass(frozen=True, slots=True)
class SubmittedJob:
    """A job as it was submitted: its id, its cluster (of several), the label of each task."""

    job: str
    labels: tuple[str, ...]
    cluster: str = ""


@dataclass(frozen=True, slots=True)
class QueuedTask:
    """A task of a job as squeue shows it; also ended ones, for some minutes."""

    job: str
    index: str
    state: str
    time_left: str
    reason: str
    comment: str
    cluster: str = ""

    @property
    def is_active(self) -> bool:
        return self.state in ACTIVE_STATES.split()

    @property
    def id(self) -> str:
        """As squeue and scancel write it: JOB, or JOB_INDEX for a task of an array."""
        return f"{self.job}_{self.index}" if self.index.isdigit() else self.job


def read_jobs(plan: SweepPlan) -> list[SubmittedJob]:
    """All jobs that this sweep has submitted, oldest first."""
    path = plan.folder / JOBS_FILE
    rows: list[dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else []
    return [SubmittedJob(row["job"], tuple(row["labels"]), row["cluster"]) for row in rows]


def add_job(plan: SweepPlan, job: SubmittedJob) -> None:
    """Keep the job's id, as soon as it is submitted."""
    rows = [
        {"job": item.job, "labels": item.labels, "cluster": item.cluster}
        for item in (*read_jobs(plan), job)
    ]
    manifest.write_json(plan.folder / JOBS_FILE, rows)


def queued_tasks(plan: SweepPlan) -> dict[str, QueuedTask]:
    """The tasks of this sweep that SLURM still knows, by label; of each label, the latest.

    Exits with code 1 if squeue fails: an unknown queue must not be taken for an empty one.
    """
    jobs = read_jobs(plan)
    labels = {
        (item.cluster, item.job, str(i) if item.labels != (TABLE_TASK,) else "N/A"): label
        for item in jobs
        for i, label in enumerate(item.labels)
    }
    tasks: dict[str, QueuedTask] = {}
    for cluster in dict.fromkeys(item.cluster for item in jobs):
        command = ["squeue", "--me", "--noheader", "--array", "--states=all"]
        command += [f"--format={QUEUE_FORMAT}", *on_cluster(cluster)]
        listed = _output(command)
        for line in listed.splitlines():
            task = QueuedTask(*(line.strip().split("|", 5) + [""] * 6)[:6], cluster=cluster)
            label = labels.get((cluster, task.job, task.index))
            if label is None:
                continue
            rank, other = (task.is_active, int(task.job)), tasks.get(label)
            if other is None or rank > (other.is_active, int(other.job)):
                tasks[label] = task
    return tasks


def _output(command: list[str]) -> str:
    """What a SLURM command prints; exits with code 1, and its message, if it fails."""
    try:
        finished = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        fail(f"{command[0]}: there is no such command on this machine, so the jobs are unknown", 1)
    if finished.returncode:
        fail(f"{command[0]}: {finished.stderr.strip() or finished.returncode}", 1)
    return finished.stdout


def on_cluster(cluster: str) -> list[str]:
    """The option that addresses one of several clusters; none if SLURM named no cluster."""
    return [f"--clusters={cluster}"] if cluster else []


def cancel_jobs(ids: Iterable[str], cluster: str) -> None:
    """Cancel jobs or tasks of a cluster by their ids; exits with code 1 if SLURM refuses."""
    if ids := [*ids]:
        _output(["scancel", *on_cluster(cluster), *ids])


def cancel(plan: SweepPlan) -> None:
    """Cancel every task of this sweep that waits or runs, and print which."""
    active = {label: task for label, task in queued_tasks(plan).items() if task.is_active}
    for cluster in {task.cluster for task in active.values()}:
        cancel_jobs((task.id for task in active.values() if task.cluster == cluster), cluster)
    for label, task in active.items():
        print(f"cancelled {task.id}: {label}")
    if not active:
        print(f"sweep {plan.name}: no job waits or runs")
    print(f"output: {plan.folder}", flush=True)


def status(plan: SweepPlan) -> str:
    """A table with a row for each task: state, step, reward, time left, why it failed."""
    tasks = queued_tasks(plan) if read_jobs(plan) else {}
    failed = {
        label for label, end in local_launcher.read_status(plan).items() if not end["finished"]
    }
    rows = []
    for run in plan.runs:
        task, finished = tasks.get(run.label), run.is_finished() and run.label not in failed
        state, reason = _state(plan, run.label, task, finished)
        step, reward = last_step(run)
        time_left = task.time_left if task and task.state == "RUNNING" else ""
        rows.append((run.label, state, step, reward, time_left, reason))
    labels = [label for label in tasks if label not in {run.label for run in plan.runs}]
    for label in labels:  # probes and the comparison
        if tasks[label].is_active:
            state, reason = _state(plan, label, tasks[label], False)
            rows.append((label, state, "", "", tasks[label].time_left, reason))
    rows.insert(0, ("run", "state", "step", "reward", "time left", "reason"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def _state(
    plan: SweepPlan, label: str, task: QueuedTask | None, is_finished: bool
) -> tuple[str, str]:
    """(state, its reason in one line) of a run; squeue's reason while it waits."""
    if task and task.is_active:
        waits = task.state == "PENDING" and task.reason != "None"
        return task.state.lower(), f"waits: {task.reason}" if waits else ""
    if is_finished:
        return "finished", ""
    log = plan.folder / f"{label}.log"
    ended = "" if task is None or task.state in ("COMPLETED", "FAILED") else task.state.lower()
    comment = task.comment if task and task.comment != "(null)" else ""
    if task is None and not log.is_file() and label not in local_launcher.read_status(plan):
        return "to do", ""
    reason = comment or error_line(log)
    return ended or "failed", reason


def last_step(run: SweepRun) -> tuple[str, str]:
    """(stage, arm and step; reward) of the newest row in a run's training logs."""
    newest: tuple[float, str, Path] | None = None
    rounds: list[RunPaths] = [run.paths]
    while (previous := rounds[-1].previous) is not None:
        rounds.append(previous)
    for paths in rounds:
        for arm in (Arm.tuned, Arm.control):
            for stage in run.config.stages:
                folder = paths.sft(arm) if stage is TrainStage.sft else paths.grpo(arm)
                path = folder / TRAIN_LOG
                if path.is_file():
                    entry = path.stat().st_mtime, f"{stage} {arm}", path
                    newest = max(newest or entry, entry)
    lines = newest[2].read_text().splitlines(keepends=True) if newest else []
    complete = [line for line in lines if line.endswith("\n")]
    if newest is None or not complete:
        return "", ""
    row = json.loads(complete[-1])
    reward = f"{row['reward']:.2f}" if "reward" in row else ""
    return f"{newest[1]} {row['step']}", reward
