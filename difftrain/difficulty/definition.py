"""What defines a difficulty measure: its score, the draws it needs, its settings.

A measure is registered by its name in records.Measure. Its module difficulty/<name>.py has the
formulas and, as `MEASURE`, a Definition.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from difftrain.records import Measure, Stratum

if TYPE_CHECKING:  # config.difficulty imports this module, to know the measures
    from difftrain.config.difficulty import DifficultyConfig, ProbeConfig
    from difftrain.difficulty.evidence import Evidence


@dataclass(frozen=True, slots=True)
class ProbeDraws:
    """The draws (sampled responses) that a measure needs of every sample.

    `first_correct`: draws with the full image until one is correct, or all K are made.
    """

    full_image: int = 0
    text_only: int = 0
    first_correct: bool = False


ScoreFunction = Callable[
    ["Evidence", "DifficultyConfig", "ProbeConfig"], tuple[float | None, Stratum | None]
]
"""Returns a sample's value and stratum. Raises ValueError if the evidence is incomplete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A measure, as the stages see it.

    `meaning` completes "the measure says ...". `settings` is the dataclass of the section
    difficulty.<name>, unless config/difficulty.py declares that section. A measure without strata
    may have `keeps`, which says of a value whether its threshold keeps the sample. `details`, a
    dataclass with sample_id first, is written beside the scores for each sample.
    """

    meaning: str
    score: ScoreFunction
    has_strata: bool = False
    draws: Callable[["DifficultyConfig", "ProbeConfig"], ProbeDraws] = lambda _, __: ProbeDraws()
    settings: type | None = None
    keeps: Callable[[float, "DifficultyConfig"], bool] | None = None
    details: Callable[[str, "Evidence", "DifficultyConfig", "ProbeConfig"], Any] | None = None


@cache
def definition(measure: Measure) -> Definition:
    """The definition in the module that the measure's name names."""
    return resolve_name(f"difftrain.difficulty.{measure.value}:MEASURE")


def probe_draws(difficulty: "DifficultyConfig", probe: "ProbeConfig") -> ProbeDraws:
    """The draws that these measures need together, except those at PISM's mask ratios."""
    needs = [definition(measure).draws(difficulty, probe) for measure in difficulty.measures]
    return ProbeDraws(
        full_image=max(need.full_image for need in needs),
        text_only=max(need.text_only for need in needs),
        first_correct=any(need.first_correct for need in needs),
    )
