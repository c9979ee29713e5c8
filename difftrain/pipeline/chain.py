"""The chain of stages, and the commands that run it. All commands get the same three arguments.

data -> probe -> score -> select -> train -> evaluate -> report; finished work is not repeated.
With rounds=N, probe to train come N times (recipes/rounds.py).
Arms are the models that a run compares: base, tuned (on selected samples), control (on random).
The preflight checks first that the model can be trained; the retest probes some samples again.
"""

import itertools
import logging
import os
import shutil
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from difftrain import plan
from difftrain.config.run_config import ConfigError, Control, RunConfig, TrainStages
from difftrain.data import dataset
from difftrain.difficulty import thresholds
from difftrain.evaluate import write_results
from difftrain.pipeline import finished, manifest, parquet, retest
from difftrain.pipeline.coordination import World, stage_lock
from difftrain.pipeline.model_session import ModelSession
from difftrain.pipeline.paths import RunPaths, round_paths
from difftrain.pipeline.stage import run_stage
from difftrain.recipes import benchmarks, difficulty, grpo, rounds, sft_then_grpo
from difftrain.records import Arm, Measure, Sample, Score, TrainStage
from difftrain.report import build
from difftrain.report.inputs import ArmFolders, RoundFolders, RunInputs
from difftrain.report.trackers import check_login, send_report
from difftrain.report.trackers.live import SendReport, live_trackers
from difftrain.train import preflight

logger = logging.getLogger(__name__)
SELECT = {TrainStage.sft: sft_then_grpo.select_sft, TrainStage.grpo: difficulty.select}
TRAIN = {TrainStages.grpo: grpo.run, TrainStages.sft_then_grpo: sft_then_grpo.run}
PREFLIGHT_ROWS = 256  # number of data rows that check_model reads, to find samples with images


def probe(config: RunConfig, world: World, _recipe_settings: list[str]) -> Path:
    """Run data and probe (the base model answers the samples); returns the probe's folder."""
    paths, session = RunPaths(config), ModelSession(config.model, config.data)
    if manifest.read_manifest(paths.probe) is None:
        session.check_engine()
    samples = difficulty.load_samples(config, paths, world)
    difficulty.probe(config, paths, world, session, samples)
    return paths.probe


def score(config: RunConfig, world: World, recipe_settings: list[str]) -> Path:
    """Run data, probe and score (the difficulties of samples); returns the scores' folder."""
    probe(config, world, recipe_settings)
    return difficulty.score(config, RunPaths(config), world)


def propose_thresholds(config: RunConfig, world: World, recipe_settings: list[str]) -> Path:
    """Print settings that give this model's strata the papers' shares; returns their folder.

    Raises ConfigError if a measure with thresholds has too few scores.
    """
    paths = RunPaths(config)
    folder = paths.output_dir / "thresholds" / score(config, world, recipe_settings).name
    measures = [item for item in config.difficulty.measures if item in thresholds.PAPER_SHARES]
    if not measures:
        raise ConfigError([f"difficulty.measure={config.difficulty.measure}: has no thresholds"])
    if world.is_first:
        scores = parquet.read_rows(paths.score, Score)
        proposals = {}
        for measure in measures:
            try:
                limits = thresholds.propose(scores, measure)
            except ValueError as error:
                raise ConfigError([f"difficulty.{error}"]) from error
            shares = thresholds.shares_under(scores, measure, limits)
            proposals[measure.value] = {"settings": limits, "shares": shares}
            print(" ".join(f"difficulty.{measure}.{name}={x}" for name, x in limits.items()))
            print("  " + ", ".join(f"{name} {100 * x:.1f} %" for name, x in shares.items()))
        manifest.write_json(folder / "thresholds.json", proposals)
    return folder


def evaluate(config: RunConfig, world: World, _recipe_settings: list[str]) -> Path:
    """Evaluate the base model (model.name) on the benchmarks; returns the item results' folder."""
    paths, session = RunPaths(config), ModelSession(config.model, config.data)
    benchmarks.check_engine(paths, session)
    return benchmarks.evaluate_base(config, paths, world, session)


def train(config: RunConfig, world: World, recipe_settings: list[str]) -> Path:
    """Run all stages; returns the run's folder.

    An inference server has no trained weights, so this process itself answers all benchmarks.
    """
    trackers = config.report_to if world.is_first else []
    check_login(trackers)
    all_rounds = round_paths(config, trained=True)

    def start_inputs() -> RunInputs:
        return report_inputs(config, all_rounds, recipe_settings)

    with live_trackers(trackers, start_inputs) as send:
        run_stages(config, world, all_rounds)
        if world.is_first:
            write_report(config, all_rounds, recipe_settings, send)
    return all_rounds[-1].run


def run_stages(config: RunConfig, world: World, all_rounds: list[RunPaths]) -> None:
    """Run all stages but the report."""
    paths, session = all_rounds[0], ModelSession(config.model, config.data)
    if manifest.read_manifest(paths.probe) is None:
        session.check_engine()
    samples = difficulty.load_samples(config, paths, world)
    with stage_lock(paths.preflight, world):
        if world.is_first:
            benchmarks.check_items(config.evaluate, paths)

    def check_training() -> dict[str, str]:
        results = run_preflight(config, session, samples, paths.preflight)
        return {name: result.detail for name, result in results.items()}

    run_stage(paths.preflight, world, check_training, inputs={})
    session.is_checked = True  # by the preflight
    difficulty.probe(config, paths, world, session, samples)
    difficulty.score(config, paths, world)
    arms = trained_arms(config)
    for arm in arms:
        for stage in config.stages:
            SELECT[stage](config, paths, world, arm)
    benchmarks.check_contamination(config, paths, world, arms)
    if config.probe.retest_samples:
        retest.run(config, paths, world, session)
    session = session.in_process()
    benchmarks.evaluate_base(config, paths, world, session)
    session.release()
    train_rounds(config, all_rounds, world, samples)


def train_rounds(
    config: RunConfig, all_rounds: list[RunPaths], world: World, samples: list[Sample]
) -> None:
    """Train the arms in every round, and evaluate them after the last.

    A later round first scores and selects again. If it cannot train, the run ends with the
    checkpoints of the round before.
    """
    arms, last = trained_arms(config), all_rounds[0]
    for arm in arms:
        TRAIN[config.train_stages](last.config, last, world, arm)
    for number, current in enumerate(all_rounds[1:], 2):
        rounds.score_again(current, world, samples)
        reason = rounds.stop_reason(current, arms) or rounds.train_arms(current, world, arms)
        if reason:
            logger.warning("round %d trains nothing, so the run ends: %s", number, reason)
            break
        last = current
    for arm in arms:
        benchmarks.evaluate_arm(config, last, world, arm)


def check_model(config: RunConfig, world: World, recipe_settings: list[str]) -> Path:
    """Print the plan and run the preflight checks; returns the plan's folder."""
    folder = plan.show(config, world, recipe_settings)
    if world.is_first:
        rows = itertools.islice(dataset.load_samples(config.data), PREFLIGHT_ROWS)
        samples = [row for row in rows if isinstance(row, Sample)]
        session = ModelSession(config.model, config.data)
        results = run_preflight(config, session, samples, folder / "preflight")
        table = preflight.results_table(results)
        print(f"\n{table}", flush=True)
        manifest.write_text(folder / "preflight.txt", f"{table}\n")
    return folder


def report(config: RunConfig, world: World, recipe_settings: list[str]) -> Path:
    """Write the report of a finished run again. Raises MissingArtifact if a stage is missing."""
    all_rounds = round_paths(config, trained=True)
    if world.is_first:
        check_login(config.report_to)
        send = partial(send_report, config.report_to)
        write_report(config, all_rounds, recipe_settings, send)
    return all_rounds[-1].run


def run_preflight(
    config: RunConfig, session: ModelSession, samples: list[Sample], folder: Path
) -> dict[str, preflight.CheckResult]:
    """Run the preflight checks; returns their results. Raises PreflightFailed if one fails."""
    stages = {stage.value: getattr(config, stage) for stage in config.stages}
    candidate = preflight.Candidate(session.model, samples, config.model, stages, folder)
    return preflight.require_trainable(candidate)


def trained_arms(config: RunConfig) -> list[str]:
    """The arms that are trained: tuned, and also control if control=random is set."""
    return [Arm.tuned, Arm.control] if config.control is Control.random else [Arm.tuned]


def arm_folders(paths: RunPaths, arm: str) -> ArmFolders:
    """The folders of one arm in one round."""
    folders = ArmFolders(select=paths.selection(arm), train=paths.grpo(arm))
    if TrainStage.sft in paths.config.stages:
        sft_select = paths.selection(arm, TrainStage.sft)
        folders = replace(folders, sft_select=sft_select, sft=paths.sft(arm))
    return folders


def report_inputs(
    config: RunConfig, all_rounds: list[RunPaths], recipe_settings: list[str], num_trained: int = 0
) -> RunInputs:
    """The folders of a run's stages, finished or not; `num_trained` rounds could train (0: all).

    The differences of scores, and why a round could not train, are left out.
    """
    arms = trained_arms(config)
    paths, trained = all_rounds[0], all_rounds[: num_trained or len(all_rounds)]
    results = {arm: trained[-1].evaluation(arm) for arm in (Arm.base, *arms)}
    measures_likelihood = Measure.image_gain in config.difficulty.measures
    later_rounds = [
        RoundFolders(
            number=number,
            probe=scored.probe,
            attention=scored.attention if manifest.read_manifest(scored.attention) else None,
            likelihood=scored.likelihood if measures_likelihood else None,
            score=scored.score,
            arms={arm: arm_folders(scored, arm) for arm in arms if scored in trained},
        )
        for number, scored in enumerate(all_rounds[1 : len(trained) + 1], 2)
    ]
    return RunInputs(
        folder=all_rounds[-1].run,
        settings=asdict(config),
        recipe_difference=recipe_settings,
        data=paths.data,
        probe=paths.probe,
        attention=paths.attention if manifest.read_manifest(paths.attention) else None,
        likelihood=paths.likelihood if measures_likelihood else None,
        score=paths.score,
        retest=paths.reliability if config.probe.retest_samples else None,
        arms={arm: arm_folders(paths, arm) for arm in arms},
        later_rounds=later_rounds,
        evaluations=results,
        differences={},
        contamination=paths.contamination if manifest.read_manifest(paths.contamination) else None,
    )


def write_report(
    config: RunConfig, all_rounds: list[RunPaths], recipe_settings: list[str], send: SendReport
) -> None:
    """Write the report with the recipe's KEY=VALUE list, link the checkpoint, `send` the report.

    If a round could not train, the report is on the rounds before it, and says why.
    """
    run, arms = all_rounds[-1].run, trained_arms(config)
    trained, stop_reason = rounds.trained_rounds(all_rounds, arms)
    last, unused = trained[-1], {}
    if len(trained) < len(all_rounds):
        unused = rounds.unused_trainings(all_rounds[len(trained)], arms)
    inputs = report_inputs(config, all_rounds, recipe_settings, len(trained))
    results = inputs.evaluations
    inputs = replace(
        inputs,
        differences=benchmarks.differences(results, config.evaluate.resamples),
        stop_reason=stop_reason,
        unused_trainings=unused,
    )
    report = build.write_report(inputs)
    # An adapter of a later round belongs to the checkpoint before it, not to the base model.
    # checkpoint comes last: it marks a sweep's run as finished.
    for name in ("adapter", "checkpoint") if len(trained) == 1 else ("checkpoint",):
        if (source := last.grpo(Arm.tuned) / name).is_dir():
            link_tree(source, run / name)
    send(inputs, report)
    if all(map(write_results.is_finished, results.values())):  # else the next run tries again
        stages = [*inputs.stages().values(), all_rounds[0].preflight]
        checkpoints = [paths.grpo(arm) / "checkpoint" for paths in trained for arm in inputs.arms]
        finished.mark_finished(all_rounds[-1], recipe_settings, stages, checkpoints)


def link_tree(source: Path, target: Path) -> None:
    """Hard-link all files of a folder into the target, or copy them if links are not supported.

    If the process is killed meanwhile, the target is either complete or missing.
    """

    def link(source_file: str, target_file: str) -> None:
        try:
            os.link(source_file, target_file)
        except OSError:
            shutil.copy2(source_file, target_file)

    tmp_path = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(tmp_path, ignore_errors=True)
    shutil.copytree(source, tmp_path, copy_function=link)
    shutil.rmtree(target, ignore_errors=True)
    tmp_path.replace(target)
