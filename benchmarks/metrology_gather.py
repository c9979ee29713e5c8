"""The answers that metrology.py measures: one probe grown measure by measure, timed as it grows.

Seconds are of the processor, on one thread, so that they mean the same on a busy machine.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from difftrain.cli.overrides import compose_config
from difftrain.config.run_config import RunConfig, resolve
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.model_session import ModelSession
from difftrain.pipeline.paths import RunPaths
from difftrain.recipes import difficulty, pool
from difftrain.records import Attention, Rollout, Sample, Score, View

STEPS = {
    "PISM": ["difficulty=pism", "difficulty.extra_measures=[]"],
    "and CDE, DRM": ["difficulty=all", "difficulty.extra_measures=[cde, drm]"],
    "and CMAB, ACE": ["difficulty=all"],
    "and chance": ["difficulty=all", "difficulty.pism.chance_correction=text_only"],
    "rectangle": ["difficulty=pism", "difficulty.extra_measures=[]", "probe.mask=rectangle"],
    "patches": ["difficulty=pism", "difficulty.extra_measures=[]", "probe.mask=patches"],
}
"""The first four fill one store, each asking only what those before it lack."""
LENT = ("rectangle", "patches")
"""Steps with stores of their own, which begin with the first store's whole-picture answers."""


@dataclass(frozen=True)
class Gathered:
    """What one step made: its samples, answers, looks and scores, and what making them took."""

    config: RunConfig
    samples: list[Sample]
    rollouts: list[Rollout]
    attention: list[Attention]
    scores: list[Score]
    unguessed: list[Score]
    took: dict[str, float] = field(default_factory=dict)


def rows(places: RunPaths) -> tuple[int, int]:
    """How many answers and looks a step's folders hold."""
    answers = len(parquet.read(places.probe, Rollout))
    return answers, len(parquet.read(places.attention, Attention))


def grow(config: RunConfig, asking: ModelSession, timing: Path, step: str) -> None:
    """Ask and score what a step still needs, and add what that took to the timing file."""
    places = RunPaths(config)
    if manifest.read_manifest(places.score) is not None:
        return
    answers, looks = rows(places)
    asking.model  # noqa: B018  # loading is no part of the price
    started, wall = time.process_time(), time.time()
    samples = pool.samples(config, places, World())
    difficulty.probe(config, places, World(), asking, samples)
    cpu, wall = time.process_time() - started, time.time() - wall
    after, seen = rows(places)
    before = read_timing(timing).get(step, {})
    new = {"generations": after - answers, "looks": seen - looks, "cpu": cpu, "wall": wall}
    summed = {key: round(value + before.get(key, 0), 3) for key, value in new.items()}
    manifest.write_json(timing, {**read_timing(timing), step: summed})
    difficulty.score(config, places, World())


def lend(whole: Sequence[Rollout], folder: Path) -> None:
    """Give a new store the whole-picture answers: they are the same under every mask kind."""
    if whole and not parquet.parts(folder):
        parquet.write_part(folder, parquet.next_part(folder, 0), whole)


def read_timing(timing: Path) -> dict[str, dict[str, float]]:
    """What each step took so far, over interruptions; empty where there is no file."""
    return json.loads(timing.read_text()) if timing.is_file() else {}


def gather(words: Sequence[str], folder: Path) -> dict[str, Gathered]:
    """All steps, finished ones only read. Takes most of the benchmark's time."""
    found: dict[str, Gathered] = {}
    timing, asking = folder / "timing.json", None
    for step, own in STEPS.items():
        config = resolve(compose_config([f"output_dir={folder}", *own, *words]))
        asking = asking or ModelSession(config.model, config.data)
        places = RunPaths(config)
        if step in LENT:
            rollouts = found["and chance"].rollouts
            lend([each for each in rollouts if each.view is View.full_image], places.probe)
        print(step, flush=True)
        grow(config, asking, timing, step)
        found[step] = Gathered(
            config,
            parquet.read(places.data, Sample),
            parquet.read(places.probe, Rollout),
            parquet.read(places.attention, Attention),
            parquet.read(places.score, Score),
            parquet.read(places.score / difficulty.UNCORRECTED, Score),
            read_timing(timing).get(step, {}),
        )
    return found
