"""GRPO on chosen strata, with no supervised warm-up (P, section 4, "GRPO-only")."""

from pathlib import Path

from difftrain.config.run_config import RunConfig
from difftrain.pipeline import parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.paths import Places
from difftrain.records import Sample, Score, Selection
from difftrain.train import grpo
from difftrain.train.dataset import TrainData, held_out, selected
from difftrain.train.trl_args import TrainJob


def run(
    config: RunConfig, places: Places, world: World, arm: str, start: Path | None = None
) -> Path:
    """Train one arm, from the checkpoint `start` if there is one; returns its checkpoint."""
    # 4.1  The row's samples: the strata it keeps, or a random control of the same size.
    pool = parquet.read(places.data, Sample)
    picks = parquet.read(places.select(arm), Selection)
    seen = [pick for folder in places.picked(arm) for pick in parquet.read(folder, Selection)]
    data = TrainData(
        samples=selected(pool, picks),
        eval_samples=held_out(pool, seen, config.grpo.eval_samples),
        strata={
            score.sample_id: score.stratum
            for score in parquet.read(places.score, Score)
            if score.measure is config.difficulty.measure and score.stratum is not None
        },
    )

    # 4.2  Reward: the right answer, by the very grader the probe used; then the right tags.
    # 4.3  Group-relative policy optimisation. Below this line it is TRL's loop, not ours.
    origin = places.start(arm)
    job = TrainJob(
        folder=places.train(arm),
        world=world,
        title=f"grpo {arm}",
        model=config.model,
        data=config.data,
        seed=config.seed,
        start=start,
        inputs={
            "select": places.select(arm).name,
            "model": origin if isinstance(origin, str) else origin.name,
        },
    )
    return grpo.fit(job, config.grpo, config.grade, data)
