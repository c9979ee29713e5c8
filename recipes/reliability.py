"""Is M or K large enough? Some samples are asked once more with other seeds and scored anew.

Nothing is resampled from the first draws: early-stopped rows hold too few of them. The second
draws lie apart (outputs/again), so that no measure ever sees them.
"""

import time
from dataclasses import asdict, replace
from pathlib import Path

from difftrain import seeds
from difftrain.config.difficulty import DifficultyConfig
from difftrain.config.run_config import RunConfig
from difftrain.difficulty import retest
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World, stage_lock, wait_for_manifest
from difftrain.pipeline.paths import Places
from difftrain.probe import state
from difftrain.recipes import difficulty
from difftrain.recipes.asking import Asking
from difftrain.records import Measure, Sample, Score

RESULT = "reliability.json"


def asked_again(pool: list[Sample], number: int, seed: int) -> list[Sample]:
    """`number` samples, or all, by a hash of seed and id: a larger number holds a smaller one."""

    def luck(sample: Sample) -> tuple[int, str]:
        return seeds.derive(seed, "again", sample.sample_id), sample.sample_id

    kept = {sample.sample_id for sample in sorted(pool, key=luck)[:number]}
    return [sample for sample in pool if sample.sample_id in kept]


def again(config: RunConfig) -> RunConfig:
    """The same settings with the second seed, writing apart."""
    apart = str(Path(config.output_dir) / "retest")
    return replace(config, seed=seeds.derive(config.seed, "again"), output_dir=apart)


def place(config: RunConfig, places: Places) -> Path | None:
    """Where the comparison lies; None where probe.retest_samples is 0."""
    return places.reliability(Places(again(config))) if config.probe.retest_samples else None


def run(config: RunConfig, places: Places, world: World, asking: Asking) -> Path | None:
    """The folder of reliability.json and of the second scores; None if probe.retest_samples=0."""
    folder = place(config, places)
    if folder is None:
        return None
    second = again(config)
    there = Places(second)
    pool = asked_again(parquet.read(places.data, Sample), config.probe.retest_samples, config.seed)
    with stage_lock(there.probe, world):
        difficulty.ask(second, there, world, asking, pool)
    with stage_lock(folder, world):
        if world.is_first and manifest.read_manifest(folder) is None:
            close(config, places, second, pool, folder)
        wait_for_manifest(folder, world)
    return folder


def close(
    config: RunConfig, places: Places, second: RunConfig, pool: list[Sample], folder: Path
) -> None:
    """Score the second answers, compare, and write it down with what asking again took."""
    started, there = time.time(), Places(second)
    once = parquet.read(places.score, Score)
    known = {each.sample_id for each in once}
    both = [each for each in state.without_failed(pool, there.probe) if each.sample_id in known]
    ids = {sample.sample_id: None for sample in both}
    scores, _ = difficulty.scored(second, there, list(ids))
    parquet.write_all(folder, scores)
    first = [each for each in once if each.sample_id in ids]
    manifest.write_json(folder / RESULT, compared(config, first, scores))
    spent = [manifest.read_manifest(each) for each in (there.probe, there.attention)]
    asked = [each for each in spent if each is not None]
    manifest.write_manifest(
        folder,
        settings={"retest_samples": config.probe.retest_samples, "seed": second.seed},
        inputs={"score": places.score.name, "retest": there.probe.name},
        seconds=sum(each["seconds"] for each in asked) + time.time() - started,
        counts={"samples": len(pool)}
        | {name: asked[0]["counts"][name] for name in ("generations", "tokens")},
    )


def compared(config: RunConfig, first: list[Score], second: list[Score]) -> dict[str, object]:
    """The share of samples that keep their label, by measure, and the overlap of the choices.

    Both choices are made among the samples asked again alone.
    """

    def agreement(measure: Measure, settings: DifficultyConfig) -> dict[str, float]:
        once, again = (retest.score_labels(each, measure, settings) for each in (first, second))
        return asdict(retest.agreement(once, again))

    chosen = [difficulty.chosen(config, each)[0] for each in (first, second)]
    ids = [{pick.sample_id for pick in picks} for picks in chosen]
    size = len({each.sample_id for each in first})
    return {
        "measures": {
            measure: agreement(measure, config.difficulty) for measure in config.difficulty.measures
        },
        "chosen": asdict(retest.overlap(size, *ids)),
    }
