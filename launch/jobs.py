"""The runs of a sweep: recipe x difficulty x data x seed, each composed before any is started."""

import json
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path

from omegaconf import OmegaConf

from difftrain.config import run_config
from difftrain.config.run_config import ConfigError, RunConfig
from difftrain.model import checkpoint_files
from difftrain.pipeline.paths import Places
from difftrain.report.comparison import agreement
from difftrain.report.comparison.rows import KNOWN, ROWS, row_of
from difftrain.report.comparison.runs import Run
from launch.words import parsed, read, recipe_difference, wrong_with

AXES = ("recipe", "difficulty", "data", "seed")
"""What a sweep runs over, the slowest first; every other setting is the same for all its runs."""


@dataclass(frozen=True, slots=True)
class Table:
    """A named set of rows, with settings that the command line may override."""

    recipes: tuple[str, ...]
    seeds: tuple[str, ...]
    words: tuple[str, ...] = ()
    on_all_cores: bool = False


NO_TABLE = Table((), ("1",))
PAPER_ROWS = tuple(row.recipe for row in ROWS)
TABLES = {
    "paper": Table(PAPER_ROWS, ("1",)),
    "shapes": Table(
        PAPER_ROWS, ("1", "2"), ("grpo.max_steps=20", "sft.max_steps=20"), on_all_cores=True
    ),
}
"""paper: the twelve rows, as one's own settings have them. shapes: the same on the embedded world
with few steps, two seeds, as many runs at a time as fit."""


REMEDY = "; a file of your own, conf/recipe/NAME.yaml, is a row with a name of its own"
"""What to do where a known row is to choose otherwise."""
FOUND: dict[str, Places] = {}
"""By settings of data and model: the places whose identities have been found, which may mean to
read files or to ask the hub."""


@dataclass(frozen=True)
class Job:
    """One run: what its log is called, the words of its command line, and its settings."""

    label: str
    words: tuple[str, ...]
    config: RunConfig

    @cached_property
    def places(self) -> Places:
        """Where its stages lie. What data and model are is found out once for all runs alike."""
        places, config = Places(self.config), self.config
        own = [run_config.plain(config.data), run_config.plain(config.model), config.output_dir]
        known = FOUND.setdefault(json.dumps(own, sort_keys=True, default=str), places)
        places.__dict__.update(data=known.data, model=known.model)
        return places

    def is_finished(self) -> bool:
        """Whether its report and a whole checkpoint are there. No model is loaded for that."""
        run = self.places.run
        return (run / "report.json").is_file() and checkpoint_files.lacking(
            run / "checkpoint"
        ) is None

    @property
    def shared(self) -> str:
        """What it shares with other runs: equal where two ask the same model the same."""
        config = self.config
        own = [config.data, config.model, config.probe, config.grade]
        return json.dumps([*map(run_config.plain, own), config.seed], sort_keys=True, default=str)


def filled(axes: dict[str, list[str]], table: Table) -> dict[str, list[str]]:
    """The values of each axis that is swept over, in the axes' order."""
    own = {"recipe": list(table.recipes), "seed": list(table.seeds)} | axes
    return {axis: own[axis] for axis in AXES if own.get(axis)}


def jobs(axes: dict[str, list[str]], table: Table, words: list[str]) -> list[Job]:
    """Every run of a sweep, those that make a shared stage first.

    Raises ConfigError with the problems of all of them, each with the runs that have it.
    """
    early_problems(axes, words)
    given = {word.lstrip("+").partition("=")[0] for word in words}
    beside = [word for word in table.words if word.partition("=")[0] not in given]
    found, wrong = [], {}
    for combination in product(*(values for axis, values in axes.items() if axis != "seed")):
        chosen = [f"{axis}={value}" for axis, value in zip(axes, combination, strict=False)]
        row = row_of(combination[0])
        lone = row.recipe in KNOWN and row.chooses and row.control not in axes["recipe"]
        own = ["control=random"] if lone and "control" not in given else []
        try:
            found += with_seeds([*chosen, *own, *beside, *words], combination, axes["seed"])
        except ConfigError as error:
            for problem in error.found:
                wrong.setdefault(problem, []).append("-".join(combination))
    if wrong:
        raise ConfigError([f"{told}{of_runs(names, axes)}" for told, names in wrong.items()])
    return in_order(found)


def early_problems(axes: dict[str, list[str]], words: list[str]) -> None:
    """Look at each value of each axis, and compose the first run, before all are composed."""
    typed = OmegaConf.structured(RunConfig)
    every = [f"{axis}={value}" for axis, values in axes.items() for value in values]
    overrides, found = parsed(every)
    found += [told for each in overrides if (told := wrong_with(each, typed))]
    for axis, values in axes.items():
        found += [f"{axis}={value}: is named twice" for value in values if values.count(value) > 1]
    first = [f"{axis}={values[0]}" for axis, values in axes.items()]
    try:
        read([*first, *words])
    except ConfigError as error:
        found += error.found
    if found := list(dict.fromkeys(found)):
        raise ConfigError(found)


def with_seeds(words: list[str], combination: tuple[str, ...], seeds: list[str]) -> list[Job]:
    """The runs of one combination; only their seeds differ, so that it is composed once."""
    config = run_config.resolve(read([*words, f"seed={seeds[0]}"]))
    return [
        Job(
            "-".join([*combination, seed]),
            (*words, f"seed={seed}"),
            run_config.checked(replace(config, seed=int(seed))),
        )
        for seed in seeds
    ]


def not_comparable(found: list[Job], axes: dict[str, list[str]]) -> list[str]:
    """Why the sweep's table would be refused at its end: settings that may not differ in one."""
    one_seed = {job.label.rpartition("-")[0]: job.config for job in found}
    runs = [as_run(name, config) for name, config in one_seed.items()]
    wrong: dict[str, list[str]] = {}
    for name, told in agreement.disagreements(runs, agreement.unlike_settings).items():
        for each in told:
            wrong.setdefault(each, []).append(name)
    return [
        f"{told}: cannot stand in one table{of_runs(names, axes)}"
        + (REMEDY if agreement.BY_NAME in told else "")
        for told, names in wrong.items()
    ]


def as_run(name: str, config: RunConfig) -> Run:
    """What a comparison will read of a run's settings."""
    report = {
        "name": config.name,
        "train_stages": config.train_stages.value,
        "settings": json.loads(json.dumps(run_config.plain(config), default=str)),
        "recipe_difference": recipe_difference(config),
    }
    return Run(Path(name), report)


def of_runs(names: list[str], axes: dict[str, list[str]]) -> str:
    """` (all runs)` or ` (grpo_hard, rap and 3 more)`: which runs have a problem."""
    every = 1
    for axis, values in axes.items():
        every *= 1 if axis == "seed" else len(values)
    if len(names) == every:
        return ""
    rest = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return f" ({', '.join(names[:2])}{rest})"


def in_order(found: list[Job]) -> list[Job]:
    """First one run for each probe, then the others: these find it made, or wait for it."""
    firsts: dict[str, Job] = {}
    for job in found:
        firsts.setdefault(job.shared, job)
    leading = list(firsts.values())
    return [*leading, *(job for job in found if firsts[job.shared] is not job)]
