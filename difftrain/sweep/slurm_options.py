"""The options slurm.OPTION=VALUE of a sweep: their names, and requests that cannot work."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from subprocess import run

from difftrain.config.setting import did_you_mean
from difftrain.sweep.local_launcher import SweepPlan

SBATCH_OPTIONS: str = """
account begin chdir clusters comment constraint contiguous cores-per-socket cpus-per-gpu
cpus-per-task exclude exclusive export gid gpu-bind gpu-freq gpus gpus-per-node gpus-per-socket
gpus-per-task gres gres-flags hint licenses mail-type mail-user mem mem-bind mem-per-cpu mem-per-gpu
mincpus nice no-requeue nodelist nodes oversubscribe partition power prefer priority qos
reservation segment signal sockets-per-node spread-job switches threads-per-core time
time-min tmp uid wckey
"""  # long options of sbatch that the user may set
CONTAINER_OPTIONS: str = """
container container-entrypoint container-env container-image container-mount-home container-mounts
container-name container-remap-root container-save container-workdir container-writable
no-container-entrypoint no-container-mount-home no-container-remap-root
"""  # options of srun: container starts an OCI bundle, the others are pyxis's
MANAGED_OPTIONS = {
    "array": "jobs=N sets how many tasks run at a time",
    "ntasks": "each node has one task, which starts its processes; slurm.nodes=N sets the nodes",
} | dict.fromkeys(
    (
        "job-name",
        "output",
        "error",
        "dependency",
        "ntasks-per-node",
        "open-mode",
        "requeue",
        "wrap",
    ),
    "leave it out",
)
"""Options that the sweep sets itself, and what to do instead."""
OWN_OPTIONS = ("restarts", "python", "apptainer")
"""Options of the sweep itself: not sbatch's."""
TABLE_PREFIX = "table."  # slurm.table.OPTION=VALUE is an option of the comparison job only
SHARED_OPTIONS = ("account", "clusters", "partition", "qos", "reservation", "wckey")
"""Options that the comparison job takes over from the runs: those that request no resources."""
MAX_RESTARTS = 20  # how often a run is requeued before it counts as failed
STOP_SECONDS = 600  # time before the limit when a run must save; at most a quarter of it
KILL_MARGIN_SECONDS = 20  # a run that has not ended this long before its limit is requeued anyway
SIGNAL = re.compile(r"B:USR1@(\d+)")


def option_problems(options: Mapping[str, str]) -> list[str]:
    """What is wrong with the names and values of these options."""
    errors = []
    names = [*SBATCH_OPTIONS.split(), *CONTAINER_OPTIONS.split(), *OWN_OPTIONS]
    for key, value in options.items():
        text, name = f"slurm.{key}={value}", key.removeprefix(TABLE_PREFIX)
        if name in MANAGED_OPTIONS:
            errors.append(f"{text}: is set by the sweep ({MANAGED_OPTIONS[name]})")
        elif name not in names or (name != key and name in OWN_OPTIONS):
            errors.append(f"{text}: sbatch has no such option{did_you_mean(name, names)}")
        elif "\n" in value:
            errors.append(f"{text}: must be one line")
    if not options.get("restarts", "0").isdigit():
        errors.append(f"slurm.restarts={options['restarts']}: must be a number, 0 or more")
    if "apptainer" in options and (pyxis := options.keys() & set(CONTAINER_OPTIONS.split())):
        errors.append(f"slurm.apptainer: cannot be combined with slurm.{min(pyxis)}")
    return [*errors, *_time_problems(options)]


def setup_problem(setup: str) -> str | None:
    """Why bash cannot read the set-up file; None if it can, or if there is none (plain)."""
    if setup == "plain":
        return None
    if not Path(setup).is_file():
        return f"slurm={setup}: must be plain, or a shell file to source"
    checked = run(["bash", "-n", setup], capture_output=True, text=True)
    return (
        f"slurm={setup}: bash cannot read it: {checked.stderr.strip()}" if checked.stderr else None
    )


def time_limit_seconds(time: str) -> int | None:
    """The seconds of a time limit of sbatch, as 1-12:00:00 or 90 (minutes); None: unlimited."""
    days, dash, clock = time.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    if dash:  # D-H, D-H:M or D-H:M:S
        hours, minutes, seconds = [*parts, 0, 0][:3]
    else:  # M, M:S or H:M:S
        hours, minutes, seconds = parts if len(parts) == 3 else [0, *parts, 0][:3]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds or None


def _time_limit(options: Mapping[str, str]) -> int | None:
    try:
        return time_limit_seconds(options.get("time", "0"))
    except ValueError:  # sbatch refuses it
        return None


def stop_seconds(options: Mapping[str, str]) -> int:
    """How long before its time limit a run must save and stop."""
    if match := SIGNAL.fullmatch(options.get("signal", "")):
        return int(match[1])
    limit = _time_limit(options)
    return STOP_SECONDS if limit is None else min(STOP_SECONDS, limit // 4)


def _time_problems(options: Mapping[str, str]) -> Iterator[str]:
    text = options.get("signal")
    if text is not None and not SIGNAL.fullmatch(text):
        yield (f"slurm.signal={text}: must be B:USR1@SECONDS, how long before its time limit a run "
               "must save and stop")  # fmt: skip
    elif (limit := _time_limit(options)) is not None and limit <= stop_seconds(options):
        yield (f"slurm.time={options['time']}: must be longer than the {stop_seconds(options)} s "
               "that slurm.signal leaves for saving")  # fmt: skip


def gpus_per_node(options: Mapping[str, str]) -> int | None:
    """How many GPUs a node of a run gets; None if the options do not say it."""
    gres = ",".join(
        item.partition(":")[2] or "1"
        for item in options.get("gres", "").removeprefix("gres:").split(",")
        if item.partition(":")[0] == "gpu"
    )
    per_node = options.get("gpus-per-node") or options.get("gpus-per-task") or gres
    nodes = options.get("nodes", "1")
    if not per_node and nodes.isdigit() and "gpus" in options:
        return _count(options["gpus"]) // max(1, int(nodes))
    return _count(per_node) if per_node else None


def _count(gpus: str) -> int:
    """The number in `4`, `a100:4`, `a100` (one) or a list of these."""
    numbers = [item.rpartition(":")[2] for item in gpus.split(",")]
    return sum(int(number) if number.isdigit() else 1 for number in numbers)


def resource_problems(plan: SweepPlan, options: Mapping[str, str]) -> list[str]:
    """Requests of nodes and GPUs that do not suit the processes of a run."""
    nodes, errors = options.get("nodes", "1"), []
    if plan.accelerate is None and nodes != "1":
        errors.append(f"slurm.nodes={nodes}: needs accelerate=FILE, such as launch/accelerate/"
            "zero3.yaml; without it every node would run the same process")  # fmt: skip
    gpus = gpus_per_node(options)
    if gpus is not None and gpus < plan.gpus_per_run:
        errors.append(f"a node of a run has {gpus} GPUs by slurm.*, but {plan.gpus_per_run} are "
                      f"needed: {plan.num_processes} processes by accelerate={plan.accelerate}; "
                      "request more GPUs, or copy that file and change num_processes")  # fmt: skip
    elif plan.accelerate is None and gpus is not None and gpus > plan.gpus_per_run:
        errors.append(f"a run has {gpus} GPUs by slurm.*, but without accelerate=FILE it is one "
                      f"process, which uses {plan.gpus_per_run}; set accelerate="
                      "launch/accelerate/zero3.yaml, or request fewer GPUs")  # fmt: skip
    return errors
