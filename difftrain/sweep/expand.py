"""The runs of a sweep: recipe x difficulty x data x seed, each composed before any is started."""

import json
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import product
from math import prod
from pathlib import Path

from omegaconf import OmegaConf

from difftrain.cli.overrides import (
    compose_config,
    override_problem,
    parse_overrides,
    recipe_settings,
)
from difftrain.config import run_config
from difftrain.config.run_config import ConfigError, RunConfig
from difftrain.model import resolve
from difftrain.pipeline.paths import RunPaths
from difftrain.report.compare import presets
from difftrain.report.compare.runs import BY_NAME, Run, differing_settings, find_incompatible

AXES = ("recipe", "difficulty", "data", "seed")  # what a sweep runs over, the slowest first


@dataclass(frozen=True, slots=True)
class SweepTable:
    """A named set of rows, with overrides that yield to those of the command line."""

    recipes: tuple[str, ...] = ()
    seeds: tuple[str, ...] = ("1",)
    overrides: tuple[str, ...] = ()
    uses_all_cores: bool = False


PAPER_ROWS = tuple(row.recipe for row in presets.PAPER_ROWS)
TABLES = {
    "paper": SweepTable(PAPER_ROWS),
    "shapes": SweepTable(
        PAPER_ROWS, ("1", "2"), ("grpo.max_steps=20", "sft.max_steps=20"), uses_all_cores=True
    ),
}
"""paper: the twelve rows under the user's settings. shapes: the same on the embedded world with few
steps, two seeds, as many runs at a time as fit."""
RESOLVED_PATHS: dict[str, RunPaths] = {}
"""By data and model settings: paths with resolved identities; that may read files, ask the hub."""


@dataclass(frozen=True)
class SweepRun:
    """One run: the label that names its log, the overrides of its command line, its settings."""

    label: str
    overrides: tuple[str, ...]
    config: RunConfig

    @cached_property
    def paths(self) -> RunPaths:
        """The folders of its stages. Identities of equal data and model are resolved once."""
        paths, config = RunPaths(self.config), self.config
        key = [asdict(config.data), asdict(config.model), config.output_dir]
        resolved = RESOLVED_PATHS.setdefault(json.dumps(key, sort_keys=True, default=str), paths)
        paths.__dict__.update(data=resolved.data, model=resolved.model)
        return paths

    def is_finished(self) -> bool:
        """Whether its report and a complete checkpoint exist. Loads no model."""
        folder = self.paths.run
        missing = resolve.missing_part(folder / "checkpoint")
        return (folder / "report.json").is_file() and missing is None

    @property
    def probe_key(self) -> str:
        """Equal for runs that probe the same model on the same data under the same settings."""
        sections = (self.config.data, self.config.model, self.config.probe, self.config.grade)
        key = [*map(asdict, sections), self.config.seed]
        return json.dumps(key, sort_keys=True, default=str)


def sweep_axes(given: dict[str, list[str]], table: SweepTable) -> dict[str, list[str]]:
    """The values of each axis of the sweep, in the order of AXES."""
    values = {"recipe": list(table.recipes), "seed": list(table.seeds)} | given
    return {axis: values[axis] for axis in AXES if values.get(axis)}


def expand(axes: dict[str, list[str]], table: SweepTable, overrides: list[str]) -> list[SweepRun]:
    """Every run of a sweep, those that make a shared stage first.

    Raises ConfigError with the problems of all of them, each with the runs that have it.
    """
    _check_axes(axes, overrides)
    keys = {override.lstrip("+").partition("=")[0] for override in overrides}
    defaults = [text for text in table.overrides if text.partition("=")[0] not in keys]
    runs: list[SweepRun] = []
    errors = defaultdict(list)  # by problem, the runs that have it
    for values in product(*(axes[axis] for axis in axes if axis != "seed")):
        choices = [f"{axis}={value}" for axis, value in zip(axes, values, strict=False)]
        row = presets.PRESETS.get(values[0])
        lacks_control = row is not None and row.selects and row.control not in axes["recipe"]
        control = ["control=random"] if lacks_control and "control" not in keys else []
        arguments = [*choices, *control, *defaults, *overrides]
        try:
            # Runs of one combination differ only in their seeds, so it is composed once.
            config = run_config.resolve(compose_config([*arguments, f"seed={axes['seed'][0]}"]))
            for seed in axes["seed"]:
                with_seed = run_config.require_valid(replace(config, seed=int(seed)))
                label = "-".join([*values, seed])
                runs.append(SweepRun(label, (*arguments, f"seed={seed}"), with_seed))
        except ConfigError as error:
            for problem in error.problems:
                errors[problem].append("-".join(values))
    if errors:
        raise ConfigError([f"{text}{_which_runs(names, axes)}" for text, names in errors.items()])
    return probe_makers_first(runs)


def _check_axes(axes: dict[str, list[str]], overrides: list[str]) -> None:
    """Check each value of each axis, and compose the first run, before all are composed.

    Raises ConfigError with every problem.
    """
    typed = OmegaConf.structured(RunConfig)
    choices = [f"{axis}={value}" for axis, values in axes.items() for value in values]
    parsed, errors = parse_overrides(choices)
    errors += [text for override in parsed if (text := override_problem(override, typed))]
    for axis, values in axes.items():
        errors += [f"{axis}={value}: is named twice" for value in values if values.count(value) > 1]
    try:
        compose_config([*(f"{axis}={values[0]}" for axis, values in axes.items()), *overrides])
    except ConfigError as error:
        errors += error.problems
    if errors:
        raise ConfigError(list(dict.fromkeys(errors)))


def table_problems(runs: list[SweepRun], axes: dict[str, list[str]]) -> list[str]:
    """Why the table at the sweep's end would be refused: settings that may not differ within it."""
    compared = []
    for name, config in {run.label.rpartition("-")[0]: run.config for run in runs}.items():
        report = {  # what the comparison reads of it
            "name": config.name,
            "train_stages": config.train_stages.value,
            "settings": json.loads(json.dumps(asdict(config), default=str)),
            "recipe_difference": recipe_settings(config),
        }
        compared.append(Run(Path(name), report))
    errors = defaultdict(list)
    for name, differences in find_incompatible(compared, differing_settings).items():
        for difference in differences:
            errors[difference].append(name)
    hint = "; for another selection add a recipe of your own, conf/recipe/NAME.yaml"
    return [
        f"{text}: cannot stand in one table{_which_runs(names, axes)}"
        + (hint if BY_NAME in text else "")
        for text, names in errors.items()
    ]


def _which_runs(names: list[str], axes: dict[str, list[str]]) -> str:
    """` (grpo_hard, rap and 3 more)`: the runs that have a problem; empty if all have it."""
    if len(names) == prod(len(values) for axis, values in axes.items() if axis != "seed"):
        return ""
    rest = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return f" ({', '.join(names[:2])}{rest})"


def probe_makers_first(runs: list[SweepRun]) -> list[SweepRun]:
    """First one run for each probe, then the others, which find it finished or wait for it."""
    makers: dict[str, SweepRun] = {}
    for run in runs:
        makers.setdefault(run.probe_key, run)
    return [*makers.values(), *(run for run in runs if makers[run.probe_key] is not run)]
