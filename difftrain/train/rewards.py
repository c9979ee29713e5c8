"""Reward functions for TRL, and metrics for subsets: each task and each stratum of difficulty.

TRL calls a reward with lists of equal length and logs it under the function's name. A GRPO group
has zero variance if all completions of its prompt got the same reward; groups that are split over
processes are not counted. TRL averages over processes, so we log sums and divide them afterwards.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from trl.rewards.other_rewards import get_soft_overlong_punishment

from difftrain.config.difficulty import GradeConfig
from difftrain.config.train import GrpoConfig
from difftrain.data import prompts
from difftrain.grade import extract, grade_batch, reward_hacking
from difftrain.grade.pool import GradeFailure, GraderPool
from difftrain.grade.reward_hacking import Alarm
from difftrain.records import Sample
from difftrain.select.prompt_history import EPS

Reward = Callable[..., list[float]]
LogMetric = Callable[[str, float], None]
SUM_PREFIX = "difftrain/"  # begins the keys of our sums among TRL's metrics
COMPLETIONS, TOKENS, PROMPTS, ZERO_STD = "completions", "tokens", "prompts", "zero_std"
"""Names of sums by subset. `prompts` counts complete groups, `zero_std` those of zero variance."""


def text_of(completion: Any) -> str:
    """The text of a completion, which TRL gives as a string or as a list of messages."""
    return completion if isinstance(completion, str) else completion[0]["content"]


class Subsets:
    """The task and stratum of every sample; a sample without a stratum counts only for its task.

    `of_sample` maps a sample id to its subsets; `names` lists all subsets, because each process
    logs every one of them, zeros too.
    """

    def __init__(self, samples: Sequence[Sample], strata: Mapping[str, str] | None = None) -> None:
        self.by_id = {sample.sample_id: sample for sample in samples}
        self.of_sample = {id_: [f"task/{sample.task}"] for id_, sample in self.by_id.items()}
        for id_, stratum in (strata or {}).items():
            if id_ in self.of_sample:
                self.of_sample[id_].append(f"stratum/{stratum}")
        self.names = sorted({name for names in self.of_sample.values() for name in names})


def accuracy_reward(
    subsets: Subsets, graders: GraderPool, grade: GradeConfig, prefix: str = ""
) -> Reward:
    """1 for a correct answer, else 0 or the partial credit of `grade`; 0 if not graded in time."""

    def accuracy(
        completions: list, sample_id: list[str], log_metric: LogMetric | None = None, **_: Any
    ) -> list[float]:
        texts = [prefix + text_of(completion) for completion in completions]
        samples = [subsets.by_id[id_] for id_ in sample_id]
        results = grade_batch(graders, texts, samples, grade)
        if log_metric is not None:
            log_alarms(texts, samples, log_metric)
            num_stopped = sum(isinstance(result, GradeFailure) for result in results)
            log_metric(f"{SUM_PREFIX}alarms/{Alarm.grader_stopped}", num_stopped)
        return [0.0 if isinstance(result, GradeFailure) else result.credit for result in results]

    return accuracy


def log_alarms(texts: Sequence[str], samples: Sequence[Sample], log_metric: LogMetric) -> None:
    """Log the number of completions, and how many show each of four signs of reward hacking."""
    counts: Counter[Alarm] = Counter()
    for text, sample in zip(texts, samples, strict=True):
        counts.update(reward_hacking.response_alarms(text, sample, prompts.SYSTEM))
    log_metric(f"{SUM_PREFIX}{COMPLETIONS}", len(texts))
    for alarm in (Alarm.empty, Alarm.several_options, Alarm.repeated_tags, Alarm.prompt_echo):
        log_metric(f"{SUM_PREFIX}alarms/{alarm}", int(counts[alarm]))


def format_reward(completions: Sequence[Any], prefix: str = "", **_: Any) -> list[float]:
    """1 if the completion is one thought and one answer in their tags and no other text; else 0.

    `prefix`: the tag that the prompt already has (chat_format.thought_prefix).
    """
    texts = [prefix + text_of(completion) for completion in completions]
    return [float(extract.has_expected_format(text)) for text in texts]


def overlong_reward(grpo: GrpoConfig) -> Reward:
    """0 up to overlong_free_share of max_completion_length, then falls to -1 (DAPO, Eq. 13)."""
    limit = grpo.max_completion_length
    return get_soft_overlong_punishment(limit, limit - int(grpo.overlong_free_share * limit))


def reward_functions(
    grpo: GrpoConfig, grade: GradeConfig, subsets: Subsets, graders: GraderPool, prefix: str = ""
) -> list[Reward]:
    """The reward functions of grpo.reward_weights, in that order, with metrics by subset.

    `prefix` is the tag that the prompt already has, so that no completion can.
    """
    functions = {
        "accuracy": accuracy_reward(subsets, graders, grade, prefix),
        "format": partial(format_reward, prefix=prefix),
        "overlong": overlong_reward(grpo),
    }
    weights = grpo.reward_weights
    rewards = {name: functions[name] for name in weights}
    return with_metrics(rewards, weights, subsets, grpo.num_generations)


def with_metrics(
    rewards: dict[str, Reward], weights: dict[str, float], subsets: Subsets, num_generations: int
) -> list[Reward]:
    """The same functions, with the names under which TRL logs them; the last also logs all sums."""
    values_by_reward: dict[str, list[float]] = {}

    def log_sums(
        sample_id: Sequence[str], log_metric: LogMetric, completion_ids: Any = None, **_: Any
    ) -> None:
        columns = values_by_reward | {COMPLETIONS: [1] * len(sample_id)}
        if completion_ids is not None:
            columns[TOKENS] = [len(ids) for ids in completion_ids]
        names = (*columns, PROMPTS, ZERO_STD)
        sums = {f"{name}/{subset}": 0.0 for name in names for subset in subsets.names}
        totals = [0.0] * len(sample_id)  # weighted rewards; the other columns have no weight
        for column, values in columns.items():
            for i, (id_, value) in enumerate(zip(sample_id, values, strict=True)):
                totals[i] += weights.get(column, 0.0) * value
                for subset in subsets.of_sample[id_]:
                    sums[f"{column}/{subset}"] += value
        for start in range(0, len(totals) - num_generations + 1, num_generations):
            group = slice(start, start + num_generations)
            if len({*sample_id[group]}) == 1:
                has_zero_std = max(totals[group]) - min(totals[group]) < EPS
                for subset in subsets.of_sample[sample_id[start]]:
                    sums[f"{PROMPTS}/{subset}"] += 1
                    sums[f"{ZERO_STD}/{subset}"] += int(has_zero_std)
        for name, value in sums.items():
            log_metric(f"{SUM_PREFIX}{name}", value)

    def wrap(name: str, reward: Reward) -> Reward:
        def measured(**kwargs: Any) -> list[float]:
            values_by_reward[name] = reward(**kwargs)
            if name == list(rewards)[-1] and kwargs.get("log_metric"):
                log_sums(**kwargs)
            return values_by_reward[name]

        measured.__name__ = name
        return measured

    return [wrap(name, reward) for name, reward in rewards.items()]


def step_metrics(logs: Mapping[str, float], num_processes: int) -> dict[str, float]:
    """One step's metrics by subset under TRL's keys, and each alarm's share of the completions.

    `logs` holds each sum as TRL's mean over processes. A subset without a completion in this step
    is left out instead of zero; `completions/count/<subset>` is its number of completions.
    """
    sums = {key.removeprefix(SUM_PREFIX): logs[key] for key in logs if key.startswith(SUM_PREFIX)}
    metrics = {}
    for name, value in sums.items():
        quantity, _, subset = name.partition("/")
        if quantity == "alarms":
            metrics[name] = value / sums[COMPLETIONS]
        elif quantity == ZERO_STD:
            if complete := sums[f"{PROMPTS}/{subset}"]:
                metrics[f"frac_reward_zero_std/{subset}"] = value / complete
        elif quantity != PROMPTS and subset and (completions := sums[f"{COMPLETIONS}/{subset}"]):
            if quantity == COMPLETIONS:
                metrics[f"completions/count/{subset}"] = value * num_processes
            elif quantity == TOKENS:
                metrics[f"completions/mean_length/{subset}"] = value / completions
            else:
                metrics[f"rewards/{quantity}/mean/{subset}"] = value / completions
    if "completions/clipped_ratio" in logs:
        metrics[f"alarms/{Alarm.truncated}"] = logs["completions/clipped_ratio"]
    return metrics


def zero_variance_share(logs: Mapping[str, float]) -> float | None:
    """The share of one step's groups whose completions all get the same reward; None: no group.

    TRL's own frac_reward_zero_std is 0 or 1 if rewards are scaled by the standard deviation of the
    whole batch, whatever the groups are.
    """
    prefix = f"{SUM_PREFIX}{{}}/task/"  # every sample has one task
    zero, all_groups = (
        sum(value for key, value in logs.items() if key.startswith(prefix.format(name)))
        for name in (ZERO_STD, PROMPTS)
    )
    return zero / all_groups if all_groups else None
