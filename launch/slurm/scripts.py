"""The scripts of a sweep's job array, and their submission.

Two arrays of one script: first a run for each probe, then, once those have ended, all others, so
that no GPU waits for a probe that another node makes. Then a job that makes the table.
"""

import shlex
import subprocess
import sys
from pathlib import Path

from difftrain.pipeline import manifest
from launch.command_line import fail
from launch.jobs import Job, in_order
from launch.locally import ONE_PROCESS, ROOT, Plan, failed_before, forget
from launch.slurm import options

RUN = """\
#!/bin/bash
#SBATCH --job-name=difftrain-{name}
#SBATCH --output={folder}/slurm-%A_%a.out
#SBATCH --ntasks-per-node=1
{options}
# Run N of the folder below, N.args: its first line names the log, the others are its words.
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
TASK = """\
exec {python} -m accelerate.commands.launch {launch} \\
    --num_machines "$SLURM_JOB_NUM_NODES" --machine_rank "$SLURM_NODEID" --num_processes "$total" \\
    --main_process_ip "$host" --main_process_port "$port" \\
    {train} "$@"\
"""
"""What a node's shell is given, quoted as one word."""
TABLE = """\
#!/bin/bash
#SBATCH --job-name=difftrain-{name}-table
#SBATCH --output={folder}/slurm-table-%j.out
#SBATCH --ntasks=1
{options}
set -u
cd {here}
export PYTHONPATH={root}${{PYTHONPATH:+:$PYTHONPATH}}
{setup}exec {python} {sweep} {words} --table
"""


def run_script(plan: Plan, setup: str, given: dict[str, str], folder: Path) -> str:
    """The script of one run of the array, whose words lie in `folder`.

    With more than one node each starts its own launcher.
    """
    launch = (
        f"--config_file {shlex.quote(str(plan.accelerate))}"
        if plan.accelerate
        else " ".join(ONE_PROCESS[4:])
    )
    known = places(plan, setup)
    train = shlex.quote(str(ROOT / "launch" / "train.py"))
    task = TASK.format(python=known["python"], launch=launch, train=train)
    return RUN.format(
        **known,
        options=options.lines(given),
        processes=plan.processes,
        arguments=shlex.quote(str(folder)),
        task=shlex.quote(task),
    )


def table_script(plan: Plan, setup: str, given: dict[str, str], words: list[str]) -> str:
    """The script that compares what is finished."""
    own = {name: value for name, value in given.items() if name in options.FOR_THE_TABLE}
    return TABLE.format(
        **places(plan, setup),
        options=options.lines(own),
        sweep=shlex.quote(str(ROOT / "launch" / "sweep.py")),
        words=shlex.join(words),
    )


def places(plan: Plan, setup: str) -> dict[str, str]:
    """What both scripts name."""
    file = "" if setup == "plain" else f"source {shlex.quote(str(Path(setup).absolute()))}\n"
    return {
        "name": plan.name,
        "folder": shlex.quote(str(plan.folder)),
        "here": shlex.quote(str(Path.cwd())),
        "root": shlex.quote(str(ROOT)),
        "python": shlex.quote(sys.executable),
        "setup": file,
    }


def arguments(job: Job) -> str:
    """A run's file: the name of its log, then its words, one a line."""
    return "".join(f"{line}\n" for line in (job.label, *job.words))


def arguments_of(plan: Plan, todo: list[Job]) -> Path:
    """Where these runs' files lie: a folder for each list of runs, named by what it holds.

    Tasks of an earlier submission that still wait find theirs as they were.
    """
    return plan.folder / "jobs" / manifest.fingerprint([arguments(job) for job in todo])


def arrays(todo: list[Job]) -> list[tuple[int, int]]:
    """First and last index of each array: one run for each probe, then the others."""
    leading = len({job.shared for job in todo})
    ranges = [(0, leading - 1), (leading, len(todo) - 1)]
    return [(first, last) for first, last in ranges if last >= first]


def submissions(plan: Plan, todo: list[Job]) -> list[list[str]]:
    """sbatch's command lines in order; each but the first waits for the one before it."""
    told = [
        ["sbatch", "--parsable", f"--array={first}-{last}%{plan.at_a_time}",
         str(plan.folder / "run.sbatch")]
        for first, last in arrays(todo)
    ]  # fmt: skip
    return [*told, ["sbatch", "--parsable", str(plan.folder / "table.sbatch")]]


def submit(
    plan: Plan, setup: str, given: dict[str, str], words: list[str], dry: bool = False
) -> None:
    """Write the scripts and submit them; `dry` prints them instead. Ends with `output: FOLDER`.

    Finished runs are left out, but for those whose last start here failed behind their report;
    what became of it is forgotten. Exit code 1 if sbatch refuses.
    """
    failed = failed_before(plan)
    todo = in_order([job for job in plan.jobs if not job.is_finished() or job.label in failed])
    folder = arguments_of(plan, todo)
    run, table = run_script(plan, setup, given, folder), table_script(plan, setup, given, words)
    lines = submissions(plan, todo)
    if dry:
        print(run + "\n" + table)
        for number, job in enumerate(todo):
            print(f"# {number}: {shlex.join((job.label, *job.words))}")
        for number, line in enumerate(lines):
            print(shlex.join(waiting(line, "JOB" if number else None)))
        return
    for number, job in enumerate(todo):
        manifest.write_text(folder / f"{number}.args", arguments(job))
    manifest.write_text(plan.folder / "run.sbatch", run)
    manifest.write_text(plan.folder / "table.sbatch", table)
    before = None
    for line in lines:
        done = subprocess.run(waiting(line, before), capture_output=True, text=True)
        if done.returncode:
            fail(f"sbatch: {done.stderr.strip() or done.returncode}", 1)
        before = done.stdout.strip().partition(";")[0]
        print(f"submitted {before}: {shlex.join(line[2:])}")
    forget(plan, todo)
    print(f"output: {plan.folder}", flush=True)


def waiting(line: list[str], before: str | None) -> list[str]:
    """The command line with what it waits for: the end, good or bad, of the one before."""
    return line if before is None else [*line[:-1], f"--dependency=afterany:{before}", line[-1]]
