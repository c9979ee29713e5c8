"""The retest lets the model answer some samples again, and compares the new scores with the first.

It shows whether probe.draws and probe.cde_rollouts, the numbers of responses (rollouts) per prompt,
are large enough. The retest has its own folder (RunPaths.retest); the run's scores never use it.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scipy import stats

from difftrain import seeds
from difftrain.config.difficulty import DifficultyConfig
from difftrain.config.run_config import RunConfig
from difftrain.difficulty.definition import definition
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
    """Run the retest; returns the folder of reliability.json and the second scores."""
    second_paths = RunPaths(config, retest=True)

    def order(sample: Sample) -> tuple[int, str]:  # a larger retest contains a smaller one
        return seeds.derive(config.seed, "again", sample.sample_id), sample.sample_id

    samples = parquet.read_rows(paths.data, Sample)
    subset = sorted(samples, key=order)[: config.probe.retest_samples]
    subset_ids = {sample.sample_id for sample in subset}
    samples = [sample for sample in samples if sample.sample_id in subset_ids]
    difficulty.probe(config, second_paths, world, session, samples)

    def write_agreement() -> dict[str, Any]:
        write_scores_and_agreement(config, paths, second_paths, samples)
        probed = manifest.read_manifest(second_paths.probe) or {"counts": {}}
        cost = {name: probed["counts"][name] for name in ("generations", "tokens")}
        return {"samples": len(samples), **cost}

    def probe_seconds() -> float:
        manifests = map(manifest.read_manifest, (second_paths.probe, second_paths.attention))
        return sum(content["seconds"] for content in manifests if content)

    run_stage(
        paths.reliability,
        world,
        write_agreement,
        settings={"retest_samples": config.probe.retest_samples, "seed": second_paths.seed},
        inputs={"score": paths.score.name, "retest": second_paths.probe.name},
        other_seconds=probe_seconds,
    )
    return paths.reliability


def write_scores_and_agreement(
    config: RunConfig, paths: RunPaths, second_paths: RunPaths, samples: list[Sample]
) -> None:
    """Score the second rollouts and compare them with the first scores of the same samples.

    Writes reliability.json. `measures`: by measure, the share of samples that keep their label.
    `chosen`: the overlap of two selections from the retested samples, one by each set of scores.
    """
    first_scores = parquet.read_rows(paths.score, Score)
    scored = {score.sample_id for score in first_scores}
    completed = schedule.without_failed(samples, second_paths.probe)
    # dict keys: no repetitions, in the order of the samples
    retested = dict.fromkeys(row.sample_id for row in completed if row.sample_id in scored)
    evidence = difficulty.read_evidence(config, second_paths)
    second_scores, _ = difficulty.score_samples(config, evidence, list(retested))
    parquet.write_all(paths.reliability, second_scores)
    first_scores = [score for score in first_scores if score.sample_id in retested]
    both_scores = (first_scores, second_scores)

    def labels(scores: list[Score], measure: Measure) -> dict[str, str]:
        rows = [score for score in scores if score.measure is measure]
        return {score.sample_id: score_label(score, config.difficulty) for score in rows}

    measures = {
        measure: agreement(*(labels(scores, measure) for scores in both_scores))
        for measure in config.difficulty.measures
    }
    results = [difficulty.select_samples(config, scores) for scores in both_scores]
    selected_ids = [{row.sample_id for row in selections} for selections, _rap_result in results]
    chosen = overlap(len({score.sample_id for score in first_scores}), *selected_ids)
    manifest.write_json(paths.reliability / RESULT, {"measures": measures, "chosen": chosen})


def score_label(score: Score, config: DifficultyConfig) -> str:
    """A score's label: its stratum or, without strata, whether the threshold keeps the sample."""
    if score.stratum is not None:
        return score.stratum
    keeps = definition(score.measure).keeps
    if score.value is None or keeps is None:
        return "no value"
    return "kept" if keeps(score.value, config) else "dropped"


def agreement(first: Mapping[str, str], second: Mapping[str, str]) -> dict[str, float]:
    """`share` of samples with equal labels in both, `low` to `high`: its 95 % Wilson interval.

    `by_chance` is the share to expect if two labelings with these counts were independent.
    Raises ValueError unless both have labels for the same samples, at least for one.
    """
    if not first or first.keys() != second.keys():
        raise ValueError(f"{len(first)} and {len(second)} labels are not of the same samples")
    n, same = len(first), sum(first[key] == second[key] for key in first)
    first_counts, second_counts = Counter(first.values()), Counter(second.values())
    by_chance = sum(first_counts[label] * second_counts[label] for label in first_counts) / n**2
    low, high = stats.binomtest(same, n).proportion_ci(method="wilson")
    return {
        "n": n, "same": same, "share": same / n, "low": float(low), "high": float(high),
        "by_chance": by_chance,
    }  # fmt: skip


def overlap(num_samples: int, first: set[str], second: set[str]) -> dict[str, float]:
    """The sizes of two selections from the same samples, how many samples both contain, and how
    many samples both would contain by chance."""
    return {
        "pool": num_samples, "first": len(first), "second": len(second),
        "common": len(first & second),
        "common_by_chance": len(first) * len(second) / num_samples,
    }  # fmt: skip
