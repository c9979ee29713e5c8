"""sbatch's own options as words, slurm.OPTION=VALUE: checked for their spelling."""

import re
import shutil

from difftrain.config.run_config import ConfigError
from launch.locally import Plan
from launch.words import nearest

KNOWN = frozenset(
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
"""Long options of sbatch that a sweep leaves to its user."""
OURS = (
    "array",
    "job-name",
    "output",
    "error",
    "dependency",
    "ntasks-per-node",
    "open-mode",
    "wrap",
)
"""Those that follow from the sweep."""
FOR_THE_TABLE = ("account", "clusters", "partition", "qos", "reservation", "time", "wckey")
"""Those that the job which makes the table has too: it needs no GPU."""


def problems(given: dict[str, str]) -> list[str]:
    """What is wrong with the given options."""
    found = []
    for name, value in given.items():
        word = f"slurm.{name}={value}"
        if name in OURS:
            found.append(f"{word}: follows from the sweep (jobs=N sets how many run at a time)")
        elif name not in KNOWN:
            found.append(f"{word}: sbatch has no such option{nearest(name, sorted(KNOWN))}")
        elif "\n" in value:
            found.append(f"{word}: must be one line")
    return found


def checked(plan: Plan, given: dict[str, str], dry: bool) -> Plan:
    """The same plan. Raises ConfigError where nothing could be submitted from here."""
    if not dry and shutil.which("sbatch") is None:
        raise ConfigError(["slurm: there is no sbatch on this machine; --dry prints the scripts"])
    return plan


def lines(given: dict[str, str]) -> str:
    """#SBATCH lines; an option without a value is a switch."""
    return "".join(
        f"#SBATCH --{name}={value}\n" if value else f"#SBATCH --{name}\n"
        for name, value in given.items()
    )
