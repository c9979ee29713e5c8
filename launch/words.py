"""From the words of a command line to checked settings, or to every mistake in them at once.

Hydra composes; each override is first held against the settings tree by itself.
"""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from difftrain.config.run_config import ConfigError, RunConfig, problems, shown

CONF = Path(__file__).resolve().parent.parent / "conf"
MAY_BE_NULL = ("debug",)
"""Groups of which none may be chosen; Hydra itself takes no null for a group."""
OPEN_KEYS = ("grpo.trl.", "sft.trl.", "model.server.extra.")
"""Below these keys TRL's and a server's own names are allowed, with a plus before them."""


def groups() -> dict[str, list[str]]:
    """The config groups and the names in each."""
    return {
        folder.name: sorted(path.stem for path in folder.glob("*.yaml"))
        for folder in sorted(CONF.iterdir())
        if folder.is_dir()
    }


def setting_keys(node: Any, prefix: str = "") -> Iterator[str]:
    """Every dotted key of the settings tree, leaves and branches."""
    for field in fields(node):
        yield f"{prefix}{field.name}"
        if is_dataclass(value := getattr(node, field.name)):
            yield from setting_keys(value, f"{prefix}{field.name}.")


def nearest(word: str, words: list[str]) -> str:
    """A hint with the nearest right spelling, if one is near."""
    near = get_close_matches(word, words, 1, 0.6)
    if not near and "." in word:
        tails = {each.rsplit(".", 1)[-1]: each for each in words}
        near = [tails[each] for each in get_close_matches(word.rsplit(".", 1)[-1], list(tails), 1)]
    return f"; did you mean {near[0]}?" if near else ""


def first_line(error: Exception) -> str:
    """The first line of a library's message, which says what is wrong."""
    return str(error).strip().splitlines()[0]


def wrong_with(override: Override, typed: DictConfig) -> str | None:
    """What is wrong with one override, taken by itself; None if nothing is."""
    key, shown = override.key_or_group, override.input_line or ""
    known = groups()
    if override.is_sweep_override():
        return f"{shown}: one run has one value; run other seeds with seed=N"
    if key in known:
        name = override.value()
        if name in known[key] or is_none_of_them(override):
            return None
        if not isinstance(name, str):
            return f"{shown}: {key} needs one of {', '.join(known[key])}"
        return f"{shown}: there is no {key} of that name{nearest(str(name), known[key])}"
    if key.startswith(OPEN_KEYS):
        return None
    keys = list(setting_keys(RunConfig()))
    if key not in keys:
        hint = nearest(key, [*keys, *known])
        return f"{shown}: there is no setting {key}{hint}"
    if override.is_add() or override.is_delete():
        return f"{shown}: {key} exists already; write {key}=VALUE"
    if is_dataclass(getattr_path(RunConfig(), key)):
        return f"{shown}: {key} is a group of settings; set one of its keys"
    try:
        OmegaConf.update(typed, key, override.value())
    except OmegaConfBaseException as error:
        return f"{shown}: {first_line(error)}"
    return None


def is_none_of_them(override: Override) -> bool:
    """Whether this chooses none of a group that may be left out, which is what happens anyway."""
    return override.key_or_group in MAY_BE_NULL and override.value() is None


def getattr_path(node: Any, key: str) -> Any:
    """The value at a dotted key of the settings tree."""
    for part in key.split("."):
        node = getattr(node, part)
    return node


def parsed(words: list[str]) -> tuple[list[Override], list[str]]:
    """The words that are overrides, and a problem for each that is not."""
    good, bad = [], []
    parser = OverridesParser.create()
    for word in words:
        try:
            good.append(parser.parse_override(word))
        except HydraException:
            bad.append(f"{word}: not of the form KEY=VALUE")
    return good, bad


def composed(words: list[str]) -> DictConfig:
    """The composed settings with the recipe's name in them."""
    ConfigStore.instance().store("schema", RunConfig)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        job = compose("run", words, return_hydra_config=True)
    recipe = job.hydra.runtime.choices["recipe"]
    with open_dict(job):
        del job["hydra"]
    job.recipe = recipe
    return job


def own_model(overrides: list[Override]) -> list[str]:
    """`model=any` where a model is named but no group: the default group is the tiny model's."""
    given = {each.key_or_group: each for each in overrides}
    if "model.name" not in given or "model" in given:
        return []
    return [] if given["model.name"].value() in groups()["model"] else ["model=any"]


def read(words: list[str]) -> DictConfig:
    """The composed settings of a command line. Raises ConfigError with every problem in it."""
    overrides, found = parsed(words)
    typed = OmegaConf.structured(RunConfig)
    good = []
    for override in overrides:
        if trouble := wrong_with(override, typed):
            found.append(trouble)
        elif not is_none_of_them(override):
            good.append(override.input_line or "")
    try:
        job = composed([*own_model(overrides), *good])
        found += problems(OmegaConf.to_object(job))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError([*found, first_line(error)]) from error
    if found:
        raise ConfigError(list(dict.fromkeys(found)))
    return job


def leaves(node: Any, prefix: str = "") -> Iterator[str]:
    """The dotted keys that a group's file sets; those of a group it chooses come first."""
    for choice in node.get("defaults", []):
        (group, name), *_ = choice.items()
        yield from file_keys(group.removeprefix("override").strip(" /"), name)
    for key, value in node.items():
        if isinstance(value, DictConfig):
            yield from leaves(value, f"{prefix}{key}.")
        elif key != "defaults":
            yield f"{prefix}{key}"


def file_keys(group: str, name: str) -> Iterator[str]:
    """The dotted keys that conf/<group>/<name>.yaml sets."""
    path = CONF / group / f"{name}.yaml"
    everywhere = path.read_text().startswith("# @package _global_")
    return leaves(OmegaConf.load(path), "" if everywhere else f"{group}.")


def recipe_difference(config: RunConfig) -> list[str]:
    """The keys that the recipe's file sets, with this run's values: what makes the row that row."""
    keys = file_keys("recipe", config.recipe)
    return [f"{key}={shown(getattr_path(config, key))}" for key in keys]
