"""The difftrain command: one subcommand for each file under launch/, and a few others.

Exit codes: 0 done, 1 failed, 2 bad settings or bad input. Settings are checked before anything
that imports torch is imported. The last line on stdout is `output: FOLDER`.
"""

import argparse
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from enum import StrEnum
from importlib import metadata
from operator import attrgetter
from pathlib import Path
from pkgutil import resolve_name
from typing import NoReturn, TextIO, cast

from jinja2 import Template
from omegaconf import OmegaConf

from difftrain.cli import grade_case
from difftrain.cli.hydra_options import sweep_arguments, take_options
from difftrain.cli.overrides import (
    compose_config,
    config_groups,
    recipe_settings,
    setting_keys,
)
from difftrain.config.model import Dtype
from difftrain.config.report import Tracker
from difftrain.config.run_config import ConfigError, RunConfig, resolve
from difftrain.config.setting import did_you_mean
from difftrain.data.quarantine import EmptyDatasetError
from difftrain.pipeline.coordination import FirstRankFailed, RankTimeout, World
from difftrain.pipeline.parquet import MissingArtifact, SchemaError
from difftrain.pipeline.stop_request import StopRequested, ignore_sigterm
from difftrain.select import EmptySelectionError
from difftrain.train import PreflightFailed

OVERVIEW = """\
usage: difftrain COMMAND [KEY=VALUE ...] [--verbose]
       difftrain --version

{}

more about a command: difftrain COMMAND --help"""
USAGE = """\
usage: {program} [KEY=VALUE ...] [--cfg job [--resolve]] [--config-dir DIR] [--verbose]

{help}

groups (GROUP=NAME):
{groups}
common: output_dir=DIR seed=N name=NAME control=random data.limit=N
--config-dir DIR adds the groups of a folder, as DIR/recipe/mine.yaml: recipe=mine
every key with its default: {program} --cfg job"""

VIEW_USAGE = """\
usage: {program} [RUN|SCORES ...] [view.host=ADDRESS] [view.port=N] [KEY=VALUE ...]

Shows a finished run (OUTPUT/run/NAME) or finished scores (OUTPUT/score/NAME) in the browser:
a grid of samples to filter and sort, every response under every mask, attention maps, and the
benchmark items that two checkpoints answer differently. Of several runs, the samples are the
first one's, and their benchmark items can be compared. Without a folder, it shows the newest
run below output_dir. Attention maps of scores need the probe's model: model=NAME.

It prints an address with a token and runs until Ctrl-C. Only this machine can open it, unless
view.host names another address."""

SHELLS = ("bash", "zsh")
ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    # Rounds that an OpenMP thread spins before it sleeps. Endless spinning starves shared cores; no
    # spinning halves the speed of cores that are not shared.
    "GOMP_SPINCOUNT": "20000",
}
THREADS_VARIABLE = "DIFFTRAIN_THREADS"
BAD_INPUT = (ConfigError, EmptyDatasetError, EmptySelectionError, MissingArtifact, SchemaError)
"""Errors that end a command with exit code 2."""


@dataclass(frozen=True, slots=True)
class Command:
    """A subcommand that runs `target` ("module:function") with checked settings.

    The function takes (config, world, recipe settings) and returns the folder that it wrote. If it
    `trains`, the processes must be able to share an optimizer step evenly. `expand` rewrites short
    forms of the arguments and may name another target.
    """

    help: str
    target: str
    trains: bool = False
    expand: Callable[[list[str]], tuple[list[str], str | None]] | None = None


def expand_evaluate(arguments: list[str]) -> tuple[list[str], None]:
    """Write the short forms among evaluate's arguments as settings; the target stays (None)."""
    full_keys = {"benchmarks": "evaluate.benchmarks", "limit": "evaluate.limit"}
    expanded = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        is_checkpoint = "/" in value or Path(value).expanduser().is_dir()
        if key == "model" and value not in config_groups()["model"] and is_checkpoint:
            expanded += ["model=any", f"model.name={value}"]
        elif equals and key in full_keys:
            expanded.append(f"{full_keys[key]}={value}")
        else:
            expanded.append(argument)
    return expanded, None


def expand_plan(arguments: list[str]) -> tuple[list[str], str | None]:
    """Plan's arguments without check=model, and the function that check=model runs, or None."""
    checks = {"model": "difftrain.pipeline.chain:check_model"}
    names = [item.removeprefix("check=") for item in arguments if item.startswith("check=")]
    hints = {name: did_you_mean(name, list(checks)) for name in names if name not in checks}
    if hints:
        raise ConfigError([f"check={name}: no such check{hint}" for name, hint in hints.items()])
    rest = [argument for argument in arguments if not argument.startswith("check=")]
    return rest, checks[names[-1]] if names else None


COMMANDS = {
    "train": Command(
        """Run the whole chain: probe, score, select, train, evaluate, report.

  --multirun, -m   run a sweep: recipe=A,B or recipe=glob(grpo_*), seed=range(1,4), difficulty=,
                   data= (see sweep --help, whose options work too: jobs=, slurm=, accelerate=)
  --dry            print what the run would do and cost (plan), or the sweep's command lines""",
        "difftrain.pipeline.finished:train",
        trains=True,
    ),
    "probe": Command("Run only data and probe.", "difftrain.pipeline.chain:probe"),
    "score": Command("Run only data, probe and score.", "difftrain.pipeline.chain:score"),
    "thresholds": Command(
        """Propose thresholds of the strata for this model from a scored pool.

Scores the samples first, unless that is done. The papers' thresholds were set for Qwen2.5-VL; the
proposal puts them at quantiles of this pool's scores that give the papers' shares of strata.""",
        "difftrain.pipeline.chain:propose_thresholds",
    ),
    "evaluate": Command(
        """Evaluate any checkpoint or hub id on the benchmarks, outside any recipe:

  model=NAME|FOLDER|HUB_ID benchmarks=[MMStar,shapes/MMVet] limit=N

`benchmarks` and `limit` are short for evaluate.benchmarks and evaluate.limit. `model` takes a name
under conf/model or any checkpoint (model=any model.name=...), which then generates up to 2,048
tokens in bfloat16 unless the command line says otherwise.""",
        "difftrain.pipeline.chain:evaluate",
        expand=expand_evaluate,
    ),
    "report": Command(
        """Write the report of a finished run again, or compare finished runs side by side:

  report compare RUN [RUN ...] [--force] [--to DIR]

RUN is a folder under outputs/run. `compare` writes compare.md, .html, .csv and .tex. It ends with
exit code 2 and names the runs that are unfinished or whose settings differ from the other runs';
--force compares runs with differing settings too and notes it in the table.""",
        "difftrain.pipeline.chain:report",
    ),
    "plan": Command(
        """Print what a run would do and cost, without running it.

check=model also tests whether the model can be trained.""",
        "difftrain.plan:show",
        expand=expand_plan,
    ),
    "export": Command(
        "Write the scores as parquet, and the selected samples in the formats of other trainers.",
        "difftrain.export:run",
    ),
}
"""Subcommands that take settings."""
OTHER_COMMANDS = {
    "compare": "Compare two finished evaluations, item by item.",
    "grade": "Explain how one response is graded: gold=TEXT response=TEXT.",
    "sweep": "Run many recipes over measures, data and seeds, and compare them in one table.",
    "view": "Look at the samples of a run or of scores in the browser, filter and compare them.",
    "completion": "Print the script for shell completion: completion bash|zsh.",
}


def fail(message: str, exit_code: int, all_ranks: bool = False) -> NoReturn:
    """Print the message and exit. Only the first rank prints, unless `all_ranks` is true."""
    world = World.from_environment()
    if world.is_first or all_ranks:
        prefix = f"rank {world.rank}: " if world.size > 1 and all_ranks else ""
        print(f"{prefix}{message}", file=sys.stderr, flush=True)
    sys.exit(exit_code)


def configure_logging(world: World, verbose: bool) -> None:
    """Send the package's log to stderr: from INFO on the first rank, from WARNING on the others.

    `verbose` shows DEBUG of all ranks.
    """
    rank = f" rank {world.rank}" if world.size > 1 else ""
    handler = logging.StreamHandler(sys.stderr)
    line_format = f"%(asctime)s %(levelname)s{rank} %(name)s: %(message)s"
    handler.setFormatter(logging.Formatter(line_format, "%H:%M:%S"))
    level = logging.INFO if world.is_first else logging.WARNING
    logger = logging.getLogger("difftrain")
    logger.setLevel(logging.DEBUG if verbose else level)
    logger.handlers, logger.propagate = [handler], False
    cast(TextIO, sys.stdout).reconfigure(line_buffering=True)  # pyright: ignore  # not in TextIO


def use_all_cores(world: World) -> None:
    """Let a single process use all its cores, although `accelerate launch` sets one thread.

    A sweep that starts several runs at once sets the threads of each run in THREADS_VARIABLE. Call
    this before torch is imported, because torch reads the number only once.
    """
    is_accelerate_launch = world.size == 1 and "ACCELERATE_MIXED_PRECISION" in os.environ
    if threads := os.environ.get(THREADS_VARIABLE):
        os.environ["OMP_NUM_THREADS"] = threads
    elif is_accelerate_launch and os.environ.get("OMP_NUM_THREADS") == "1":
        os.environ["OMP_NUM_THREADS"] = str(len(os.sched_getaffinity(0)))


def checked_config(program: str, arguments: list[str], trains: bool = False) -> RunConfig:
    """The checked settings of a command line. `--cfg job` prints them and exits instead.

    If the command `trains`, the processes must be able to share an optimizer step evenly.
    """
    options = take_options(program, arguments)
    if options.multirun or options.dry:
        option = "--multirun" if options.multirun else "--dry"
        raise ConfigError([f"{option}: only train has it; sweep runs several recipes"])
    job = compose_config(options.rest)
    if options.cfg:
        print(OmegaConf.to_yaml(job, resolve=options.resolve), end="")
        sys.exit(0)
    config = resolve(job)
    if trains and (errors := launch_problems(config)):
        raise ConfigError(errors)
    return config


def launch_problems(config: RunConfig) -> list[str]:
    """What in the settings does not fit to the processes that accelerate launch started."""
    errors = config.step_problems(World.from_environment().size)
    uses_deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION")
    if uses_deepspeed and precision == "bf16" and config.model.dtype is Dtype.float32:
        rule = "DeepSpeed was started with mixed_precision: bf16, which needs bfloat16"
        advice = "without GPUs use launch/accelerate/zero3_cpu.yaml or none"
        errors.append(f"model.dtype=float32: {rule}; {advice}")
    return errors


def run_command(name: str, program: str, arguments: list[str]) -> Path:
    """Check the settings, then import and run the command's function; returns its folder."""
    command, world, target = COMMANDS[name], World.from_environment(), None
    if command.expand is not None:
        arguments, target = command.expand(arguments)
    config = checked_config(program, arguments, command.trains)
    use_all_cores(world)
    ignore_sigterm()
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    return resolve_name(target or command.target)(config, world, recipe_settings(config))


def compare(command: str, program: str, arguments: list[str]) -> Path:
    """Compare two evaluations, or runs if `command` is "report compare"; returns the folder."""
    parser = argparse.ArgumentParser(prog=program)
    parser.add_argument("--to", type=Path, metavar="DIR")
    if command == "compare":
        parser.description = (
            "Compare two finished evaluations item by item: the folders that `evaluate` ends with. "
            "Writes comparison.md, comparison.json and item_diffs.jsonl (every item on which the "
            "two differ). Exit code 2 if settings or items differ."
        )
        parser.add_argument("folders", nargs=2, type=Path, metavar="FOLDER")
        options = parser.parse_args(arguments)
        compare_evaluations = resolve_name("difftrain.evaluate.compare:compare_evaluations")
        return compare_evaluations(*options.folders, options.to)
    parser.description = "Compare finished runs side by side."
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--force", action="store_true", help="compare runs whose settings differ")
    options = parser.parse_args(arguments)
    compare_runs = resolve_name("difftrain.report.compare.build:compare_runs")
    folder = compare_runs(options.runs, options.to, options.force)
    print((folder / "compare.md").read_text())
    return folder


def explain_grade(program: str, arguments: list[str]) -> str:
    """How one response is graded, or this command's usage."""
    if not arguments or {"-h", "--help"} & {*arguments}:
        return grade_case.USAGE.format(program=program)
    fields, settings = grade_case.split_arguments(arguments)
    return grade_case.explain(fields, checked_config(program, settings).grade)


def view(program: str, arguments: list[str]) -> Path:
    """Serve the explorer until it is interrupted; returns the folder that it showed."""
    settings, folders = [], []
    for item in arguments:
        is_setting = item.startswith("-") or ("=" in item and not Path(item).is_dir())
        (settings if is_setting else folders).append(item)
    config = checked_config(program, settings)
    return resolve_name("difftrain.view.server:serve")([*map(Path, folders)], config)


def completion(arguments: list[str]) -> str:
    """The completion script of a shell. It offers every GROUP=NAME, and every KEY= with the values
    that a flag or a choice can have. Raises ConfigError for an unknown shell."""
    if len(arguments) != 1 or arguments[0] not in SHELLS:
        problem = f"completion {' '.join(arguments)}: must be one of: {', '.join(SHELLS)}"
        raise ConfigError([problem])
    words = [f"{group}={name}" for group, names in config_groups().items() for name in names]
    for key in setting_keys(config := RunConfig()):
        value = attrgetter(key)(config)
        if key == "report_to":
            words += [f"{key}={tracker}" for tracker in Tracker]
        elif isinstance(value, StrEnum):
            words += [f"{key}={member}" for member in type(value)]
        elif isinstance(value, bool):
            words += [f"{key}=true", f"{key}=false"]
        elif not is_dataclass(value):
            words.append(f"{key}=")
    words += ["--help", "--cfg", "--resolve", "--config-dir", "--multirun", "--dry", "--verbose"]
    script = Path(__file__).with_name(f"completion.{arguments[0]}.jinja").read_text()
    variables = {"commands": " ".join([*COMMANDS, *OTHER_COMMANDS]), "words": " ".join(words)}
    return Template(script, keep_trailing_newline=True).render(variables)


def run(name: str, program: str, arguments: list[str]) -> None:
    """Run one subcommand; if it writes a folder, print `output: FOLDER` at the end."""
    if name == "completion":
        print(completion(arguments), end="")
        return
    if name == "sweep":
        resolve_name("difftrain.sweep:main")(arguments)
        return
    if name == "grade":
        print(explain_grade(program, arguments))
        return
    if name == "report" and arguments[:1] == ["compare"]:
        name, program, arguments = "report compare", f"{program} compare", arguments[1:]
    if name == "view":
        if {"-h", "--help"} & {*arguments}:
            print(VIEW_USAGE.format(program=program))
            return
        folder = view(program, arguments)
    elif name.endswith("compare"):
        try:
            folder = compare(name, program, arguments)
        except ValueError as error:
            fail(f"{type(error).__name__}: {error}", 2)
    elif {"-h", "--help"} & {*arguments}:
        groups = [f"  {group:<12}{' '.join(names)}" for group, names in config_groups().items()]
        print(USAGE.format(program=program, help=COMMANDS[name].help, groups="\n".join(groups)))
        return
    elif name == "train":
        options = take_options(program, arguments)
        if options.multirun:
            resolve_name("difftrain.sweep:main")(sweep_arguments(program, options))
            return
        if options.dry:
            folder = run_command("plan", program, options.rest)
        else:
            folder = run_command(name, program, arguments)
    else:
        folder = run_command(name, program, arguments)
    if World.from_environment().is_first:
        print(f"output: {folder}", flush=True)


def main(command: str | None = None) -> None:
    """Run the `difftrain` command, or for a file under launch/ its subcommand `command`."""
    arguments, program = sys.argv[1:], Path(sys.argv[0]).name
    if command is None:
        command, arguments = (arguments or ["--help"])[0], arguments[1:]
        helps = {name: entry.help for name, entry in COMMANDS.items()} | OTHER_COMMANDS
        if command in ("-h", "--help"):
            summaries = [(name, text.splitlines()[0].rstrip(":.")) for name, text in helps.items()]
            print(OVERVIEW.format("\n".join(f"  {name:<12}{text}." for name, text in summaries)))
            return
        if command == "--version":
            print(f"difftrain {metadata.version('difftrain')}")
            return
        if command not in helps:
            hint = did_you_mean(command, [*helps])
            fail(f"difftrain: no command {command}{hint} (see difftrain --help)", 2)
        program = f"difftrain {command}"
    configure_logging(World.from_environment(), "--verbose" in arguments)
    try:
        run(command, program, [item for item in arguments if item != "--verbose"])
    except ConfigError as error:
        fail(f"ConfigError: {error}", 2)
    except BAD_INPUT as error:
        fail(f"{type(error).__name__}: {error}", 2, all_ranks=True)
    except PreflightFailed as error:
        fail(f"PreflightFailed: {error}", 1, all_ranks=True)
    except FirstRankFailed as error:
        fail(str(error), 1, all_ranks=True)
    except StopRequested as error:
        fail(f"StopRequested: {error}", 1)
    except (OSError, RankTimeout, TimeoutError) as error:
        message = f"{type(error).__name__}: {error}\nthe same command continues from here"
        fail(message, 1, all_ranks=True)
    except KeyboardInterrupt:
        kept = "finished stages and answers are kept, a training goes on from its last checkpoint"
        fail(f"interrupted; the same command continues: {kept}", 1)
