"""The rewards: the probe's own grader, and beside it, never inside it, layout and length.

TRL calls a reward with lists of equal length and logs it under the function's name. Answers are
graded in worker processes that can be killed; one that is not graded in time is counted, and paid
nothing.
"""

from collections.abc import Callable, Sequence
from typing import Any

from trl.rewards.other_rewards import get_soft_overlong_punishment

from difftrain.config.grade import GradeConfig
from difftrain.config.train import GrpoConfig
from difftrain.grade import extract as tags
from difftrain.grade.reward_hacking import Alarm
from difftrain.grade.workers import Ending, Workers, grading
from difftrain.train.spread import spread_counted
from difftrain.train.watch import SUM, Groups, Reward, by_group, count_signs, said


def correct(groups: Groups, workers: Workers, rules: GradeConfig) -> Reward:
    """What the probe's grader says an answer is worth: 1 if right, else 0, or part of the way
    where grade.text or grade.boxes mean it. Also counts the alarms' signs."""

    def correct(
        completions: Sequence[Any],
        sample_id: Sequence[str],
        log_metric: Callable[[str, float], None] | None = None,
        **_: Any,
    ) -> list[float]:
        texts = [said(completion) for completion in completions]
        replies = workers.ask(
            [
                grading(text, groups.by_id[identity], rules)
                for text, identity in zip(texts, sample_id, strict=True)
            ]
        )
        stopped = sum(isinstance(reply, Ending) for reply in replies)
        if log_metric is not None:
            count_signs(texts, sample_id, groups, log_metric)
            log_metric(f"{SUM}alarms/{Alarm.grader_stopped}", stopped)
        return [0.0 if isinstance(reply, Ending) else reply["value"] for reply in replies]

    return correct


def layout(completions: Sequence[Any], **_: Any) -> list[float]:
    """1 for thought and answer each once in their tags and nothing else, else 0."""
    return [float(tags.has_expected_format(said(completion))) for completion in completions]


def length(config: GrpoConfig) -> Reward:
    """0 up to length_free of the longest answer, then falling to -1 (DAPO, Eq. 13; TRL's own)."""
    longest = config.max_completion_length
    charge = get_soft_overlong_punishment(
        longest, longest - int(config.overlong_free_share * longest)
    )

    def length(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return charge(completion_ids=completion_ids)

    return length


def rewards(
    config: GrpoConfig, rules: GradeConfig, groups: Groups, workers: Workers
) -> list[Reward]:
    """The reward functions in the order of arguments.weights, each counted by group."""
    wanted: list[Reward] = [correct(groups, workers, rules), layout]
    weights = [1.0, config.format_weight]
    if config.overlong_weight:
        wanted.append(length(config))
        weights.append(config.overlong_weight)
    counted = [by_group(reward, groups) for reward in wanted]
    return spread_counted(counted, weights, groups, config.num_generations)
