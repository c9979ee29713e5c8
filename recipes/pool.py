"""The samples of a run: the data stage, made once, and no model near it."""

from difftrain import artefacts, heartbeat, lineage
from difftrain.data import stage as data_stage
from difftrain.places import Places
from difftrain.records import Sample
from difftrain.settings import RunConfig
from difftrain.world import World


def make(config: RunConfig, places: Places, world: World) -> None:
    """Write the data stage's folder if it is not there; the other processes wait for the first."""
    if world.is_first and lineage.read_made(places.data) is None:
        alone = World()
        with heartbeat.working(places.data, world), heartbeat.turn(places.data, alone):
            if lineage.read_made(places.data) is None:
                data_stage.make(config.data, places.data)
    heartbeat.made_by_first(places.data, world)


def samples(config: RunConfig, places: Places, world: World) -> list[Sample]:
    """Every usable row as a Sample; the others are in quarantine.jsonl with their reasons."""
    make(config, places, world)
    return artefacts.read(places.data, Sample)
