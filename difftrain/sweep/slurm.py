"""A sweep as a SLURM job array: sbatch's options, the scripts, and their submission.

Two arrays of one script: first a run for each probe, then, when those have ended, all others, so
that no GPU waits for a probe that another node makes. Then a job that writes the table.
"""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from difftrain.cli import fail
from difftrain.cli.overrides import did_you_mean
from difftrain.config.run_config import ConfigError
from difftrain.pipeline import manifest
from difftrain.sweep.expand import SweepRun, probe_makers_first
from difftrain.sweep.local_launcher import (
    ONE_PROCESS,
    ROOT,
    SweepPlan,
    forget_outcomes,
    train_target,
    unfinished_runs,
)

SBATCH_OPTIONS = frozenset(
    re.findall(
        r"[\w-]+",
        "account begin chdir clusters comment constraint contiguous cores-per-socket cpus-per-gpu "
        "cpus-per-task exclude exclusive export gid gpu-bind gpu-freq gpus gpus-per-node "
        "gpus-per-socket gpus-per-task gres gres-flags hint licenses mail-type mail-user mem "
        "mem-bind mem-per-cpu mem-per-gpu mincpus nice no-requeue nodelist nodes ntasks "
        "oversubscribe partition power prefer priority qos requeue reservation segment signal "
        "sockets-per-node spread-job switches threads-per-core time time-min tmp uid wckey",
    )
)
"""Long options of sbatch that the user may set."""
MANAGED_OPTIONS = frozenset(
    ("array", "job-name", "output", "error", "dependency", "ntasks-per-node", "open-mode", "wrap")
)
"""Options that the sweep sets itself."""
TABLE_OPTIONS = ("account", "clusters", "partition", "qos", "reservation", "time", "wckey")
"""Options that the job which writes the table gets too: it needs no GPU."""

ARRAY_SCRIPT = """\
#!/bin/bash
#SBATCH --job-name=difftrain-{name}
#SBATCH --output={folder}/slurm-%A_%a.out
#SBATCH --ntasks-per-node=1
{options}
# Run N of the folder below, N.args: its first line names the log, the others are its overrides.
set -u
cd {here}
export PYTHONPATH={root}${{PYTHONPATH:+:$PYTHONPATH}}
{setup}mapfile -t words < {arguments}/"$SLURM_ARRAY_TASK_ID".args
log={folder}/"${{words[0]}}".log
host=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export host port=$((29500 + SLURM_JOB_ID % 1000)) total=$((SLURM_JOB_NUM_NODES * {processes}))
srun --kill-on-bad-exit=1 bash -c {task} run "${{words[@]:1}}" >> "$log" 2>&1
code=$?
[ "$code" -eq 0 ] && echo "${{words[0]}}: done" || {{ echo "${{words[0]}}: FAILED ($code)"; \
tail -n 12 "$log"; }}
exit "$code"
"""
NODE_TASK = """\
exec {python} -m accelerate.commands.launch {launch} \\
    --num_machines "$SLURM_JOB_NUM_NODES" --machine_rank "$SLURM_NODEID" --num_processes "$total" \\
    --main_process_ip "$host" --main_process_port "$port" \\
    {train} "$@"\
"""
"""What each node's shell runs, quoted as one word."""
TABLE_SCRIPT = """\
#!/bin/bash
#SBATCH --job-name=difftrain-{name}-table
#SBATCH --output={folder}/slurm-table-%j.out
#SBATCH --ntasks=1
{options}
set -u
cd {here}
export PYTHONPATH={root}${{PYTHONPATH:+:$PYTHONPATH}}
{setup}exec {python} -m difftrain.cli sweep {arguments} --table
"""


def option_problems(options: dict[str, str]) -> list[str]:
    """What is wrong with the given sbatch options."""
    errors = []
    for name, value in options.items():
        text = f"slurm.{name}={value}"
        if name in MANAGED_OPTIONS:
            errors.append(f"{text}: is set by the sweep (jobs=N sets how many run at a time)")
        elif name not in SBATCH_OPTIONS:
            hint = did_you_mean(name, sorted(SBATCH_OPTIONS))
            errors.append(f"{text}: sbatch has no such option{hint}")
        elif "\n" in value:
            errors.append(f"{text}: must be one line")
    return errors


def require_sbatch() -> None:
    """Raises ConfigError if nothing can be submitted from this machine."""
    if shutil.which("sbatch") is None:
        raise ConfigError(["slurm: there is no sbatch on this machine; --dry prints the scripts"])


def directives(options: dict[str, str]) -> str:
    """#SBATCH lines; an option without a value is a switch."""
    return "".join(
        f"#SBATCH --{name}={value}\n" if value else f"#SBATCH --{name}\n"
        for name, value in options.items()
    )


def script_fields(plan: SweepPlan, setup: str) -> dict[str, str]:
    """The fields that both scripts share."""
    source = "" if setup == "plain" else f"source {shlex.quote(str(Path(setup).absolute()))}\n"
    return {
        "name": plan.name,
        "folder": shlex.quote(str(plan.folder)),
        "here": shlex.quote(str(Path.cwd())),
        "root": shlex.quote(str(ROOT)),
        "python": shlex.quote(sys.executable),
        "setup": source,
    }


def array_script(plan: SweepPlan, setup: str, options: dict[str, str], folder: Path) -> str:
    """The script of one task of the array, whose arguments lie in `folder`.

    With more than one node each starts its own launcher.
    """
    fields = script_fields(plan, setup)
    if plan.accelerate:
        launch = f"--config_file {shlex.quote(str(plan.accelerate))}"
    else:
        launch = " ".join(ONE_PROCESS[4:])
    train = shlex.join(train_target())
    task = NODE_TASK.format(python=fields["python"], launch=launch, train=train)
    return ARRAY_SCRIPT.format(
        **fields,
        options=directives(options),
        processes=plan.processes,
        arguments=shlex.quote(str(folder)),
        task=shlex.quote(task),
    )


def table_script(plan: SweepPlan, setup: str, options: dict[str, str], arguments: list[str]) -> str:
    """The script that compares what is finished."""
    kept = {name: value for name, value in options.items() if name in TABLE_OPTIONS}
    return TABLE_SCRIPT.format(
        **script_fields(plan, setup),
        options=directives(kept),
        arguments=shlex.join(arguments),
    )


def task_file(run: SweepRun) -> str:
    """A task's file: the name of its log, then its overrides, one a line."""
    return "".join(f"{line}\n" for line in (run.label, *run.overrides))


def task_folder(plan: SweepPlan, runs: list[SweepRun]) -> Path:
    """Where these tasks' files lie: named by their content, one folder for each list of runs.

    Tasks of an earlier submission that still wait find theirs unchanged.
    """
    return plan.folder / "jobs" / manifest.fingerprint([task_file(run) for run in runs])


def array_ranges(runs: list[SweepRun]) -> list[tuple[int, int]]:
    """First and last index of each array: one run for each probe, then the others."""
    makers = len({run.probe_key for run in runs})
    ranges = [(0, makers - 1), (makers, len(runs) - 1)]
    return [(first, last) for first, last in ranges if last >= first]


def sbatch_commands(plan: SweepPlan, runs: list[SweepRun]) -> list[list[str]]:
    """sbatch's command lines in order; each but the first waits for the one before it."""
    arrays = [
        ["sbatch", "--parsable", f"--array={first}-{last}%{plan.at_a_time}",
         str(plan.folder / "run.sbatch")]
        for first, last in array_ranges(runs)
    ]  # fmt: skip
    return [*arrays, ["sbatch", "--parsable", str(plan.folder / "table.sbatch")]]


def with_dependency(command: list[str], job: str | None) -> list[str]:
    """The command line that waits for the end, good or bad, of an earlier job."""
    if job is None:
        return command
    return [*command[:-1], f"--dependency=afterany:{job}", command[-1]]


def submit(
    plan: SweepPlan,
    setup: str,
    options: dict[str, str],
    arguments: list[str],
    dry: bool = False,
) -> None:
    """Write the scripts and submit them; `dry` prints them instead. Ends with `output: FOLDER`.

    Finished runs are left out, except those whose last start here failed after their report; that
    outcome is forgotten. Exit code 1 if sbatch refuses.
    """
    runs = probe_makers_first(unfinished_runs(plan))
    folder = task_folder(plan, runs)
    scripts = {
        "run.sbatch": array_script(plan, setup, options, folder),
        "table.sbatch": table_script(plan, setup, options, arguments),
    }
    commands = sbatch_commands(plan, runs)
    if dry:
        print("\n".join(scripts.values()))
        for index, run in enumerate(runs):
            print(f"# {index}: {shlex.join((run.label, *run.overrides))}")
        for index, command in enumerate(commands):
            print(shlex.join(with_dependency(command, "JOB" if index else None)))
        return
    for index, run in enumerate(runs):
        manifest.write_text(folder / f"{index}.args", task_file(run))
    for name, script in scripts.items():
        manifest.write_text(plan.folder / name, script)
    job = None
    for command in commands:
        done = subprocess.run(with_dependency(command, job), capture_output=True, text=True)
        if done.returncode:
            fail(f"sbatch: {done.stderr.strip() or done.returncode}", 1)
        job = done.stdout.strip().partition(";")[0]
        print(f"submitted {job}: {shlex.join(command[2:])}")
    forget_outcomes(plan, runs)
    print(f"output: {plan.folder}", flush=True)
