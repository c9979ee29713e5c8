"""Many runs, one table: the papers' rows over measures, data and seeds.

python launch/sweep.py table=paper difficulty=pism,cmab data=... seed=1,2,3 [KEY=VALUE ...]
python launch/sweep.py table=shapes

Each run is one `accelerate launch` of launch/train.py. What runs share is made once, and waited
for. A run that fails is shown and skipped; the same command again resumes, and finished runs cost
a look. Ends with the comparison of all finished runs (launch/report.py compare).

  table=paper|shapes        the twelve rows; shapes: few steps, two seeds, several at once
  recipe=, difficulty=, data=, seed=   one value or several, with commas; recipe= replaces the rows
  jobs=N                    runs at a time, here or in the array (shapes: by cores and GPUs; else 1)
  accelerate=FILE           configuration of accelerate launch; without it a run is one process
  slurm=plain|FILE          submit a job array; FILE is shell run before each run (modules, paths)
  slurm.OPTION=VALUE        sbatch's own options: slurm.partition=gpu slurm.gpus-per-node=8
  sweep=NAME                logs and plan in outputs/sweep/NAME (default: the table's name)
  --dry                     print the plan, or the scripts, and start nothing
  --table                   start nothing, compare what is finished

Rows that choose and have no random row of their size in the table get control=random, unless
`control` is given. Exit codes: 0 all runs finished, 1 some did not (the table is there all the
same), 2 bad settings, told before anything is started.
"""

import sys
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path

from difftrain.config.run_config import ConfigError
from difftrain.data.quarantine import NothingUsable
from difftrain.pipeline.parquet import MissingArtifact, SchemaError
from launch import jobs, locally
from launch.command_line import fail
from launch.jobs import AXES, Job
from launch.slurm import options, scripts
from launch.words import nearest

FLAGS = ("--dry", "--table", "-h", "--help")
OWN = ("table", "jobs", "accelerate", "slurm", "sweep")
NAMED = "runs of a sweep are named after their recipes; sweep=NAME names the sweep"


@dataclass(slots=True)
class Asked:
    """What a command line asks for: the sweep's own words, the axes, and each run's other words.

    `found` are the problems of the sweep's own words.
    """

    own: dict[str, str] = field(default_factory=dict)
    axes: dict[str, list[str]] = field(default_factory=dict)
    slurm: dict[str, str] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)

    @property
    def on_slurm(self) -> bool:
        """Whether runs are submitted instead of started here."""
        return bool(self.slurm) or "slurm" in self.own


def told_apart(words: list[str]) -> Asked:
    """The words by what they are for, with every wrong one in `found`."""
    asked = Asked()
    found = asked.found
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or word.startswith("-"):
            asked.flags.append(word)
            if word not in FLAGS:
                found.append(f"{word}: not of the form KEY=VALUE, and no option (see --help)")
        elif key in ("name", "+name"):
            found.append(f"{word}: {NAMED}")
        elif key in AXES:
            asked.axes[key] = [each.strip() for each in value.strip("[]").split(",")]
        elif key in OWN:
            asked.own[key] = value
        elif key.startswith("slurm."):
            asked.slurm[key.removeprefix("slurm.")] = value
        else:
            asked.words.append(word)
    found += [each for each in own_problems(asked) if each]
    return asked


def own_problems(asked: Asked) -> list[str | None]:
    """What is wrong with the sweep's own words."""
    own = asked.own
    count, file, setup = own.get("jobs", "1"), own.get("accelerate"), own.get("slurm", "plain")
    name = own.get("sweep", "x")
    known = all(char.isalnum() or char in "._-" for char in name) and name.strip(".")
    near = nearest(own["table"], list(jobs.TABLES)) if "table" in own else ""
    return [
        None if count.isdigit() and int(count) else f"jobs={count}: must be a number above 0",
        f"accelerate={file}: there is no such file" if file and not Path(file).is_file() else None,
        f"slurm={setup}: must be plain, or a file of shell lines"
        if setup != "plain" and not Path(setup).is_file()
        else None,
        None if known else f"sweep={name}: may hold letters, digits, '.', '_' and '-' only",
        f"table={own['table']}: there is no such table{near}"
        if own.get("table", "paper") not in jobs.TABLES
        else None,
        *options.problems(asked.slurm),
    ]


def planned(asked: Asked) -> locally.Plan:
    """The sweep: its runs in order, how many at a time, where its logs lie.

    Raises ConfigError with the problems of the sweep's own words and of every run.
    """
    own = asked.own
    table = jobs.TABLES.get(own.get("table", ""), jobs.NO_TABLE)
    axes = jobs.filled(asked.axes, table)
    try:
        found = jobs.jobs(axes, table, asked.words) if "recipe" in axes else []
    except ConfigError as error:
        raise ConfigError([*asked.found, *error.found]) from error
    asked.found += jobs.not_comparable(found, axes)
    if "recipe" not in axes and "table" not in own:
        asked.found.append("a sweep needs table=paper, table=shapes or recipe=A,B")
    if asked.found:
        raise ConfigError(asked.found)
    name = own.get("sweep", own.get("table", "rows"))
    root = Path(found[0].config.output_dir).expanduser().absolute()
    plan = locally.Plan(
        name=name,
        folder=root / "sweep" / name,
        jobs=found,
        at_a_time=int(own.get("jobs", 1)),
        accelerate=Path(own["accelerate"]).absolute() if "accelerate" in own else None,
    )
    if "--table" not in asked.flags and (troubles := uneven(plan, asked.slurm.get("nodes", "1"))):
        raise ConfigError(troubles)
    return replace(plan, at_a_time=room(plan)) if table.on_all_cores and "jobs" not in own else plan


def room(plan: locally.Plan) -> int:
    """Runs that this machine takes at a time: one a core, each with the GPUs that it wants."""
    there = locally.gpus()
    return min(locally.cores(), max(1, len(there) // plan.devices)) if there else locally.cores()


def uneven(plan: locally.Plan, nodes: str) -> list[str]:
    """Why a run's processes cannot share its steps; not asked where sbatch chooses the nodes."""
    if not (nodes.isdigit() and int(nodes)):
        return []
    every = [told for job in plan.jobs for told in job.config.uneven(plan.processes * int(nodes))]
    return list(dict.fromkeys(every))


def finished_table(found: list[Job]) -> Path | None:
    """Compare the finished runs and print the table; None if there is none or it is refused."""
    folders = [job.places.run for job in found if job.is_finished()]
    if not folders:
        print("no run is finished, so there is no table", file=sys.stderr)
        return None
    try:
        folder = import_module("difftrain.recipes.compare").compare(folders)
    except (MissingArtifact, SchemaError, ValueError) as error:
        print(f"no table: {type(error).__name__}: {error}", file=sys.stderr)
        return None
    print((folder / "compare.md").read_text(), flush=True)
    return folder


def ended(plan: locally.Plan, folder: Path | None) -> None:
    """The last lines and the exit code: 0 if every run is finished and its last start succeeded."""
    failed = locally.failed_before(plan)
    missing = [job for job in plan.jobs if not job.is_finished() or job.label in failed]
    if folder is not None:
        print(f"output: {folder}", flush=True)
    if missing or folder is None:
        names = ", ".join(job.label for job in missing)
        fail(f"{len(missing)} of {len(plan.jobs)} runs are not finished: {names}\n"
             "the same command continues from here", 1)  # fmt: skip


def main() -> None:
    """Run, submit, print or compare; the last line on stdout is `output: FOLDER`."""
    words = sys.argv[1:]
    if {"-h", "--help"} & {*words}:
        print(__doc__)
        return
    try:
        asked = told_apart(words)
        plan = planned(asked)
        if asked.on_slurm:
            plan = options.checked(plan, asked.slurm, "--dry" in asked.flags)
        elif not {"--dry", "--table"} & {*asked.flags}:
            locally.check(plan)
        for job in plan.jobs:
            job.is_finished()  # which looks at data and model
    except ConfigError as error:
        fail(f"ConfigError: {error}", 2)
        raise
    except NothingUsable as error:
        fail(f"NothingUsable: {error}", 2)
        raise
    except OSError as error:
        fail(f"{type(error).__name__}: {error}\nthe same command continues from here", 1)
        raise
    if "--table" in asked.flags:
        ended(plan, finished_table(plan.jobs))
    elif asked.on_slurm:
        again = [word for word in words if not word.startswith("slurm") and word != "--dry"]
        scripts.submit(plan, asked.own.get("slurm", "plain"), asked.slurm, again,
                       dry="--dry" in asked.flags)  # fmt: skip
    elif "--dry" in asked.flags:
        print("\n".join(locally.shown(plan)))
    else:
        locally.run(plan)
        ended(plan, finished_table(plan.jobs))


if __name__ == "__main__":
    main()
