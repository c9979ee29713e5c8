"""Are M and K large enough? Some samples are probed once more with other seeds and scored again.

Nothing is resampled from the first rollouts, of which early-stopped rows hold too few. The second
rollouts lie in a folder of their own (RunPaths.retest), so no measure ever reads them.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from difftrain import seeds
from difftrain.config.difficulty import DifficultyConfig
from difftrain.config.run_config import RunConfig
from difftrain.difficulty import ace, cde
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.model_session import ModelSession
from difftrain.pipeline.paths import RunPaths
from difftrain.pipeline.stage import run_stage
from difftrain.probe import schedule
from difftrain.recipes import difficulty
from difftrain.records import Measure, Sample, Score

RESULT = "reliability.json"


def run(config: RunConfig, paths: RunPaths, world: World, session: ModelSession) -> Path:
    """The folder of reliability.json and of the second scores."""
    second = RunPaths(config, retest=True)
    samples = parquet.read_rows(paths.data, Sample)
    samples = retest_subset(samples, config.probe.retest_samples, config.seed)
    difficulty.probe(config, second, world, session, samples)

    def write_agreement() -> dict[str, Any]:
        write_scores_and_agreement(config, paths, second, samples)
        probed = manifest.read_manifest(second.probe) or {"counts": {}}
        cost = {name: probed["counts"][name] for name in ("generations", "tokens")}
        return {"samples": len(samples), **cost}

    def probe_seconds() -> float:
        manifests = map(manifest.read_manifest, (second.probe, second.attention))
        return sum(content["seconds"] for content in manifests if content)

    run_stage(
        paths.reliability,
        world,
        write_agreement,
        settings={"retest_samples": config.probe.retest_samples, "seed": second.seed},
        inputs={"score": paths.score.name, "retest": second.probe.name},
        other_seconds=probe_seconds,
    )
    return paths.reliability


def retest_subset(samples: list[Sample], size: int, seed: int) -> list[Sample]:
    """`size` samples, or all, by a hash of seed and id: a larger subset holds a smaller one."""

    def order(sample: Sample) -> tuple[int, str]:
        return seeds.derive(seed, "again", sample.sample_id), sample.sample_id

    kept = {sample.sample_id for sample in sorted(samples, key=order)[:size]}
    return [sample for sample in samples if sample.sample_id in kept]


def write_scores_and_agreement(
    config: RunConfig, paths: RunPaths, second: RunPaths, samples: list[Sample]
) -> None:
    """Score the second rollouts and compare them with the first scores of the same samples."""
    first_scores = parquet.read_rows(paths.score, Score)
    scored = {score.sample_id for score in first_scores}
    answered = schedule.without_failed(samples, second.probe)
    sample_ids = list(
        dict.fromkeys(sample.sample_id for sample in answered if sample.sample_id in scored)
    )
    second_scores, _ = difficulty.score_samples(config, second, sample_ids)
    parquet.write_all(paths.reliability, second_scores)
    retested = set(sample_ids)
    first_scores = [score for score in first_scores if score.sample_id in retested]
    agreement = score_agreement(config, first_scores, second_scores)
    manifest.write_json(paths.reliability / RESULT, agreement)


def score_agreement(
    config: RunConfig, first: list[Score], second: list[Score]
) -> dict[str, object]:
    """The share of samples that keep their label, by measure, and the overlap of the selections.

    Both selections are made among the retested samples alone.
    """
    measures = {}
    for measure in config.difficulty.measures:
        labels = [
            {
                score.sample_id: score_label(score, config.difficulty)
                for score in scores
                if score.measure is measure
            }
            for scores in (first, second)
        ]
        measures[measure] = agreement(*labels)
    selections = [difficulty.select_samples(config, scores)[0] for scores in (first, second)]
    selected_ids = [{row.sample_id for row in selection} for selection in selections]
    size = len({score.sample_id for score in first})
    return {"measures": measures, "chosen": overlap(size, *selected_ids)}


Z = 1.959964
"""The normal quantile of a 95 % interval."""


def score_label(score: Score, config: DifficultyConfig) -> str:
    """What a score is compared by: its stratum, or the side of its threshold."""
    if score.stratum is not None:
        return score.stratum
    if score.measure is Measure.cde and score.value is not None:
        return "kept" if cde.is_kept(score.value, config.cde.lambda_c) else "dropped"
    if score.measure is Measure.ace and score.value is not None:
        return "dropped" if ace.is_biased(score.value, config.ace.lambda_a) else "kept"
    return "no value"


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson), which stays inside 0 to 1."""
    share, square = successes / n, Z * Z
    middle = share + square / (2 * n)
    half = Z * (share * (1 - share) / n + square / (4 * n * n)) ** 0.5
    scale = 1 + square / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def agreement(first: Mapping[str, str], second: Mapping[str, str]) -> dict[str, float]:
    """`same` of `n` samples kept their label: the share, its 95 % interval (Wilson), and the share
    that two independent measures with these labels would have by chance.

    Raises ValueError unless both hold the same samples.
    """
    if not first or first.keys() != second.keys():
        raise ValueError(f"{len(first)} and {len(second)} labels are not of the same samples")
    n = len(first)
    same = sum(first[key] == second[key] for key in first)
    first_counts, second_counts = Counter(first.values()), Counter(second.values())
    by_chance = sum(first_counts[label] * second_counts[label] for label in first_counts) / n**2
    low, high = wilson_interval(same, n)
    return {
        "n": n, "same": same, "share": same / n, "low": low, "high": high, "by_chance": by_chance
    }  # fmt: skip


def overlap(pool: int, first: Collection[str], second: Collection[str]) -> dict[str, float]:
    """Two selections from the same `pool` samples: their sizes, how many samples are in both, and
    how many would be by chance."""
    a, b = set(first), set(second)
    return {
        "pool": pool, "first": len(a), "second": len(b), "common": len(a & b),
        "common_by_chance": len(a) * len(b) / pool,
    }  # fmt: skip
