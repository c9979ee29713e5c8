"""What a run would do and cost, before anything is spent. No torch: nothing is asked or loaded."""

from pathlib import Path

from difftrain.config import run_config
from difftrain.config.run_config import RunConfig, shown
from difftrain.pipeline import manifest
from difftrain.pipeline.coordination import World
from difftrain.pipeline.paths import RunPaths
from difftrain.recipes import pool, reckoning


def show(config: RunConfig, world: World, difference: list[str]) -> Path:
    """Print settings, samples, answers, tokens, hours and memory; returns the plan's folder.

    The data stage is made for it, as any run would; no model is loaded.
    """
    places = RunPaths(config)
    folder = places.run.parent.parent / "plan" / places.run.name
    pool.make(config, places, world)
    if world.is_first:
        told = run_config.plain(config)
        found = [*lines(told), "", *reckoning.estimate(config, places)]
        found += ["", "what makes this row this row: " + (", ".join(difference) or "nothing")]
        print("\n".join(found))
        manifest.write_json(folder / "settings.json", told)
        manifest.write_text(folder / "plan.txt", "\n".join(found) + "\n")
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
