"""Reward functions: accuracy by the probe's own grader, and beside it format and length.

TRL calls a reward with lists of equal length and logs it under the function's name.
"""

from collections.abc import Sequence
from typing import Any

from trl.rewards.other_rewards import get_soft_overlong_punishment

from difftrain.config.grade import GradeConfig
from difftrain.config.train import GrpoConfig
from difftrain.grade import extract, grade_batch
from difftrain.grade.pool import GradeFailure, GraderPool
from difftrain.grade.reward_hacking import Alarm
from difftrain.train.reward_metrics import (
    SUM,
    LogMetric,
    Reward,
    Subsets,
    log_alarms,
    text_of,
    with_metrics,
)


def accuracy_reward(subsets: Subsets, workers: GraderPool, grade: GradeConfig) -> Reward:
    """1 for a correct answer, else 0, or partial credit where grade.text or grade.boxes give it.

    A completion that is not graded in time is counted and gets 0. Also logs reward hacking.
    """

    def accuracy(
        completions: Sequence[Any],
        sample_id: Sequence[str],
        log_metric: LogMetric | None = None,
        **_: Any,
    ) -> list[float]:
        texts = [text_of(completion) for completion in completions]
        samples = [subsets.by_id[id_] for id_ in sample_id]
        results = grade_batch(workers, texts, samples, grade)
        if log_metric is not None:
            stopped = sum(isinstance(result, GradeFailure) for result in results)
            log_alarms(texts, sample_id, subsets, log_metric)
            log_metric(f"{SUM}alarms/{Alarm.grader_stopped}", stopped)
        return [0.0 if isinstance(result, GradeFailure) else result.credit for result in results]

    return accuracy


def format_reward(completions: Sequence[Any], **_: Any) -> list[float]:
    """1 for thought and answer each once in their tags and nothing else, else 0."""
    return [float(extract.has_expected_format(text_of(completion))) for completion in completions]


format_reward.__name__ = "format"


def overlong_reward(grpo: GrpoConfig) -> Reward:
    """0 up to overlong_free_share of max_completion_length, then down to -1 (DAPO, Eq. 13)."""
    limit = grpo.max_completion_length
    punishment = get_soft_overlong_punishment(limit, limit - int(grpo.overlong_free_share * limit))

    def overlong(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return punishment(completion_ids=completion_ids)

    return overlong


def reward_functions(
    grpo: GrpoConfig, grade: GradeConfig, subsets: Subsets, workers: GraderPool
) -> list[Reward]:
    """The functions of grpo.reward_weights in their order; each also logs its metrics."""
    functions = {
        "accuracy": accuracy_reward(subsets, workers, grade),
        "format": format_reward,
        "overlong": overlong_reward(grpo),
    }
    weights = grpo.reward_weights
    rewards = [functions[name] for name in weights]
    return with_metrics(rewards, list(weights.values()), subsets, grpo.num_generations)
