"""A sweep as a SLURM job array: sbatch's options, the scripts, and their submission.

Two arrays of one script: first a run for each probe, then, when those have ended, all others, so
that no GPU waits for a probe that another node makes. Then a job that writes the table.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from difftrain.cli import fail
from difftrain.cli.overrides import did_you_mean
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


def array_ranges(runs: list[SweepRun]) -> list[tuple[int, int]]:
    """First and last index of each array: one run for each probe, then the others."""
    makers = len({run.probe_key for run in runs})
    ranges = [(0, makers - 1), (makers, len(runs) - 1)]
    return [(first, last) for first, last in ranges if last >= first]


def _scripts(
    plan: SweepPlan, setup: str, options: dict[str, str], folder: Path, arguments: list[str]
) -> dict[str, str]:
    """run.sbatch, one task of the array, whose arguments lie in `folder` (with more than one node
    each starts its own launcher), and table.sbatch, which compares what is finished."""

    def directives(names: Iterable[str]) -> str:  # an option without a value is a switch
        given = {name: options[name] for name in options if name in names}
        return "".join(
            f"#SBATCH --{name}={value}\n" if value else f"#SBATCH --{name}\n"
            for name, value in given.items()
        )

    if plan.accelerate:
        launch = f"--config_file {shlex.quote(str(plan.accelerate))}"
    else:
        launch = " ".join(ONE_PROCESS[4:])
    source = "" if setup == "plain" else f"source {shlex.quote(str(Path(setup).absolute()))}\n"
    fields = {
        "name": plan.name,
        "folder": shlex.quote(str(plan.folder)),
        "here": shlex.quote(str(Path.cwd())),
        "root": shlex.quote(str(ROOT)),
        "python": shlex.quote(sys.executable),
        "setup": source,
    }
    train = shlex.join(train_target())
    task = NODE_TASK.format(python=fields["python"], launch=launch, train=train)
    run_script = ARRAY_SCRIPT.format(
        **fields,
        options=directives(options),
        processes=plan.processes,
        arguments=shlex.quote(str(folder)),
        task=shlex.quote(task),
    )
    table_script = TABLE_SCRIPT.format(
        **fields, options=directives(TABLE_OPTIONS), arguments=shlex.join(arguments)
    )
    return {"run.sbatch": run_script, "table.sbatch": table_script}


def submit(
    plan: SweepPlan,
    setup: str,
    options: dict[str, str],
    arguments: list[str],
    dry: bool = False,
) -> None:
    """Write the scripts and submit them; `dry` prints them instead. Ends with `output: FOLDER`.

    Finished runs are left out, except those whose last start here failed after their report; that
    outcome is forgotten. Each job but the first waits for the end, good or bad, of the one before
    it. Exit code 1 if sbatch refuses.
    """
    runs = probe_makers_first(unfinished_runs(plan))
    tasks = ["".join(f"{line}\n" for line in (run.label, *run.overrides)) for run in runs]
    # Named by its content: tasks of an earlier submission that still wait find theirs unchanged.
    folder = plan.folder / "jobs" / manifest.fingerprint(tasks)
    scripts = _scripts(plan, setup, options, folder, arguments)
    commands = [
        [f"--array={first}-{last}%{plan.at_a_time}", str(plan.folder / "run.sbatch")]
        for first, last in array_ranges(runs)
    ]
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
    for *options_of_job, script in commands:
        dependency = [f"--dependency=afterany:{job}"] if job else []
        command = ["sbatch", "--parsable", *options_of_job, *dependency, script]
        if dry:
            print(shlex.join(command))
            job = "JOB"
            continue
        submitted = subprocess.run(command, capture_output=True, text=True)
        if submitted.returncode:
            fail(f"sbatch: {submitted.stderr.strip() or submitted.returncode}", 1)
        job = submitted.stdout.strip().partition(";")[0]
        print(f"submitted {job}: {shlex.join([*options_of_job, script])}")
    if not dry:
        forget_outcomes(plan, runs)
        print(f"output: {plan.folder}", flush=True)
