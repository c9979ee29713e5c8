"""The samples of a run: the data stage, made once, and no model near it."""

from difftrain.config.run_config import RunConfig
from difftrain.data.build import build_dataset
from difftrain.pipeline import parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.paths import RunPaths
from difftrain.records import Sample


def make(config: RunConfig, places: RunPaths, world: World) -> None:
    """Write the data stage's folder if it is not there; the other processes wait for the first."""
    build_dataset(config.data, places.data, world)


def samples(config: RunConfig, places: RunPaths, world: World) -> list[Sample]:
    """Every usable row as a Sample; the others are in quarantine.jsonl with their reasons."""
    make(config, places, world)
    return parquet.read(places.data, Sample)
