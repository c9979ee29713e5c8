"""The two rewards: the probe's own grader, and beside it, never inside it, the layout.

TRL calls a reward with lists of equal length and logs it under the function's name.
"""

from collections.abc import Callable, Sequence
from typing import Any

from difftrain import grade
from difftrain.grade import layout as tags
from difftrain.records import Sample, Verdict

Reward = Callable[..., list[float]]


def said(completion: Any) -> str:
    """The text of a completion, which TRL gives as a list of messages."""
    return completion if isinstance(completion, str) else completion[0]["content"]


def correct(samples: Sequence[Sample]) -> Reward:
    """1 for an answer that the probe's grader calls right, else 0."""
    by_id = {sample.sample_id: sample for sample in samples}

    def correct(completions: Sequence[Any], sample_id: Sequence[str], **_: Any) -> list[float]:
        return [
            float(grade.grade(said(completion), by_id[identity]) is Verdict.right)
            for completion, identity in zip(completions, sample_id, strict=True)
        ]

    return correct


def layout(completions: Sequence[Any], **_: Any) -> list[float]:
    """1 for thought and answer each once in their tags and nothing else, else 0."""
    return [float(tags.well_laid_out(said(completion))) for completion in completions]
