"""The samples of a run: the data stage, made once, and no model near it."""

from difftrain.config.run_config import RunConfig
from difftrain.data import stage as data_stage
from difftrain.pipeline import coordination, manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.paths import Places
from difftrain.records import Sample


def make(config: RunConfig, places: Places, world: World) -> None:
    """Write the data stage's folder if it is not there; the other processes wait for the first."""
    if world.is_first and manifest.read_manifest(places.data) is None:
        alone = World()
        with (
            coordination.report_failure(places.data, world),
            coordination.stage_lock(places.data, alone),
        ):
            if manifest.read_manifest(places.data) is None:
                data_stage.make(config.data, places.data)
    coordination.wait_for_manifest(places.data, world)


def samples(config: RunConfig, places: Places, world: World) -> list[Sample]:
    """Every usable row as a Sample; the others are in quarantine.jsonl with their reasons."""
    make(config, places, world)
    return parquet.read(places.data, Sample)
