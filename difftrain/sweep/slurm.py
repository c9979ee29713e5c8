"""Submit a sweep to SLURM: write the scripts, submit the arrays, keep the jobs' ids.

Runs can share a probe (responses that measure difficulty). The first job array only makes these
probes, the second has the runs, so that no run waits for the training of another. Then a job
without GPUs writes the table.
"""

import shlex
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
from filelock import FileLock

from difftrain.cli import fail
from difftrain.pipeline import manifest
from difftrain.records import Measure
from difftrain.sweep import jobs, local_launcher
from difftrain.sweep.expand import SweepRun
from difftrain.sweep.jobs import PROBE_PREFIX, TABLE_TASK, QueuedTask, SubmittedJob
from difftrain.sweep.local_launcher import ONE_PROCESS, ROOT, TRAIN_SCRIPT, SweepPlan
from difftrain.sweep.slurm_options import (
    CONTAINER_OPTIONS,
    KILL_MARGIN_SECONDS,
    MAX_RESTARTS,
    OWN_OPTIONS,
    SHARED_OPTIONS,
    TABLE_PREFIX,
    stop_seconds,
)

DEFAULT_MAX_ARRAY_SIZE = 1001  # SLURM's own default of MaxArraySize


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmRequest:
    """How a sweep is submitted: set-up file, options, how many tasks run at a time (None: SLURM
    decides), the arguments of the sweep that the comparison job runs."""

    setup: str = "plain"
    options: dict[str, str] = field(default_factory=dict)
    throttle: int | None = None
    arguments: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Task:
    """What one task of an array runs: a label, a command of difftrain and its overrides."""

    label: str
    command: str
    overrides: tuple[str, ...]

    @property
    def text(self) -> str:
        """The lines of its file of arguments."""
        return "".join(f"{line}\n" for line in (self.label, self.command, *self.overrides))


@dataclass(frozen=True, slots=True)
class Array:
    """An array of tasks; `offset` is the number of its first task in the sweep's list."""

    tasks: list[Task]
    offset: int
    after: int | None  # the array in the list after whose end this one starts


def probe_tasks(runs: list[SweepRun]) -> list[Task]:
    """A task for each unfinished probe that several of these runs share."""
    by_probe: dict[str, list[SweepRun]] = {}
    for run in runs:
        by_probe.setdefault(run.probe_key, []).append(run)
    tasks = []
    for sharing in by_probe.values():
        # Of runs with several measures, the one with most needs most passes.
        first = max(sharing, key=lambda run: len(run.config.difficulty.measures))
        if len(sharing) > 1 and not is_probed(first):
            tasks.append(Task(f"{PROBE_PREFIX}{first.label}", "probe", first.overrides))
    return tasks


def is_probed(run: SweepRun) -> bool:
    """Whether a probe is finished, with the passes that the run's measures need."""
    paths, measures = run.paths, set(run.config.difficulty.measures)
    while paths.previous is not None:
        paths = paths.previous
    folders = [paths.probe]
    folders += [paths.attention] if measures & {Measure.cmab, Measure.ace} else []
    folders += [paths.likelihood] if Measure.image_gain in measures else []
    return all(manifest.read_manifest(folder) is not None for folder in folders)


def arrays_of(probes: list[Task], runs: list[Task], max_size: int, throttled: bool) -> list[Array]:
    """The arrays to submit, none larger than `max_size`: first the probes, then the runs.

    If the number of tasks at a time is limited, arrays follow each other, as SLURM limits each.
    """
    arrays: list[Array] = []
    last_probes = None
    for tasks, first in ((probes, 0), (runs, len(probes))):
        for start in range(0, len(tasks), max_size):
            after = len(arrays) - 1 if throttled and arrays else last_probes
            arrays.append(Array(tasks[start : start + max_size], first + start, after))
        if tasks is probes and probes:
            last_probes = len(arrays) - 1
    return arrays


def max_array_size(options: Mapping[str, str]) -> int:
    """How many tasks an array may have, as SLURM's configuration says."""
    clusters = options.get("clusters", "").partition(",")[0]  # the array may go to any of a list
    command = ["scontrol", *jobs.on_cluster(clusters), "show", "config"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True).stdout
    except FileNotFoundError:  # --dry on a machine without SLURM
        listed = ""
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "MaxArraySize" and value.strip().isdigit():
            return max(1, int(value))
    return DEFAULT_MAX_ARRAY_SIZE


def _scripts(plan: SweepPlan, request: SlurmRequest, tasks: Path) -> dict[str, str]:
    """The scripts by name. run.sbatch runs one task of an array, whose arguments are in the folder
    `tasks`. table.sbatch compares the finished runs."""
    loader = jinja2.PackageLoader("difftrain", "sweep")
    templates = jinja2.Environment(loader=loader, trim_blocks=True, keep_trailing_newline=True)
    templates.filters["quote"] = lambda value: shlex.quote(str(value))
    options, containers = request.options, CONTAINER_OPTIONS.split()
    for_table = {name: options[name] for name in SHARED_OPTIONS if name in options}
    for_table |= {
        name.removeprefix(TABLE_PREFIX): value
        for name, value in options.items()
        if name.startswith(TABLE_PREFIX)
    }
    for_srun = {name: value for name, value in options.items() if name in containers}
    for_runs = {
        name: value
        for name, value in options.items()
        if name not in (*OWN_OPTIONS, *containers, "signal") and not name.startswith(TABLE_PREFIX)
    }
    is_container = bool(for_srun) or "apptainer" in options
    apptainer = (
        ["apptainer", "exec", "--nv", options["apptainer"]] if "apptainer" in options else []
    )
    # [4:] because run.sbatch sets --num_processes and --num_machines itself.
    launch = ONE_PROCESS[4:] if plan.accelerate is None else ("--config_file", str(plan.accelerate))
    is_checkout = TRAIN_SCRIPT.is_file() and not is_container
    scripts = shlex.quote(str(TRAIN_SCRIPT.parent))
    max_restarts = int(options.get("restarts", MAX_RESTARTS))
    seconds = stop_seconds(options)
    values = {
        "plan": plan,
        "tasks": tasks,
        "options": for_runs,
        "table_options": for_table,
        "setup": "" if request.setup == "plain" else Path(request.setup).absolute(),
        "here": Path.cwd(),
        "root": ROOT,
        "is_container": is_container,
        "container": "".join(f"{shlex.quote(word)} " for word in apptainer),
        "srun_options": "".join(
            f"{shlex.quote(f'--{name}={value}' if value else f'--{name}')} "
            for name, value in for_srun.items()
        ),
        "python": options.get("python", "python3" if is_container else sys.executable),
        "launch": shlex.join(launch),
        "target": f'{scripts}/"$0".py' if is_checkout else '-m difftrain.cli "$0"',
        "may_requeue": "no-requeue" not in options and max_restarts > 0,
        "max_restarts": max_restarts,
        "stop_seconds": seconds,
        "kill_seconds": max(1, seconds - KILL_MARGIN_SECONDS),
        "arguments": shlex.join(request.arguments),
    }
    names = ("run.sbatch", "table.sbatch")
    return {name: templates.get_template(f"{name}.jinja").render(values) for name in names}


def _arrays(plan: SweepPlan, request: SlurmRequest, active: Collection[str]) -> list[Array]:
    """The arrays of all unfinished runs, except those whose label is active already."""
    unfinished = local_launcher.unfinished_runs(plan)
    runs = [
        Task(run.label, "train", run.overrides) for run in unfinished if run.label not in active
    ]
    probes = [task for task in probe_tasks(unfinished) if task.label not in active] if runs else []
    return arrays_of(probes, runs, max_array_size(request.options), request.throttle is not None)


def _tasks_folder(plan: SweepPlan, arrays: list[Array]) -> Path:
    # The name is a hash of the content: a new sweep does not change files of waiting tasks.
    texts = [task.text for array in arrays for task in array.tasks]
    return plan.folder / "jobs" / manifest.fingerprint(texts)


def _command(plan: SweepPlan, request: SlurmRequest, array: Array | None) -> list[str]:
    """The call of sbatch for an array, or for the comparison, without its dependency."""
    if array is None:
        return ["sbatch", "--parsable", str(plan.folder / "table.sbatch")]
    throttle = "" if request.throttle is None else f"%{request.throttle}"
    indices = f"--array=0-{len(array.tasks) - 1}{throttle}"
    return ["sbatch", "--parsable", indices, str(plan.folder / "run.sbatch"), str(array.offset)]


def _after(command: list[str], ids: Iterable[str]) -> list[str]:
    """The call of sbatch, with the jobs after whose end, even in failure, it may start."""
    text = ":".join(ids)
    return [*command[:2], f"--dependency=afterany:{text}", *command[2:]] if text else command


def print_scripts(plan: SweepPlan, request: SlurmRequest) -> None:
    """Print the scripts, the tasks and the calls of sbatch that `submit` would make now."""
    arrays = _arrays(plan, request, ())
    print("\n".join(_scripts(plan, request, _tasks_folder(plan, arrays)).values()))
    for array in arrays:
        for index, task in enumerate(array.tasks, array.offset):
            print(f"# {index}: {shlex.join((task.label, task.command, *task.overrides))}")
    for number, array in enumerate(arrays):
        after = [] if array.after is None else [f"JOB{array.after + 1}"]
        print(f"# JOB{number + 1}:\n{shlex.join(_after(_command(plan, request, array), after))}")
    ids = [f"JOB{number + 1}" for number in range(len(arrays))]
    print(shlex.join(_after(_command(plan, request, None), ids)))


def submit(plan: SweepPlan, request: SlurmRequest) -> None:
    """Write the scripts and submit them. Ends with `output: FOLDER`.

    Leaves out runs that are finished (a run whose last start failed is not) and runs that wait or
    run already. Removes the outcomes of submitted runs from status.json. The comparison waits for
    all jobs of the sweep, also for those submitted before. If sbatch refuses a script, the jobs
    submitted so far are cancelled, and the exit code is 1.
    """
    plan.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(plan.folder / ".submit.lock"):
        tasks = jobs.queued_tasks(plan) if jobs.read_jobs(plan) else {}
        active = {label: task for label, task in tasks.items() if task.is_active}
        table = active.pop(TABLE_TASK, None)
        for label, task in active.items():
            print(f"{label}: {task.state.lower()} as job {task.id}, so it is not submitted again")
        arrays = _arrays(plan, request, active.keys())
        if arrays or table is None:
            _submit_jobs(plan, request, arrays, active)
            if table is not None:  # it would not wait for the new arrays
                jobs.cancel_jobs([table.id], table.cluster)
    print(f"output: {plan.folder}", flush=True)


def _submit_jobs(
    plan: SweepPlan, request: SlurmRequest, arrays: list[Array], active: dict[str, QueuedTask]
) -> None:
    folder = _tasks_folder(plan, arrays)
    for array in arrays:
        for index, task in enumerate(array.tasks, array.offset):
            manifest.write_text(folder / f"{index}.args", task.text)
    for name, script in _scripts(plan, request, folder).items():
        manifest.write_text(plan.folder / name, script)
    probing = {task.job for label, task in active.items() if label.startswith(PROBE_PREFIX)}
    ids: list[str] = []
    cluster = next((task.cluster for task in active.values()), "")
    for array in [*arrays, None]:
        if array is None:
            labels, after = (
                (TABLE_TASK,),
                [*dict.fromkeys(task.job for task in active.values()), *ids],
            )
        else:
            labels = tuple(task.label for task in array.tasks)
            after = sorted(probing) if array.after is None else [ids[array.after]]
        command = _after(_command(plan, request, array), after)
        # A job can wait only for jobs of its own cluster.
        command[2:2] = jobs.on_cluster(cluster)
        submitted = subprocess.run(command, capture_output=True, text=True)
        if submitted.returncode:
            jobs.cancel_jobs(ids, cluster)
            script = "the comparison job" if array is None else "the runs"
            cancelled = f"; cancelled the jobs submitted before it: {', '.join(ids)}" if ids else ""
            advice = "; slurm.table.OPTION=VALUE sets its options" if array is None else ""
            message = submitted.stderr.strip() or submitted.returncode
            fail(f"sbatch refuses {script}: {message}\nnothing is queued{cancelled}{advice}", 1)
        job, _, cluster = submitted.stdout.strip().partition(";")  # JOB or JOB;CLUSTER
        ids.append(job)
        jobs.add_job(plan, SubmittedJob(job, labels, cluster))
        print(f"submitted {job}: {shlex.join(command[2:])}", flush=True)
    submitted_labels = {task.label for array in arrays for task in array.tasks}
    outcomes = local_launcher.read_status(plan)
    remaining = {name: value for name, value in outcomes.items() if name not in submitted_labels}
    if remaining != outcomes:
        manifest.write_json(plan.status_path, remaining)
