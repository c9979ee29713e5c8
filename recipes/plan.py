"""What a run would do, before it does it: its settings, and whether the model is fit for it."""

from itertools import islice
from pathlib import Path

from difftrain import lineage, settings
from difftrain.data import load
from difftrain.places import Places
from difftrain.records import Sample
from difftrain.settings import RunConfig, shown
from difftrain.train.ticks import table
from difftrain.world import World
from recipes import preflight
from recipes.asking import Asking

ROWS = 256
"""Rows looked at for samples that can be used; the whole pool is not read."""


def show(config: RunConfig, world: World, difference: list[str]) -> Path:
    """Print the resolved settings; returns the plan's folder, where they are written too."""
    folder = Places(config).run
    folder = folder.parent.parent / "plan" / folder.name
    told = settings.plain(config)
    if world.is_first:
        print("\n".join(lines(told)))
        print("\nwhat makes this row this row: " + (", ".join(difference) or "nothing"))
        lineage.write_json(folder / "settings.json", told)
    return folder


def lines(node: dict, prefix: str = "") -> list[str]:
    """Every setting as `full.key=value`, as one would type it."""
    found = []
    for key, value in node.items():
        if isinstance(value, dict) and value:
            found += lines(value, f"{prefix}{key}.")
        else:
            found.append(f"{prefix}{key}={shown(value)}")
    return found


def check_model(config: RunConfig, world: World, difference: list[str]) -> Path:
    """The settings, then eight ticks on four samples. Raises PreflightFailed."""
    folder = show(config, world, difference)
    if world.is_first:
        rows = islice(load.samples(config.data), ROWS)
        samples = [row for row in rows if isinstance(row, Sample)]
        print()
        found = preflight.check(config, samples, Asking(config), folder / "preflight")
        (folder / "preflight.txt").write_text(table(found) + "\n")
    return folder
