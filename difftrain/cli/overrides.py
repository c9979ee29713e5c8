"""Turn the overrides of a command line (KEY=VALUE) into settings, or report all their problems.

Each override is first checked alone against the settings tree; then Hydra composes all of them.
"""

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from difftrain.config.data import ALL_SUFFIXES
from difftrain.config.run_config import ConfigError, RunConfig, format_value, problems
from difftrain.config.setting import did_you_mean

CONF = Path(__file__).resolve().parents[1] / "conf"
OPEN_KEYS = ("grpo.trl.", "sft.trl.", "model.server.extra.")
"""Below these keys a plus adds any argument of TRL or of the server: +grpo.trl.KEY=1."""
CONFIG_DIR_VARIABLE = "DIFFTRAIN_CONFIG_DIR"
"""The environment variable with the folder of --config-dir."""
LISTS_OF_NAMES = ("evaluate.benchmarks", "report_to")
"""Settings whose lists may be written as one name: report_to=wandb."""


@cache
def renamed() -> Any:
    """conf/renamed.yaml: under "keys" and "values" the new names of settings by their old names."""
    return OmegaConf.to_container(OmegaConf.load(CONF / "renamed.yaml"))


def config_folders() -> list[Path]:
    """conf/ and the folder of --config-dir, in the order in which Hydra searches them."""
    extra = os.environ.get(CONFIG_DIR_VARIABLE)
    return [CONF, Path(extra)] if extra else [CONF]


def config_groups() -> dict[str, list[str]]:
    """Hydra's config groups (the folders of conf/ and of --config-dir) and the names in each."""
    return _groups_in(tuple(config_folders()))


@cache
def _groups_in(folders: tuple[Path, ...]) -> dict[str, list[str]]:
    names = defaultdict[str, set[str]](set)
    for path in (path for folder in folders for path in folder.glob("*/*.yaml")):
        names[path.parent.name].add(path.stem)
    return {group: sorted(names[group]) for group in sorted(names)}


def sweep_values(argument: str) -> list[str]:
    """The values of KEY=A,B, KEY=choice(A,B), KEY=range(A,B) or GROUP=glob(A*), as text.

    Anything else is one value. Raises ConfigError if there is none.
    """
    value = argument.partition("=")[2]
    try:
        override = OverridesParser.create().parse_override(argument)
        if isinstance(glob := override.value(), Glob):
            values = glob.filter(config_groups().get(override.key_or_group, []))
        elif override.is_discrete_sweep():
            values = list(override.sweep_string_iterator())
        else:
            return [value]
    except HydraException:
        return [value]
    if not values:
        raise ConfigError([f"{argument}: no {override.key_or_group} has such a name"])
    return values


SWEEP_HINT = "; train -m, or sweep, starts a run for each recipe, difficulty, data and seed"
HYDRA_HINT = (
    "difftrain sets Hydra's own settings: output_dir=DIR names the folder of all runs, and "
    "sweep slurm=plain submits runs to SLURM"
)


def setting_keys(node: Any, prefix: str = "") -> Iterator[str]:
    """The dotted key of every setting and of every group of settings."""
    for field in fields(node):
        yield f"{prefix}{field.name}"
        if is_dataclass(value := getattr(node, field.name)):
            yield from setting_keys(value, f"{prefix}{field.name}.")


def parse_overrides(arguments: list[str]) -> tuple[list[Override], list[str]]:
    """The overrides among the arguments, and a message for each argument that is not one.

    debug=null and ~debug are skipped: null is the default, and Hydra rejects it as the name in a
    group.
    """
    overrides, errors = [], []
    parser = OverridesParser.create()
    for argument in arguments:
        try:
            override = parser.parse_override(argument)
        except HydraException:
            hint = ""
            if argument.endswith(ALL_SUFFIXES) and "=" not in argument:
                hint = f"; a file of rows: data=auto data.path={argument}"
            elif "=" in argument:
                key, _, value = argument.partition("=")
                hint = f"; quote a value with special signs: '{key}=\"{value}\"'"
            errors.append(f"{argument}: not of the form KEY=VALUE{hint}")
            continue
        if override.key_or_group in LISTS_OF_NAMES and isinstance(override.value(), str):
            names = "" if argument == "report_to=none" else override.value()
            override = parser.parse_override(f"{override.key_or_group}=[{names}]")
        is_null = override.is_delete() or override.value() is None
        if override.key_or_group != "debug" or not is_null:
            overrides.append(override)
    return overrides, errors


def override_problem(override: Override, typed: DictConfig) -> str | None:
    """What is wrong with one override, or None. The type check writes its value to `typed`."""
    key, text = override.key_or_group, override.input_line or ""
    if override.is_sweep_override():
        values = text.partition("=")[2]
        hint = f"; write {key}=[{values}]" if key in LISTS_OF_NAMES else SWEEP_HINT
        return f"{text}: a run takes one value per setting{hint}"
    if override.is_hydra_override():
        return f"{text}: {HYDRA_HINT}"
    if key in config_groups():
        name, names = override.value(), config_groups()[key]
        if name in names:
            return None
        if not isinstance(name, str):
            return f"{text}: {key} must be one of: {', '.join(names)}"
        return f"{text}: there is no {key} of that name{did_you_mean(name, names)}"
    if key.startswith(OPEN_KEYS):
        return None
    if new_key := renamed()["keys"].get(key):
        value = text.partition("=")[2]
        value = renamed()["values"].get(new_key, {}).get(value, value)
        return f"{text}: was renamed; write {new_key}={value}"
    keys = list(setting_keys(RunConfig()))
    if key not in keys:
        return f"{text}: there is no setting {key}{did_you_mean(key, [*keys, *config_groups()])}"
    if override.is_delete():
        return f"{text}: every setting has a value; write {key}=VALUE"
    if override.is_add():
        return f"{text}: {key} exists already; write {key}=VALUE"
    if is_dataclass(attrgetter(key)(RunConfig())):
        return f"{text}: {key} is a group of settings; set one of its keys"
    value = override.value()
    if isinstance(value, str) and (new := renamed()["values"].get(key, {}).get(value)):
        return f"{text}: was renamed; write {key}={new}"
    try:
        OmegaConf.update(typed, key, value)
    except OmegaConfBaseException as error:
        return f"{text}: {str(error).strip().splitlines()[0]}"
    return None


def compose_config(arguments: list[str]) -> DictConfig:
    """The composed settings of a command line. Raises ConfigError with every problem in it."""
    overrides, errors = parse_overrides(arguments)
    typed = OmegaConf.structured(RunConfig)
    valid = []
    by_key = {override.key_or_group: override for override in overrides}
    if "model.name" in by_key and "model" not in by_key:
        # The group `model` defaults to tiny, whose settings do not suit any other model.
        is_group_name = by_key["model.name"].value() in config_groups()["model"]
        valid += [] if is_group_name else ["model=any"]
    for override in overrides:
        if problem := override_problem(override, typed):
            errors.append(problem)
        else:
            valid.append(override.input_line or "")
    try:
        ConfigStore.instance().store("schema", RunConfig)
        _, *extra = config_folders()
        search = [f"hydra.searchpath=[{', '.join(f'file://{folder}' for folder in extra)}]"]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            job = compose("run", [*search, *valid], return_hydra_config=True)
        recipe = job.hydra.runtime.choices["recipe"]
        with open_dict(job):
            del job["hydra"]
        job.recipe = recipe
        errors += problems(OmegaConf.to_object(job))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError([*errors, str(error).strip().splitlines()[0]]) from error
    if errors:
        raise ConfigError(list(dict.fromkeys(errors)))
    return job


def file_keys(group: str, name: str) -> Iterator[str]:
    """The dotted keys that a file of a group sets, beginning with those of its defaults."""
    paths = [folder / group / f"{name}.yaml" for folder in config_folders()]
    path = next(path for path in paths if path.is_file())
    is_global = path.read_text().startswith("# @package _global_")
    return node_keys(OmegaConf.load(path), "" if is_global else f"{group}.")


def node_keys(node: Any, prefix: str) -> Iterator[str]:
    """The dotted keys that are set in one mapping of a file under conf/."""
    for default in node.get("defaults", []):  # such as {"override /difficulty": "rap"}
        (group, name), *_ = default.items()
        yield from file_keys(group.removeprefix("override").strip(" /"), name)
    for key, value in node.items():
        if isinstance(value, DictConfig):
            yield from node_keys(value, f"{prefix}{key}.")
        elif key != "defaults":
            yield f"{prefix}{key}"


def recipe_settings(config: RunConfig) -> list[str]:
    """KEY=VALUE for each key that the recipe's file sets, with the value it has in this run."""
    keys = file_keys("recipe", config.recipe)
    return [f"{key}={format_value(attrgetter(key)(config))}" for key in keys]
