"""Difficulty that moves with the policy: rounds after the first (rounds=N).

Strata describe the model that was probed. Once it has trained, medium samples become easy, and some
unsolved ones hard. So each later round does the three steps of the first one again:

score_again  3  probe all samples with the checkpoint of the round before, and score them
stop_reason  4  select again, from the new strata; end the run if they are too small
train_arms   4  train that checkpoint on, with a new optimizer and learning-rate schedule

A round is no loop back: its stages are further links of the chain, named by the training that they
follow. The control arm trains its own checkpoint on as many random samples in every round.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.model_session import ModelSession
from difftrain.pipeline.paths import RunPaths
from difftrain.recipes import difficulty, grpo
from difftrain.records import Arm, Sample, Score
from difftrain.select import EmptySelectionError
from difftrain.train.dynamic_sampling import DeadPoolError
from difftrain.train.grpo import STOPPED, UnfitSelectionError


def score_again(paths: RunPaths, world: World, samples: list[Sample]) -> None:
    """3  Probe and score all samples with the checkpoint of the round before."""
    assert paths.previous is not None
    checkpoint = paths.previous.grpo(Arm.tuned) / "checkpoint"
    config = paths.config
    model = replace(config.model, name=str(checkpoint), revision=None)
    session = ModelSession(model, config.data)
    difficulty.probe(config, paths, world, session, samples)
    session.release()
    difficulty.score(config, paths, world)


def stop_reason(paths: RunPaths, arms: Sequence[str]) -> str | None:
    """4  Why this round cannot train, or has not: too few samples are selected for a step, or the
    training of an arm found that its samples do not do (all groups dead, a floor that they cannot
    meet). None if it can.

    It depends only on the scores and on finished trainings, so all ranks get the same answer.
    """
    scores = parquet.read_finished(paths.score, Score, "python launch/train.py")
    try:
        difficulty.require_selection(paths.config, scores, paths.config.grpo.prompts_per_step)
    except EmptySelectionError as error:
        return str(error)
    stopped = [paths.grpo(arm) / STOPPED for arm in arms]
    return next((manifest.read_json(path)["reason"] for path in stopped if path.is_file()), None)


def train_arms(paths: RunPaths, world: World, arms: Sequence[str]) -> str | None:
    """4  Select again and train the arms on; returns why an arm could not train, else None.

    A round counts only if all arms trained, so that they keep equal numbers of steps.
    """
    for arm in arms:
        difficulty.select(paths.config, paths, world, arm)
    for arm in arms:
        try:
            grpo.run(paths.config, paths, world, arm)
        except (DeadPoolError, UnfitSelectionError) as error:
            return str(error)
    return None


def unused_trainings(paths: RunPaths, arms: Sequence[str]) -> dict[str, Path]:
    """Of a round that does not count: by arm, the file with the cost of a training in it."""
    names = (STOPPED, manifest.MANIFEST)
    files = {arm: [paths.grpo(arm) / name for name in names] for arm in arms}
    present = {arm: [path for path in paths if path.is_file()] for arm, paths in files.items()}
    return {arm: paths[0] for arm, paths in present.items() if paths}


def trained_rounds(
    rounds: list[RunPaths], arms: Sequence[str]
) -> tuple[list[RunPaths], str | None]:
    """The rounds of a run that trained, and why the next one did not (None: all of them did).

    The rounds after the first must be scored, but for those after one that could not train.
    """
    for number, paths in enumerate(rounds):
        manifests = [manifest.read_manifest(paths.grpo(arm)) for arm in arms]
        is_trained = number == 0 or None not in manifests
        if not is_trained and (reason := stop_reason(paths, arms)):
            return rounds[:number], reason
    return rounds, None
