"""Training on what is evaluated may never happen: a check before the first step (section 5)."""

from difftrain.config.run_config import RunConfig
from difftrain.evaluate import contamination
from difftrain.images import PixelBudget
from difftrain.pipeline import parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.paths import Places
from difftrain.records import Sample


def check(config: RunConfig, places: Places, world: World, arms: list[str]) -> None:
    """Compare every sample with the benchmarks at hand; see contamination.check."""
    contamination.check(
        parquet.read(places.data, Sample),
        [folder for arm in arms for folder in places.picked(arm)],
        places.contamination,
        config.evaluate,
        PixelBudget(config.data.min_pixels, config.data.max_pixels),
        world,
    )
