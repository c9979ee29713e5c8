"""Are M and K large enough? Some samples are probed once more with other seeds and scored again.

Nothing is resampled from the first rollouts, of which early-stopped rows hold too few. The second
rollouts lie in a folder of their own (RunPaths.retest), so no measure ever reads them.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from difftrain import seeds
from difftrain.config.run_config import RunConfig
from difftrain.difficulty import retest
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.model_session import ModelSession
from difftrain.pipeline.paths import RunPaths
from difftrain.pipeline.stage import run_stage
from difftrain.probe import state
from difftrain.recipes import difficulty
from difftrain.records import Sample, Score

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
    answered = state.without_failed(samples, second.probe)
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
            retest.score_labels(scores, measure, config.difficulty) for scores in (first, second)
        ]
        measures[measure] = asdict(retest.agreement(*labels))
    selections = [difficulty.select_samples(config, scores)[0] for scores in (first, second)]
    selected_ids = [{row.sample_id for row in selection} for selection in selections]
    size = len({score.sample_id for score in first})
    return {"measures": measures, "chosen": asdict(retest.overlap(size, *selected_ids))}
