"""Training on what is evaluated may never happen: a check before the first step (section 5)."""

from difftrain.config.evaluate import ContaminationPolicy
from difftrain.config.run_config import ConfigError, RunConfig
from difftrain.evaluate import contamination
from difftrain.images import PixelBudget
from difftrain.pipeline import parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.paths import Places
from difftrain.records import Sample, Selection

SHOWN = 20
"""Hits that are named in the message; contamination.json has all."""


def check(config: RunConfig, places: Places, world: World, arms: list[str]) -> None:
    """Hold every sample against the benchmarks at hand.

    Raises ConfigError if one that an arm would train on is in a benchmark too, unless the settings
    say that this is only told.
    """
    budget = PixelBudget(config.data.min_pixels, config.data.max_pixels)
    samples = parquet.read(places.data, Sample)
    contamination.run(samples, places.contamination, config.evaluate, budget, world)
    if config.evaluate.contamination is ContaminationPolicy.warn:
        return
    folders = [folder for arm in arms for folder in places.picked(arm)]
    picked = {pick.sample_id for folder in folders for pick in parquet.read(folder, Selection)}
    hits = contamination.trained_on(places.contamination, picked)
    if hits:
        rest = f", and {len(hits) - SHOWN} more" if len(hits) > SHOWN else ""
        named = ", ".join(map(contamination.told, hits[:SHOWN]))
        told = (
            f"evaluate.contamination=error: {len(hits)} of {len(picked)} samples to train on "
            f"are in benchmarks too: {named}{rest}; all: "
            f"{places.contamination / contamination.FOUND}. Take them out of the data, or have "
            "them listed in the report with evaluate.contamination=warn"
        )
        raise ConfigError([told])
