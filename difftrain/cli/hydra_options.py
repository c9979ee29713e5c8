"""The options that Hydra users know, beside KEY=VALUE.

--cfg job, --resolve, --config-dir and --multirun work as in Hydra; --multirun is the sweep. For the
other options the error says what to use.
"""

import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name

from difftrain.cli.overrides import CONFIG_DIR_VARIABLE, sweep_values
from difftrain.config.run_config import ConfigError, RunConfig

SHORT = {
    "-c": "--cfg", "-m": "--multirun", "-r": "--run", "-cd": "--config-dir", "-p": "--package",
    "-sc": "--shell-completion", "-cp": "--config-path", "-cn": "--config-name", "-i": "--info",
}  # fmt: skip
WITH_VALUE = {"--cfg": "job", "--config-dir": None}
"""Options that take a value, and the value if there is none; None: it must be there."""
INSTEAD = {
    "--hydra-help": "--help lists the groups, --cfg job every key",
    "--info": "--cfg job prints the composed settings, --help the groups; conf/run.yaml has the "
    "defaults list",
    "--package": "--cfg job prints all settings; one section: difftrain ... --cfg job | grep",
    "--shell-completion": 'eval "$(difftrain completion bash)", or zsh',
    "--config-path": "--config-dir DIR adds a folder to conf/",
    "--config-name": "the first config is always conf/run.yaml; write recipe=NAME, and "
    "--config-dir DIR for recipes of your own",
    "--experimental-rerun": "the same command continues a run",
}
"""Options of Hydra that difftrain does not have, and what to use."""
LAUNCH_VARIABLE = "ACCELERATE_MIXED_PRECISION"  # accelerate launch sets it in each process


@dataclass(slots=True)
class HydraOptions:
    """The options of one command line, and its other arguments."""

    cfg: bool = False
    """Print the composed settings instead of running."""
    resolve: bool = False
    """Print them with interpolations resolved."""
    multirun: bool = False
    """Run a sweep."""
    dry: bool = False
    """Print what would run."""
    rest: list[str] = field(default_factory=list)


def take_options(program: str, arguments: list[str]) -> HydraOptions:
    """The options among the arguments. Raises ConfigError for those that do not exist.

    --config-dir sets CONFIG_DIR_VARIABLE, so that the runs of a sweep have it too.
    """
    options, errors, values = HydraOptions(), [], iter(arguments)
    for argument in values:
        flag, equals, value = argument.partition("=")
        name = SHORT.get(flag, flag)
        if not argument.startswith("-"):
            options.rest.append(argument)
        elif name in WITH_VALUE:
            given = value if equals else next(values, WITH_VALUE[name])
            errors += _apply(options, name, given)
        elif name in ("--resolve", "--multirun", "--dry", "--run"):
            if name != "--run":  # a command without --multirun is one run
                setattr(options, name.removeprefix("--"), True)
        elif name in INSTEAD:
            errors.append(f"{argument}: not an option of {program}; {INSTEAD[name]}")
            break  # what follows may be the value of this option
        else:
            errors.append(f"{argument}: unknown option (see {program} --help)")
    if errors:
        raise ConfigError(errors)
    return options


def _apply(options: HydraOptions, name: str, value: str | None) -> list[str]:
    if name == "--cfg":
        options.cfg = True
        advice = "there are no settings under hydra; use --cfg job"
        return [] if value == "job" else [f"--cfg {value}: {advice}"]
    folder = Path(value or "").expanduser().absolute()
    if not value or not folder.is_dir():
        return [f"--config-dir {value or ''}: there is no such folder"]
    os.environ[CONFIG_DIR_VARIABLE] = str(folder)
    return []


def sweep_arguments(program: str, options: HydraOptions) -> list[str]:
    """The arguments of the sweep that `train --multirun` is.

    Raises ConfigError under accelerate launch, where every process would start the sweep, and for
    several values of a setting that a sweep does not vary.
    """
    command = shlex.join(["python", "launch/train.py", "-m", *options.rest])
    if LAUNCH_VARIABLE in os.environ or "RANK" in os.environ:
        problem = "--multirun: every process of accelerate launch would start the sweep"
        raise ConfigError([f"{problem}; run {command} accelerate=FILE, which launches each run"])
    axes: tuple[str, ...] = resolve_name("difftrain.sweep.expand:AXES")
    errors = []
    if options.cfg:
        errors.append("--cfg shows the settings of one run; --multirun --dry shows a sweep's plan")
    for argument in options.rest:
        key = argument.partition("=")[0].lstrip("+~")
        if key not in axes and len(sweep_values(argument)) > 1:
            rule = f"a sweep varies only {', '.join(axes)}; another setting needs a recipe for"
            errors.append(f"{argument}: {rule} each value (conf/recipe, or --config-dir)")
    if errors:
        raise ConfigError(errors)
    has_recipe = any(argument.startswith(("recipe=", "table=")) for argument in options.rest)
    default = [] if has_recipe else [f"recipe={RunConfig().recipe}"]
    return [*default, *options.rest, *(["--dry"] if options.dry else [])]
