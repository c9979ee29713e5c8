"""Submit a sweep to SLURM: check options for sbatch, write the scripts and submit them.

Runs can share a probe (responses that measure difficulty). The first job array has one run for each
probe, the second the other runs, so that no GPU waits for a probe. Then a job writes the table.
"""

import shlex
import subprocess
import sys
from pathlib import Path

import jinja2

from difftrain.cli import fail
from difftrain.config.setting import did_you_mean
from difftrain.pipeline import manifest
from difftrain.sweep import local_launcher
from difftrain.sweep.expand import SweepRun, one_run_per_probe_first
from difftrain.sweep.local_launcher import ONE_PROCESS, ROOT, SweepPlan, train_target

SBATCH_OPTIONS: str = """
account begin chdir clusters comment constraint contiguous cores-per-socket cpus-per-gpu
cpus-per-task exclude exclusive export gid gpu-bind gpu-freq gpus gpus-per-node gpus-per-socket
gpus-per-task gres gres-flags hint licenses mail-type mail-user mem mem-bind mem-per-cpu mem-per-gpu
mincpus nice no-requeue nodelist nodes ntasks oversubscribe partition power prefer priority qos
requeue reservation segment signal sockets-per-node spread-job switches threads-per-core time
time-min tmp uid wckey
"""  # long options of sbatch that the user may set
MANAGED_OPTIONS = (
    "array", "job-name", "output", "error", "dependency", "ntasks-per-node", "open-mode", "wrap"
)  # fmt: skip
"""Options that the sweep sets itself."""
TABLE_OPTIONS = ("account", "clusters", "partition", "qos", "reservation", "time", "wckey")
"""Options that the job for the table also gets: those that do not request GPUs."""


def option_problems(options: dict[str, str]) -> list[str]:
    """What is wrong with these sbatch options."""
    errors, names = [], SBATCH_OPTIONS.split()
    for name, value in options.items():
        text = f"slurm.{name}={value}"
        if name in MANAGED_OPTIONS:
            errors.append(f"{text}: is set by the sweep (jobs=N sets how many run at a time)")
        elif name not in names:
            errors.append(f"{text}: sbatch has no such option{did_you_mean(name, names)}")
        elif "\n" in value:
            errors.append(f"{text}: must be one line")
    return errors


def array_ranges(runs: list[SweepRun]) -> list[tuple[int, int]]:
    """First and last index of each array: one run for each probe, then the other runs."""
    num_probes = len({run.probe_key for run in runs})
    ranges = [(0, num_probes - 1), (num_probes, len(runs) - 1)]
    return [(first, last) for first, last in ranges if last >= first]


def _scripts(
    plan: SweepPlan, setup: str, options: dict[str, str], tasks: Path, arguments: list[str]
) -> dict[str, str]:
    """The scripts by name. run.sbatch runs one task of an array, whose arguments are in the folder
    `tasks`. table.sbatch compares the finished runs."""
    loader = jinja2.PackageLoader("difftrain", "sweep")
    templates = jinja2.Environment(loader=loader, trim_blocks=True, keep_trailing_newline=True)
    templates.filters["quote"] = lambda value: shlex.quote(str(value))
    # [4:] because run.sbatch sets --num_processes and --num_machines itself.
    launch = ONE_PROCESS[4:] if plan.accelerate is None else ("--config_file", str(plan.accelerate))
    values = {
        "plan": plan,
        "tasks": tasks,
        "options": options,
        "table_options": TABLE_OPTIONS,
        "setup": "" if setup == "plain" else Path(setup).absolute(),
        "here": Path.cwd(),
        "root": ROOT,
        "python": sys.executable,
        "launch": shlex.join(launch),
        "train": shlex.join(train_target()),
        "arguments": shlex.join(arguments),
    }
    names = ("run.sbatch", "table.sbatch")
    return {name: templates.get_template(f"{name}.jinja").render(values) for name in names}


def submit(
    plan: SweepPlan, setup: str, options: dict[str, str], arguments: list[str], dry: bool = False
) -> None:
    """Write the scripts and submit them; `dry` prints them instead. Ends with `output: FOLDER`.

    Skips finished runs; a run whose last start failed is not finished. Removes the outcomes of
    submitted runs from status.json. A job waits until the job before it has ended, even if that
    failed. Exits with code 1 if sbatch fails.
    """
    runs = one_run_per_probe_first(local_launcher.unfinished_runs(plan))
    tasks = ["".join(f"{line}\n" for line in (run.label, *run.overrides)) for run in runs]
    # The name is a hash of the content: a new sweep does not change files of waiting tasks.
    folder = plan.folder / "jobs" / manifest.fingerprint(tasks)
    scripts = _scripts(plan, setup, options, folder, arguments)
    arrays = [f"--array={first}-{last}%{plan.at_a_time}" for first, last in array_ranges(runs)]
    commands = [[array, str(plan.folder / "run.sbatch")] for array in arrays]
    commands.append([str(plan.folder / "table.sbatch")])
    if dry:
        print("\n".join(scripts.values()))
        for index, run in enumerate(runs):
            print(f"# {index}: {shlex.join((run.label, *run.overrides))}")
    else:
        for index, task in enumerate(tasks):
            manifest.write_text(folder / f"{index}.args", task)
        for name, script in scripts.items():
            manifest.write_text(plan.folder / name, script)
    job = None
    for *array, script in commands:
        dependency = [f"--dependency=afterany:{job}"] if job else []
        command = ["sbatch", "--parsable", *array, *dependency, script]
        if dry:
            print(shlex.join(command))
            job = "JOB"
            continue
        submitted = subprocess.run(command, capture_output=True, text=True)
        if submitted.returncode:
            fail(f"sbatch: {submitted.stderr.strip() or submitted.returncode}", 1)
        job = submitted.stdout.strip().partition(";")[0]  # sbatch prints JOB or JOB;CLUSTER
        print(f"submitted {job}: {shlex.join([*array, script])}")
    if not dry:
        outcomes, labels = local_launcher.read_status(plan), {run.label for run in runs}
        remaining = {label: outcome for label, outcome in outcomes.items() if label not in labels}
        if remaining != outcomes:
            manifest.write_json(plan.status_path, remaining)
        print(f"output: {plan.folder}", flush=True)
