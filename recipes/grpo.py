"""GRPO on chosen strata, with no supervised warm-up (P, section 4, "GRPO-only")."""

from pathlib import Path

from difftrain import artefacts
from difftrain.places import Places
from difftrain.records import Pick, Sample
from difftrain.settings import RunConfig
from difftrain.train import grpo
from difftrain.train.dataset import chosen
from difftrain.world import World


def run(config: RunConfig, places: Places, world: World, arm: str) -> Path:
    """Train one arm; returns its checkpoint."""
    # 4.1  The row's samples: the strata it keeps, or a random control of the same size.
    samples = chosen(artefacts.read(places.data, Sample), artefacts.read(places.select(arm), Pick))

    # 4.2  Reward: the right answer, by the very grader the probe used; then the right tags.
    # 4.3  Group-relative policy optimisation. Below this line it is TRL's loop, not ours.
    inputs = {"select": places.select(arm).name, "model": places.model}
    return grpo.fit(config, samples, places.train(arm), world, f"grpo {arm}", inputs)
