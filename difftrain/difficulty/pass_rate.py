"""Pass rate: how often does the model answer correctly, and how certain is that?

With c of n responses to the full image correct and a uniform prior, the pass rate p has the
posterior Beta(1 + c, 1 + n - c). The value is its mean, (c + 1) / (n + 2) (Laplace's rule of
succession). The probe may stop early, but not because of anything other than the verdicts that it
has seen, and such a stopping rule leaves the posterior unchanged.

GRPO learns from groups in which some responses are correct and others are not: the variance of a
correctness reward is p (1 - p). So the strata follow it, with p estimated by the posterior mean.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from difftrain.config.setting import setting
from difftrain.difficulty import EPS
from difftrain.difficulty.definition import Definition, ProbeDraws
from difftrain.records import Measure, Stratum

if TYPE_CHECKING:  # the settings of all measures import this module
    from difftrain.config.difficulty import DifficultyConfig, ProbeConfig
    from difftrain.difficulty.evidence import Evidence

INTERVAL_TAIL = 0.025  # posterior probability outside the interval, on either side


@dataclass(kw_only=True, slots=True)
class PassRateConfig:
    """Pass rate: the posterior mean of the share of correct responses to the full image."""

    medium_min: float = setting(0.16, above=0, at_most=0.25)
    """With p the pass rate, a sample is medium if p (1 - p) is at least this (0.16: p from 0.2 to
    0.8). Below it is easy if p is above 1/2, else hard; without a correct response unsolved."""
    min_draws: int = setting(4, at_least=1)
    """A sample with fewer responses has no stratum: its pass rate is too uncertain. With medium_min
    at 0.16, four is the smallest number at which a sample that is always correct is easy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassRate:
    """A sample's evidence: correct responses of all, posterior mean, and 95 % credible interval."""

    sample_id: str
    correct: int
    draws: int
    mean: float
    low: float
    high: float


def posterior_mean(correct: int, draws: int) -> float:
    """The mean of the pass rate's posterior under a uniform prior: (c + 1) / (n + 2)."""
    return (correct + 1) / (draws + 2)


@lru_cache(maxsize=4096)
def credible_interval(correct: int, draws: int) -> tuple[float, float]:
    """The 2.5 % and the 97.5 % quantile of the pass rate's posterior."""
    low, high = _quantiles(correct, draws)
    return low, high


def _quantiles(correct: int, draws: int) -> Iterator[float]:
    """Quantiles of Beta(1 + c, 1 + n - c), by bisection.

    Its distribution function at p is the probability that of n + 1 tosses of a coin with
    probability p more than c succeed.
    """
    for probability in (INTERVAL_TAIL, 1 - INTERVAL_TAIL):
        low, high = 0.0, 1.0
        while high - low > EPS:
            p = (low + high) / 2
            tosses = range(correct + 1, draws + 2)
            tail = sum(math.comb(draws + 1, k) * p**k * (1 - p) ** (draws + 1 - k) for k in tosses)
            low, high = (p, high) if tail < probability else (low, p)
        yield (low + high) / 2


def stratum(
    correct: int, draws: int, medium_min: float = 0.16, min_draws: int = 4
) -> Stratum | None:
    """The stratum of a sample with these counts; None with fewer than min_draws responses.

    Raises ValueError unless 0 <= correct <= draws.
    """
    if not 0 <= correct <= draws:
        raise ValueError(f"{correct} of {draws} responses cannot be correct")
    if draws < min_draws:
        return None
    if not correct:
        return Stratum.unsolved
    p = posterior_mean(correct, draws)
    if p * (1 - p) >= medium_min - EPS:
        return Stratum.medium
    return Stratum.easy if p > 1 / 2 else Stratum.hard


def _draws(config: "DifficultyConfig", probe: "ProbeConfig") -> ProbeDraws:
    """All K draws for strata that select; an extra measure takes what the others need anyway."""
    return ProbeDraws(full_image=probe.draws * (config.measure is Measure.pass_rate))


def details(
    sample_id: str, evidence: "Evidence", config: "DifficultyConfig", probe: "ProbeConfig"
) -> PassRate:
    """The counts behind a sample's value. Raises ValueError if draws are missing."""
    from difftrain.difficulty.draws import full_image_verdicts  # imports the settings

    verdicts = full_image_verdicts(evidence, config, probe)
    correct, draws = int(verdicts.sum()), len(verdicts)
    low, high = credible_interval(correct, draws)
    mean = posterior_mean(correct, draws)
    return PassRate(
        sample_id=sample_id, correct=correct, draws=draws, mean=mean, low=low, high=high
    )


def score(
    evidence: "Evidence", config: "DifficultyConfig", probe: "ProbeConfig"
) -> tuple[float | None, Stratum | None]:
    """Posterior mean and stratum of one sample. Raises ValueError if draws are missing."""
    row = details("", evidence, config, probe)
    limits: PassRateConfig = config.section(Measure.pass_rate)
    return row.mean, stratum(row.correct, row.draws, limits.medium_min, limits.min_draws)


MEASURE = Definition(
    meaning="how often the model is correct with the image, and how certain that is",
    score=score,
    has_strata=True,
    draws=_draws,
    settings=PassRateConfig,
    details=details,
)
