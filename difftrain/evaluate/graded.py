"""What one graded item is before it becomes a Mark, and what a benchmark is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from difftrain.evaluate.rules import Switches
from difftrain.records import GradedBy

Item = Mapping[str, Any]
"""One row of a benchmark, in its official columns."""
Judge = Callable[[str, float], str]
"""judge(prompt, temperature) -> reply; raises judge.JudgeDown when nobody answers."""
Part = dict[str, Any]
"""One part of a prompt: {"type": "image" or "text", "value": ...}."""


@dataclass(frozen=True, slots=True)
class Graded:
    """A score of 0 to 1 (None if a judge failed), what was taken for the answer, and how."""

    score: float | None
    extracted: str | None
    path: GradedBy


UNDECIDED = Graded(0.0, None, GradedBy.failed)
"""No rule applied and there is no judge, or its replies were of no use: counts as wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A benchmark is a handful of functions of its items."""

    name: str
    prompt: Callable[[Item], list[Part]]
    grade: Callable[[str, Item, Judge | None, Switches], Graded]
    """(prediction, item, judge, rules)"""
    item_id: Callable[[Item], str]
    subset: Callable[[Item], str]
    cluster: Callable[[Item], str]
    """What the bootstrap draws again: the figure for HallusionBench, else the item."""
    judge: str
    """`always`, `sometimes` (where the rule cannot decide) or `never`."""
