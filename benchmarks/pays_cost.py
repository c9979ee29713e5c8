"""What an arm of pays.py came to, and the answers and seconds of its choice and of its training.

All arms of a seed share one probe, so a choice is charged what it would have asked alone: RAP
everything; CDE all answers with and without the picture, but not the attention pass; ACE one answer
with the picture and the pass; random samples and the full pool nothing.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from difftrain.config.run_config import RunConfig
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.paths import RunPaths
from difftrain.records import ItemResult, Rollout, View


@dataclass(frozen=True, slots=True)
class Cost:
    """Generations and wall seconds of choosing and of training, and the optimizer steps."""

    choice_generations: int
    choice_seconds: float
    train_generations: int
    train_seconds: float
    steps: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to: marks and cost, or why there are none.

    `like` names another arm that chose the very same samples, so that its training is this one's.
    """

    samples: int
    cost: Cost | None = None
    marks: list[ItemResult] | None = None
    like: str | None = None
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A probe's answers: all of them, and the first one with the picture of each sample."""

    generations: int
    tokens: int
    first_generations: int
    first_tokens: int


@cache
def asked(folder: Path) -> Asked:
    """The counts of a finished probe."""
    rows = parquet.read(folder, Rollout)
    first = [each for each in rows if each.view is View.full_image and each.draw == 0]
    return Asked(
        len(rows),
        sum(each.num_tokens for each in rows),
        len(first),
        sum(each.num_tokens for each in first),
    )


def made(folder: Path) -> dict[str, Any]:
    """A finished stage's manifest.json. Raises MissingArtifact where there is none."""
    found = manifest.read_manifest(folder)
    if found is None:
        raise parquet.MissingArtifact(f"nothing finished at {folder}")
    return found


def choice(arm: str, config: RunConfig) -> tuple[int, float]:
    """Generations and seconds that this arm's choice needs; ACE's answers are its share of tokens.

    Raises KeyError for an arm that is none.
    """
    if arm in ("random", "full pool"):
        return 0, 0.0
    places = RunPaths(config)
    answers = asked(places.probe)
    probe = made(places.probe)["seconds"]
    look = made(places.attention)["seconds"]
    by_arm = {
        "RAP": (answers.generations, probe + look),
        "CDE alone": (answers.generations, probe),
        "ACE alone": (
            answers.first_generations,
            probe * answers.first_tokens / answers.tokens + look,
        ),
    }
    generations, seconds = by_arm[arm]
    return generations, seconds + made(places.score)["seconds"]


def spent(arm: str, config: RunConfig, trained: Path) -> Cost:
    """The cost of an arm whose training lies in this folder."""
    training = made(trained)
    counts = training["counts"]
    return Cost(
        *choice(arm, config), counts["generations"], training["seconds"], int(counts["steps"])
    )
