"""Run many recipes over difficulty measures, data sets and seeds, and compare them in one table.

difftrain sweep table=paper difficulty=pism,cmab data=... seed=1,2,3 [KEY=VALUE ...]
difftrain sweep table=rap model=qwen2_5_vl_7b data=mm_eureka evaluate.benchmarks=rap seed=1,2,3
difftrain sweep table=shapes

Each run is one `accelerate launch` of launch/train.py. Stages that several runs share are computed
once; the other runs wait for them. A failed run is reported and skipped; the same command again
continues without repeating finished runs. At the end, all finished runs are compared.

  table=paper|rap|shapes    paper: 12 rows of Qi et al. 2026; rap: Table 1 and ablation of RAP;
                            shapes: the rows of paper, a quick try on generated images
  recipe=, difficulty=, data=, seed=   one value or A,B,C; range(1,4) is 1,2,3; glob(grpo_*) is
                            every name that matches; recipe= replaces the table's rows
  jobs=N                    parallel runs (default: 1; shapes: all cores; SLURM decides: no limit)
  accelerate=FILE           configuration of accelerate launch; without it, a run is one process
  slurm=plain|FILE          submit job arrays; each run first sources the shell file FILE
  slurm.OPTION=VALUE        options of sbatch: slurm.partition=gpu slurm.gpus-per-node=8
  slurm.table.OPTION=VALUE  options of the job that compares the runs: slurm.table.partition=cpu
  slurm.restarts=N          how often a run may start again after its time limit (default: 20)
  sweep=NAME                logs and status in outputs/sweep/NAME (default: the table's name)
  --dry                     print the plan, or the scripts, and start nothing
  --table                   start nothing, only compare the finished runs
  --status                  each run's state, step, reward, time left, and why it failed
  --cancel                  cancel the sweep's jobs that wait or run

A run that selects by difficulty also trains a control on as many random samples (control=random),
unless another row of the table is such a control or the command line sets `control`. Exit codes:
0 all runs finished, 1 some did not (the table has the others), 2 bad settings, before any start.
"""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path

from difftrain.cli import fail
from difftrain.cli.overrides import sweep_values
from difftrain.config.run_config import ConfigError
from difftrain.config.setting import did_you_mean
from difftrain.pipeline.parquet import MissingArtifact, SchemaError
from difftrain.sweep import expand, jobs, local_launcher, slurm
from difftrain.sweep.expand import AXES, SweepRun
from difftrain.sweep.local_launcher import SweepPlan
from difftrain.sweep.slurm import SlurmRequest
from difftrain.sweep.slurm_options import option_problems, resource_problems, setup_problem

ACTIONS = ("--dry", "--table", "--status", "--cancel")
FLAGS = (*ACTIONS, "-h", "--help")
SWEEP_KEYS = ("table", "jobs", "accelerate", "slurm", "sweep")


@dataclass(slots=True)
class SweepArguments:
    """The arguments of a sweep, sorted by purpose."""

    options: dict[str, str] = field(default_factory=dict)  # values of SWEEP_KEYS
    axes: dict[str, list[str]] = field(default_factory=dict)  # values of AXES
    slurm: dict[str, str] = field(default_factory=dict)  # options of sbatch
    overrides: list[str] = field(default_factory=list)  # settings of every run
    flags: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)  # overrides are checked later, with the runs

    @property
    def on_slurm(self) -> bool:
        """Whether the sweep is submitted to SLURM."""
        return bool(self.slurm) or "slurm" in self.options


def parse(arguments: list[str]) -> SweepArguments:
    """Sort the arguments by purpose; `errors` gets a message for each wrong one."""
    parsed = SweepArguments()
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or argument.startswith("-"):
            parsed.flags.append(argument)
        elif key in ("name", "+name"):
            rule = "runs of a sweep are named after their recipes; sweep=NAME names the sweep"
            parsed.errors.append(f"{argument}: {rule}")
        elif key in AXES:
            parsed.axes[key] = sweep_values(f"{key}={value.strip('[]')}")
        elif key in SWEEP_KEYS:
            parsed.options[key] = value
        elif key.startswith("slurm."):
            parsed.slurm[key.removeprefix("slurm.")] = value
        else:
            parsed.overrides.append(argument)
    rule = "neither of the form KEY=VALUE nor an option (see --help)"
    parsed.errors += [f"{flag}: {rule}" for flag in parsed.flags if flag not in FLAGS]
    if len({*parsed.flags} & {*ACTIONS}) > 1:
        parsed.errors.append(f"{' '.join(parsed.flags)}: use one of {', '.join(ACTIONS)}")
    parsed.errors += [*_option_problems(parsed.options), *option_problems(parsed.slurm)]
    return parsed


def _option_problems(options: dict[str, str]) -> Iterator[str]:
    jobs, file = options.get("jobs", "1"), options.get("accelerate")
    setup, name = options.get("slurm", "plain"), options.get("sweep", "a-valid-name")
    if not (jobs.isdigit() and int(jobs)):
        yield f"jobs={jobs}: must be a number above 0"
    if file and not Path(file).is_file():
        yield f"accelerate={file}: there is no such file"
    if problem := setup_problem(setup):
        yield problem
    if not (all(char.isalnum() or char in "._-" for char in name) and name.strip(".")):
        yield f"sweep={name}: may hold letters, digits, '.', '_' and '-' only"
    if (table := options.get("table", "paper")) not in expand.TABLES:
        hint = did_you_mean(table, list(expand.TABLES))
        yield f"table={table}: there is no such table{hint}"


def plan_sweep(parsed: SweepArguments) -> SweepPlan:
    """The plan of the sweep that these arguments describe.

    Raises ConfigError with the problems of the sweep's options and of every run.
    """
    options = parsed.options
    table = expand.TABLES.get(options.get("table", ""), expand.SweepTable())
    axes = expand.sweep_axes(parsed.axes, table)
    try:
        runs = expand.expand(axes, table, parsed.overrides) if "recipe" in axes else []
    except ConfigError as error:
        raise ConfigError([*parsed.errors, *error.problems]) from error
    errors = [*parsed.errors, *expand.table_problems(runs, axes)]
    if "recipe" not in axes and "table" not in options:
        errors.append("a sweep needs table=paper, table=rap, table=shapes or recipe=A,B")
    if errors:
        raise ConfigError(errors)
    name = options.get("sweep", options.get("table", "rows"))
    folder = Path(runs[0].config.output_dir).expanduser().absolute() / "sweep" / name
    accelerate = Path(options["accelerate"]).absolute() if "accelerate" in options else None
    at_a_time, nodes = int(options.get("jobs", 1)), parsed.slurm.get("nodes", "1")
    plan = SweepPlan(
        name=name, folder=folder, runs=runs, at_a_time=at_a_time, accelerate=accelerate
    )
    if not {"--table", "--status", "--cancel"} & {*parsed.flags}:
        errors = resource_problems(plan, parsed.slurm)
        # slurm.nodes may be a range, as 2-4: then sbatch chooses the number, and steps are not
        # checked.
        if nodes.isdigit() and int(nodes):
            processes = plan.num_processes * int(nodes)
            errors += [text for run in runs for text in run.config.step_problems(processes)]
        if errors:
            raise ConfigError(list(dict.fromkeys(errors)))
    if table.uses_all_cores and "jobs" not in options and not parsed.on_slurm:
        return replace(plan, at_a_time=local_launcher.max_runs_at_a_time(plan))
    return plan


def compare_finished(runs: list[SweepRun]) -> Path | None:
    """Compare the finished runs and print the table; None if there is no table."""
    folders = [run.paths.run for run in runs if run.is_finished()]
    if not folders:
        print("no run is finished, so there is no table", file=sys.stderr)
        return None
    try:
        folder = import_module("difftrain.report.compare.build").compare_runs(folders)
    except (MissingArtifact, SchemaError, ValueError) as error:
        print(f"no table: {type(error).__name__}: {error}", file=sys.stderr)
        return None
    print((folder / "compare.md").read_text(), flush=True)
    return folder


def finish(plan: SweepPlan, folder: Path | None) -> None:
    """Print `output: FOLDER`; exit with code 1 if a run is not finished or there is no table."""
    missing = local_launcher.unfinished_runs(plan)
    if folder is not None:
        print(f"output: {folder}", flush=True)
    if missing or folder is None:
        labels = ", ".join(run.label for run in missing)
        fail(f"{len(missing)} of {len(plan.runs)} runs are not finished: {labels}\n"
             "the same command continues from here", 1)  # fmt: skip


def main(arguments: list[str]) -> None:
    """Run, submit, print or compare a sweep; the last line on stdout is `output: FOLDER`."""
    if {"-h", "--help"} & {*arguments}:
        print(__doc__)
        return
    parsed = parse(arguments)
    plan = plan_sweep(parsed)
    if "--status" in parsed.flags:
        print(f"{jobs.status(plan)}\noutput: {plan.folder}", flush=True)
        return
    if "--cancel" in parsed.flags:
        jobs.cancel(plan)
        return
    on_slurm, dry, only_table = parsed.on_slurm, "--dry" in parsed.flags, "--table" in parsed.flags
    if on_slurm and not dry and shutil.which("sbatch") is None:
        raise ConfigError(["slurm: there is no sbatch on this machine; --dry prints the scripts"])
    if not (on_slurm or dry or only_table):
        local_launcher.check_gpus(plan)
    for run in plan.runs:
        run.is_finished()  # called because it reads data and model: reports bad input early
    if on_slurm and not only_table:
        request = SlurmRequest(
            setup=parsed.options.get("slurm", "plain"),
            options=parsed.slurm,
            throttle=plan.at_a_time if "jobs" in parsed.options else None,
            arguments=[item for item in arguments if not item.startswith(("slurm", "--dry"))],
        )
        (slurm.print_scripts if dry else slurm.submit)(plan, request)
    elif dry and not only_table:
        local_launcher.print_plan(plan)
    else:
        if not only_table:
            local_launcher.run_all(plan)
        finish(plan, compare_finished(plan.runs))
