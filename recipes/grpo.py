"""GRPO on chosen strata, with no supervised warm-up (P, section 4, "GRPO-only")."""

from pathlib import Path

from difftrain.config.run_config import RunConfig
from difftrain.pipeline import parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.paths import Places
from difftrain.records import Sample, Score, Selection
from difftrain.train import grpo
from difftrain.train.dataset import Material, chosen, left_over


def run(config: RunConfig, places: Places, world: World, arm: str) -> Path:
    """Train one arm; returns its checkpoint."""
    # 4.1  The row's samples: the strata it keeps, or a random control of the same size.
    pool = parquet.read(places.data, Sample)
    picks = parquet.read(places.select(arm), Selection)
    seen = [pick for folder in places.picked(arm) for pick in parquet.read(folder, Selection)]
    material = Material(
        samples=chosen(pool, picks),
        held_out=left_over(pool, seen, config.grpo.eval_samples),
        strata={
            score.sample_id: score.stratum
            for score in parquet.read(places.score, Score)
            if score.measure is config.difficulty.measure and score.stratum is not None
        },
    )

    # 4.2  Reward: the right answer, by the very grader the probe used; then the right tags.
    # 4.3  Group-relative policy optimisation. Below this line it is TRL's loop, not ours.
    start = places.start(arm)
    inputs = {
        "select": places.select(arm).name,
        "model": start if isinstance(start, str) else start.name,
    }
    return grpo.fit(config, material, places.train(arm), world, f"grpo {arm}", inputs)
