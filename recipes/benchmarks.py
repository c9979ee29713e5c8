"""Evaluates the same benchmarks before and after training (Qi et al. 2026, section 5).

check_items, check_engine    5.0  check items and engine before any GPU time is used
check_contamination          5.1  check that no training sample is a benchmark item
evaluate_base, evaluate_arm  5.2  evaluate every arm (base, tuned, control) in the same way
differences                  5.3  compute paired differences with intervals
"""

import itertools
from dataclasses import replace
from pathlib import Path

from difftrain.config.evaluate import EvaluateConfig
from difftrain.config.run_config import RunConfig
from difftrain.evaluate import contamination, grade, summary, write_results
from difftrain.evaluate.loading import load_items
from difftrain.images import PixelBudget
from difftrain.pipeline import parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.model_session import ModelSession
from difftrain.pipeline.paths import RunPaths
from difftrain.records import Arm, ItemResult, Sample


def check_items(evaluate: EvaluateConfig, paths: RunPaths) -> None:
    """5.0  Load the official items. Raises SchemaError, or BenchmarkNotFound without network."""
    if evaluate.official and not write_results.is_finished(paths.evaluation(Arm.base)):
        load_items(replace(evaluate, benchmarks=evaluate.official))


def check_engine(paths: RunPaths, session: ModelSession) -> None:
    """5.0  Check that the engine can be reached. Raises ConfigError if it cannot.

    Skipped if some responses are on disk: the evaluation checks the engine if it needs it then.
    """
    responses, results = paths.responses(Arm.base), paths.evaluation(Arm.base)
    if not parquet.parts(responses) and not write_results.is_finished(results):
        session.check_engine()


def check_contamination(config: RunConfig, paths: RunPaths, world: World, arms: list[str]) -> None:
    """5.1  Compare every sample with the items of the benchmarks that are on this machine.

    Raises ConfigError if an arm trains on a benchmark item, unless evaluate.contamination=warn.
    With several rounds any sample may be selected later, so none may be a benchmark item.
    """
    samples = parquet.read_rows(paths.data, Sample)
    folders = [folder for arm in arms for folder in paths.selections(arm)]
    budget = PixelBudget(config.data.min_pixels, config.data.max_pixels, config.data.side)
    if config.rounds > 1:
        folders = [paths.score]
    contamination.check(samples, folders, paths.contamination, config.evaluate, budget, world)


def evaluate_base(config: RunConfig, paths: RunPaths, world: World, session: ModelSession) -> Path:
    """5.2  Evaluate the base model, before training; returns its folder of item results."""
    return evaluate(config, paths, world, session, Arm.base, config.model.name)


def evaluate_arm(config: RunConfig, paths: RunPaths, world: World, arm: str) -> Path:
    """5.2  Evaluate a trained arm's checkpoint; returns its folder of item results."""
    checkpoint = paths.grpo(arm) / "checkpoint"
    model = config.model.in_process  # a server (model.engine=http) has only the base model
    session = ModelSession(replace(model, name=str(checkpoint), revision=None), config.data)
    results = evaluate(config, paths, world, session, arm, f"train/{checkpoint.parent.name}")
    session.release()
    return results


def evaluate(
    config: RunConfig, paths: RunPaths, world: World, session: ModelSession, arm: str, name: str
) -> Path:
    """Generate and grade one checkpoint's responses; `name` names the checkpoint in the results."""
    responses, results = paths.responses(arm), paths.evaluation(arm)
    folders = grade.EvaluationFolders(responses, results, paths.judge_replies)
    pixels = config.data.min_pixels, config.data.max_pixels, config.data.side
    grade.evaluate(session.engine, folders, name, config.evaluate, config.model, pixels, world)
    return results


def differences(results: dict[str, Path], resamples: int) -> dict[str, dict[str, float]]:
    """5.3  Paired differences over the same items with bootstrapped 95 % intervals.

    `results` has each arm's folder of item results, the base first. If a benchmark has no
    score, the result is empty: failed items must not count as a difference of 0.
    """
    rows = {
        arm: parquet.read_finished(folder, ItemResult, made_by="python launch/train.py")
        for arm, folder in results.items()
    }
    for arm_rows in rows.values():
        by_benchmark = write_results.by_benchmark(arm_rows, {row.benchmark for row in arm_rows})
        if summary.no_mean_reason(by_benchmark):
            return {}
    by_pair = {}
    for after, before in itertools.combinations(reversed(list(rows)), 2):  # later arms first
        paired = summary.paired_difference(rows[before], rows[after], resamples=resamples)
        by_pair[f"{after} - {before}"] = paired.to_json()
    return by_pair
