"""What is counted beside the rewards: each by task and by stratum, and signs of gaming.

Counts go to TRL as sums, whose mean over processes times their number is exact; callbacks.py turns
them into one line a step.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from difftrain.data import prompts
from difftrain.grade import reward_hacking
from difftrain.grade.reward_hacking import Alarm
from difftrain.records import Sample

Reward = Callable[..., list[float]]
SUM = "difftrain/"
"""Before the name of every sum, so that callbacks.py finds them among TRL's own numbers."""
ANSWERS = "answers"
"""The sum that counts answers, in each group too."""


def said(completion: Any) -> str:
    """The text of a completion, which TRL gives as a list of messages."""
    return completion if isinstance(completion, str) else completion[0]["content"]


@dataclass(slots=True)
class Groups:
    """Task and stratum of every sample; a sample without a stratum counts by task alone."""

    samples: Sequence[Sample]
    strata: Mapping[str, str] = field(default_factory=dict)
    of: dict[str, list[str]] = field(init=False)
    by_id: dict[str, Sample] = field(init=False)

    def __post_init__(self) -> None:
        self.by_id = {sample.sample_id: sample for sample in self.samples}
        self.of = {
            name: [f"task/{sample.task}"]
            + ([f"stratum/{self.strata[name]}"] if name in self.strata else [])
            for name, sample in self.by_id.items()
        }

    @property
    def names(self) -> list[str]:
        """Every group there is; each process counts all of them, its own zeros too."""
        return sorted({name for several in self.of.values() for name in several})


def by_group(reward: Reward, groups: Groups) -> Reward:
    """The same reward under the same name; its sums by task and stratum go to the log."""
    name = reward.__name__

    def counted(
        completions: Sequence[Any],
        sample_id: Sequence[str],
        log_metric: Callable[[str, float], None] | None = None,
        **rest: Any,
    ) -> list[float]:
        values = reward(completions=completions, sample_id=sample_id, log_metric=log_metric, **rest)
        if log_metric is None:
            return values
        sums, answers = defaultdict(float), defaultdict(int)
        for identity, value in zip(sample_id, values, strict=True):
            for group in groups.of[identity]:
                sums[group] += value
                answers[group] += 1
        for group in groups.names:
            log_metric(f"{SUM}{name}/{group}", sums[group])
            if name == "correct":
                log_metric(f"{SUM}{ANSWERS}/{group}", answers[group])
        return values

    counted.__name__ = name
    return counted


def count_signs(
    texts: Sequence[str],
    identities: Sequence[str],
    groups: Groups,
    log_metric: Callable[[str, float], None],
) -> None:
    """Send the number of answers with each sign, and of those that could have it."""
    found: dict[Alarm, int] = defaultdict(int)
    for text, identity in zip(texts, identities, strict=True):
        for alarm, there in reward_hacking.response_alarms(
            text, groups.by_id[identity], prompts.SYSTEM
        ).items():
            found[alarm] += there
    log_metric(f"{SUM}{ANSWERS}", len(texts))
    for alarm in (Alarm.empty, Alarm.several_options, Alarm.repeated_tags, Alarm.prompt_echo):
        log_metric(f"{SUM}alarms/{alarm}", found[alarm])
