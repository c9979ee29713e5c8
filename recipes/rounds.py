"""Difficulty that moves with the policy: rounds after the first (rounds=N).

Strata describe the model that was probed. Once it has trained, medium samples become easy, and some
unsolved ones hard. So each later round does the three steps of the first one again:

score_again  3  probe all samples with the checkpoint of the round before, and score them
stop_reason  4  select again, from the new strata; end the run if they are too small
grpo.run     4  train that checkpoint on, with a new optimizer and learning-rate schedule

A round is no loop back: its stages are further links of the chain, named by the training that they
follow. The control arm trains its own checkpoint on as many random samples in every round.
"""

from dataclasses import replace

from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.model_session import ModelSession
from difftrain.pipeline.paths import RunPaths
from difftrain.recipes import difficulty
from difftrain.records import Arm, Sample, Score
from difftrain.select import EmptySelectionError


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


def stop_reason(paths: RunPaths) -> str | None:
    """4  Why this round cannot train: too few samples are selected for a step. None if it can.

    It depends only on the scores, so all ranks get the same answer.
    """
    scores = parquet.read_finished(paths.score, Score, "python launch/train.py")
    try:
        difficulty.require_selection(paths.config, scores, paths.config.grpo.prompts_per_step)
    except EmptySelectionError as error:
        return str(error)
    return None


def trained_rounds(rounds: list[RunPaths]) -> tuple[list[RunPaths], str | None]:
    """The rounds of a run that trained, and why the next one did not (None: all of them did).

    The rounds after the first must be scored, but for those after one that could not train.
    """
    for number, paths in enumerate(rounds):
        is_trained = number == 0 or manifest.read_manifest(paths.grpo(Arm.tuned)) is not None
        if not is_trained and (reason := stop_reason(paths)):
            return rounds[:number], reason
    return rounds, None
