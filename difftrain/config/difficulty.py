"""Settings of the measures: every threshold of the papers, each with its source."""

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from difftrain.config.fingerprint import setting
from difftrain.records import Measure, Stratum


class Tokens(StrEnum):
    """How attention on a group of tokens is gathered."""

    sum = "sum"
    mean = "mean"


class TextSpan(StrEnum):
    """Which prompt tokens count as text."""

    prompt = "prompt"
    before_image = "before_image"


class ChanceCorrection(StrEnum):
    """How PISM learns what blind guessing is worth."""

    none = "none"
    text_only = "text_only"


class Heads(StrEnum):
    """How the attention of several heads becomes one."""

    mean = "mean"
    max = "max"


class Normalize(StrEnum):
    """What is done to a product of many factors before it is compared."""

    none = "none"
    mean_log = "mean_log"


STRATIFYING = (Measure.pism, Measure.cmab, Measure.drm)
"""Measures that give each sample a stratum; CDE and ACE only say yes or no."""
EPS = 1e-9
"""Keeps 7 of 10 from falling below 0.7, and 0.8 - 0.2 from lying above 0.6, by rounding."""


@dataclass(kw_only=True, slots=True)
class PismConfig:
    """Progressive image semantic masking (P, Eq. 1 to 3)."""

    tau: float = 0.1
    """A ratio fails when accuracy over the draws is below this (P: 0.1)."""
    hard_max: float = 0.4
    """A failure ratio above 0 and at or below this is hard (P: 0.4)."""
    easy_min: float = 0.7
    """A failure ratio from here on is easy (P: 0.7)."""
    easy_inclusive: bool = True
    """Exactly easy_from is easy (P, text); false makes it medium (P, Table A and Fig. 1)."""
    chance_correction: ChanceCorrection = ChanceCorrection.none
    """text_only: a ratio passes only if its right answers are too many for guessing (ours)."""
    alpha: float = 0.05
    """With chance_correction=text_only: largest probability of the correct draws under guessing
    (ours)."""

    def least(self, draws: int, guess_rate: float | None = None) -> int:
        """The fewest right answers among `draws` with which a ratio passes.

        Their mean must not be below tau (P, Eq. 3) and, where a guess rate is given, as many must
        come from guessing with probability alpha at most (one-sided binomial). draws + 1 means
        that no number of right answers is enough.
        """
        least = math.ceil(draws * self.tau - EPS)
        if guess_rate is None:
            return least
        tail = 0.0
        for right in range(draws, -1, -1):
            ways = math.comb(draws, right)
            tail += ways * guess_rate**right * (1 - guess_rate) ** (draws - right)
            if tail > self.alpha + EPS:
                return max(least, right + 1)
        return least

    def guess_rate(self, text_only_M: Iterable[int]) -> float:
        """How often guessing without the picture is right, Laplace-smoothed: (right + 1)/(M + 2).

        Raises ValueError if there is no verdict or one is missing (-1).
        """
        verdicts = [int(each) for each in text_only_M]
        if not verdicts or any(each not in (0, 1) for each in verdicts):
            raise ValueError(f"want M text-only verdicts of 0 or 1, not {verdicts}")
        return (sum(verdicts) + 1) / (len(verdicts) + 2)

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        if not 0 < self.alpha < 1:
            yield "alpha", "must lie strictly between 0 and 1"
        if not 0 < self.tau < 1:
            yield "tau", "must lie strictly between 0 and 1"
        if not 0 < self.hard_max < 1:
            yield "hard_max", "must lie strictly between 0 and 1"
        if not self.hard_max < self.easy_min <= 1:
            yield "easy_min", f"must lie above hard_max={self.hard_max} and at or below 1"


@dataclass(kw_only=True, slots=True)
class CmabConfig:
    """Cross-modality attention balance (P, Eq. 4)."""

    epsilon: float = 1e-8
    """Added inside the logarithm (P: 1e-8)."""
    easy_below: float = 0.1
    """A balance below this is easy (P: 0.1)."""
    hard_min: float = 0.4
    """Lower end of hard (P: 0.4)."""
    hard_max: float = 1.6
    """Upper end of hard (P: 1.6)."""
    easy_above: float = 1.9
    """A balance above this is easy (P: 1.9)."""
    tokens: Tokens = Tokens.sum
    """sum is Eq. 4; mean is Fig. 2's caption and the release."""
    text: TextSpan = setting(TextSpan.prompt, fingerprint=("attention", "score"))
    """prompt: every input token that is no picture; before_image: the release."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        if not self.epsilon > 0:
            yield "epsilon", "must be above 0"
        bounds = ("easy_below", "hard_min", "hard_max", "easy_above")
        for low, high in itertools.pairwise(bounds):
            if not getattr(self, low) < getattr(self, high):
                yield high, f"must be above {low}={getattr(self, low)}"


@dataclass(kw_only=True, slots=True)
class CdeConfig:
    """Causal discrepancy (T, CDE)."""

    lambda_c: float = 0.5
    """A sample is kept if its discrepancy is above this (T: 0.5)."""
    absolute: bool = False
    """Compare |D| instead of the signed D (signed: T, released)."""

    def keeps(self, discrepancy: float) -> bool:
        """Whether the picture decides the answer: D lies above lambda_c."""
        return discrepancy > self.lambda_c + EPS

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        if not -1 <= self.lambda_c < 1:
            yield "lambda_c", "must lie from -1 to below 1"


@dataclass(kw_only=True, slots=True)
class AceConfig:
    """Attention confidence (T, ACE)."""

    sigma: float = setting(2.0, fingerprint=("attention", "score"))
    """Every attention value is multiplied by this (T: 2.0)."""
    lambda_a: float = 0.1
    """A sample is attention-biased if its largest product is above this (T: 0.1)."""
    heads: Heads = setting(Heads.mean, fingerprint=("attention", "score"))
    """How the heads of the last layer become one matrix (open in T)."""
    min_rows: int = setting(1, fingerprint=("attention", "score"))
    """Leave out columns with fewer rows than this, the diagonal counted (T: 1)."""
    window: int | None = setting(None, fingerprint=("attention", "score"))
    """Bound each product to so many rows, the diagonal counted; null: all (T)."""
    normalize: Normalize = setting(Normalize.none, fingerprint=("attention", "score"))
    """mean_log divides a product's logarithm by its number of factors (T: none)."""

    def biased(self, log_psi: float | None) -> bool:
        """Whether the largest log psi lies above log lambda_a; without one nothing does."""
        return log_psi is not None and log_psi > math.log(self.lambda_a)

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        for name in ("sigma", "lambda_a"):
            if not getattr(self, name) > 0:
                yield name, "must be above 0"
        if self.min_rows < 1:
            yield "min_rows", "must be at least 1"
        if self.window is not None and self.window < 1:
            yield "window", "must be at least 1, or null for all rows"


@dataclass(kw_only=True, slots=True)
class DrmConfig:
    """Difficulty-aware replacement (T, DRM)."""

    hard_min: float = 0.5
    """From this difficulty on a sample is shown as hard, below it as medium (ours).

    The replacement itself never reads it."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        if not 0 < self.hard_min < 1:
            yield "hard_min", "must lie strictly between 0 and 1"


@dataclass(kw_only=True, slots=True)
class DifficultyConfig:
    """Which measures are taken, and whose strata select."""

    measure: Measure = Measure.pism
    """The measure whose strata the selection uses."""
    extra_measures: list[Measure] = field(default_factory=list)
    """Further measures to score and show beside it."""
    pism: PismConfig = field(default_factory=PismConfig)
    cmab: CmabConfig = field(default_factory=CmabConfig)
    cde: CdeConfig = field(default_factory=CdeConfig)
    ace: AceConfig = field(default_factory=AceConfig)
    drm: DrmConfig = field(default_factory=DrmConfig)

    @property
    def measures(self) -> list[Measure]:
        """All measures to score, the selecting one first, none twice."""
        return list(dict.fromkeys([self.measure, *self.extra_measures]))

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        if self.measure not in STRATIFYING:
            yield "measure", f"has strata only for {', '.join(STRATIFYING)}"
        if len(set(self.extra_measures)) < len(self.extra_measures):
            yield "extra_measures", "names a measure twice"
        if (
            self.pism.chance_correction is not ChanceCorrection.none
            and Measure.pism not in self.measures
        ):
            yield (
                "pism.chance_correction",
                "needs pism as difficulty.measure or in difficulty.extra_measures",
            )


class MaskKind(StrEnum):
    """What a mask hides."""

    pixels = "pixels"
    rectangle = "rectangle"
    patches = "patches"


class Grid(StrEnum):
    """How much of the ratio-by-draw table is asked."""

    early = "early"
    full = "full"


@dataclass(kw_only=True, slots=True)
class ProbeConfig:
    """The ladder of masks and the draws on each rung (P, Eq. 1 to 3)."""

    mask_percents: list[int] = field(default_factory=lambda: list(range(0, 100, 10)))
    """Mask ratios in whole percent, rising from 0 (P: 0.0, 0.1, ... 0.9)."""
    draws: int = 10
    """Answers asked at each ratio (P: K = 10)."""
    cde_rollouts: int = setting(5, fingerprint=("score",))
    """Answers with the whole picture, and as many without any, for CDE and DRM (T: M = 5)."""
    retest_samples: int = setting(0, fingerprint=("retest",))
    """So many samples are asked once more with other seeds, for the report's reliability."""
    temperature: float = 0.7
    """Sampling temperature (P, released; T samples at 1.0)."""
    max_new_tokens: int = 1024
    """Longest answer (P, released)."""
    mask: MaskKind = MaskKind.pixels
    """pixels is the paper's wording, rectangle its release, patches its abstract's 'semantic'."""
    nested: bool = False
    """Let masks grow along the ladder; the paper draws each independently."""
    grid: Grid = setting(Grid.early, fingerprint=("score",))
    """early stops at the first failing ratio, with the very label the full grid gives."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        rising = all(
            a < b for a, b in zip(self.mask_percents, self.mask_percents[1:], strict=False)
        )
        inside = all(0 <= percent <= 100 for percent in self.mask_percents)
        if not self.mask_percents or not rising or not inside or self.mask_percents[0] != 0:
            yield "mask_percents", "must rise from 0 and stay at or below 100"
        for name in ("draws", "cde_rollouts"):
            if getattr(self, name) < 1:
                yield name, "must be at least 1"
        if self.retest_samples < 0:
            yield "retest_samples", "must be at least 0"
        if not 0 < self.temperature <= 2:
            yield "temperature", "must lie above 0 and at or below 2"
        if self.max_new_tokens < 1:
            yield "max_new_tokens", "must be at least 1"


RAP_MEASURES = (Measure.cde, Measure.ace, Measure.drm)
"""What the second paper chooses by; leaving one out is an ablation."""


@dataclass(kw_only=True, slots=True)
class SelectConfig:
    """Which samples train: those of some strata, or those that RAP chooses."""

    strata: list[Stratum] = field(default_factory=lambda: [Stratum.hard])
    """The strata given to GRPO; empty where `rap` chooses."""
    rap: list[Measure] = field(default_factory=list)
    """The measures that choose in the second paper's way (T): cde, ace, drm, or some of them."""
    random: bool = False
    """Instead of those samples, a random set of their number from the whole pool."""
    sft_strata: list[Stratum] = setting(default_factory=list, fingerprint=("select_sft",))
    """The strata given to SFT before it; empty where there is no SFT."""
    sft_random: bool = setting(False, fingerprint=("select_sft",))
    """Instead of those, a random set of their number from all samples that SFT can learn from."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        if not self.strata and not self.rap:
            yield "strata", "must name at least one stratum, or select.rap its measures"
        if self.strata and self.rap:
            yield "strata", "must be empty ([]) where select.rap chooses"
        if len(set(self.strata)) < len(self.strata):
            yield "strata", "names a stratum twice"
        if len(set(self.sft_strata)) < len(self.sft_strata):
            yield "sft_strata", "names a stratum twice"
        if self.sft_random and not self.sft_strata:
            yield "sft_random", "needs select.sft_strata, whose size it takes"
        if len(set(self.rap)) < len(self.rap):
            yield "rap", "names a measure twice"
        if any(measure not in RAP_MEASURES for measure in self.rap):
            yield "rap", f"may hold {', '.join(RAP_MEASURES)}"
