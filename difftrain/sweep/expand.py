"""Expand a sweep into its runs: all combinations of recipe, difficulty, data and seed."""

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
from difftrain.pipeline.paths import RunPaths, round_paths
from difftrain.report.compare import presets
from difftrain.report.compare.runs import NAME_CONFLICT, Run, differing_settings, find_incompatible

AXES = ("recipe", "difficulty", "data", "seed")  # the settings that a sweep varies


@dataclass(frozen=True, slots=True)
class SweepTable:
    """The recipes, seeds and overrides of a named sweep; the command line may replace them."""

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
    "rap": SweepTable(
        tuple(presets.RAP_TITLES),
        overrides=("difficulty=rap", "evaluate.benchmarks=[shapes/rap]"),
    ),
}
"""paper: the twelve rows of Qi et al. 2026, with the user's settings. shapes: the same rows on
generated images of shapes, with few steps and two seeds, in as many parallel runs as fit. rap:
Table 1 of RAP and its ablation; all rows share one probe, and the miniatures of RAP's six
benchmarks are the default."""
RESOLVED_PATHS: dict[str, RunPaths] = {}
"""Paths by settings of data and model. Reading their fingerprints is slow, so it is done once."""


@dataclass(frozen=True)
class SweepRun:
    """One run: its label (the name of its log), its overrides on the command line, its settings."""

    label: str
    overrides: tuple[str, ...]
    config: RunConfig

    @cached_property
    def paths(self) -> RunPaths:
        """The folders of its stages, in the last round. Runs with the same data and model read them
        only once."""
        rounds, config = round_paths(self.config), self.config
        key = [asdict(config.data), asdict(config.model), config.output_dir]
        key = json.dumps(key, sort_keys=True, default=str)
        resolved = RESOLVED_PATHS.setdefault(key, rounds[0])
        for paths in rounds:  # data and model are cached properties
            paths.__dict__.update(data=resolved.data, model=resolved.model)
        return rounds[-1]

    def is_finished(self) -> bool:
        """Whether the run's report and a complete checkpoint exist. Loads no model."""
        folder = self.paths.run
        missing = resolve.missing_part(folder / "checkpoint")
        return (folder / "report.json").is_file() and missing is None

    @property
    def probe_key(self) -> str:
        """Equal for runs that share a probe, the generated responses that measure difficulty."""
        sections = (self.config.data, self.config.model, self.config.probe, self.config.grade)
        key = [*map(asdict, sections), self.config.seed]
        return json.dumps(key, sort_keys=True, default=str)


def sweep_axes(from_command_line: dict[str, list[str]], table: SweepTable) -> dict[str, list[str]]:
    """The values of each axis, in the order of AXES. The command line replaces the table's."""
    values = {"recipe": list(table.recipes), "seed": list(table.seeds)} | from_command_line
    return {axis: values[axis] for axis in AXES if values.get(axis)}


def expand(axes: dict[str, list[str]], table: SweepTable, overrides: list[str]) -> list[SweepRun]:
    """All runs of a sweep, first one run for each probe, then the runs that share its responses.

    Raises ConfigError with the problems of all runs; each message names the runs that have it.
    """
    _check_axes(axes, overrides)
    set_keys = {override.lstrip("+").partition("=")[0] for override in overrides} | axes.keys()
    defaults = [text for text in table.overrides if text.partition("=")[0] not in set_keys]
    runs: list[SweepRun] = []
    runs_by_problem = defaultdict(list)
    for values in product(*(axes[axis] for axis in axes if axis != "seed")):  # seed is last
        axis_overrides = [f"{axis}={value}" for axis, value in zip(axes, values, strict=False)]
        row = presets.PRESETS.get(values[0])  # the recipe is the first of AXES
        lacks_control = row is not None and row.selects and row.control not in axes["recipe"]
        control = ["control=random"] if lacks_control and "control" not in set_keys else []
        arguments = [*axis_overrides, *control, *defaults, *overrides]
        try:
            # Runs that differ only in their seeds are composed once.
            config = run_config.resolve(compose_config([*arguments, f"seed={axes['seed'][0]}"]))
            for seed in axes["seed"]:
                with_seed = run_config.require_valid(replace(config, seed=int(seed)))
                label = "-".join([*values, seed])
                runs.append(SweepRun(label, (*arguments, f"seed={seed}"), with_seed))
        except ConfigError as error:
            for problem in error.problems:
                runs_by_problem[problem].append("-".join(values))
    if problems := runs_by_problem.items():
        raise ConfigError([f"{text}{_which_runs(names, axes)}" for text, names in problems])
    return one_run_per_probe_first(runs)


def _check_axes(axes: dict[str, list[str]], overrides: list[str]) -> None:
    """Raises ConfigError for bad values of the axes and for problems of the first run."""
    typed = OmegaConf.structured(RunConfig)
    axis_overrides = [f"{axis}={value}" for axis, values in axes.items() for value in values]
    parsed, errors = parse_overrides(axis_overrides)
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
    """Settings that differ between runs but must be equal in one table. Seeds are not compared."""
    compared = []  # one entry for each label without its seed
    for name, config in {run.label.rpartition("-")[0]: run.config for run in runs}.items():
        report = {  # the parts of a report that the comparison reads
            "name": config.name,
            "train_stages": config.train_stages.value,
            "settings": json.loads(json.dumps(asdict(config), default=str)),
            "recipe_difference": recipe_settings(config),
        }
        compared.append(Run(Path(name), report))  # the label instead of a folder
    runs_by_difference = defaultdict(list)
    for name, differences in find_incompatible(compared, differing_settings).items():
        for difference in differences:
            runs_by_difference[difference].append(name)
    hint = "; to select differently, add a recipe of your own, conf/recipe/NAME.yaml"
    return [
        f"{text}: cannot be compared in one table{_which_runs(names, axes)}"
        + (hint if NAME_CONFLICT in text else "")
        for text, names in runs_by_difference.items()
    ]


def _which_runs(names: list[str], axes: dict[str, list[str]]) -> str:
    """` (grpo_hard, rap and 3 more)`: the runs that have a problem; empty if all have it."""
    num_combinations = prod(len(values) for axis, values in axes.items() if axis != "seed")
    if len(names) == num_combinations:
        return ""
    rest = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return f" ({', '.join(names[:2])}{rest})"


def one_run_per_probe_first(runs: list[SweepRun]) -> list[SweepRun]:
    """First one run for each probe, then the other runs, which use the responses of the first."""
    first_runs: dict[str, SweepRun] = {}
    for run in runs:
        first_runs.setdefault(run.probe_key, run)
    return [*first_runs.values(), *(run for run in runs if first_runs[run.probe_key] is not run)]
