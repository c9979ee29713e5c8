"""Settings of the probe, the difficulty measures, the selection and the graders, with sources.

"Qi et al." is Qi et al. 2026, "RAP" is Truth in the Few; values without a source are our own.
"""

import itertools
from dataclasses import dataclass, field
from enum import StrEnum

from difftrain.config.setting import Problems, setting
from difftrain.records import Measure, Stratum

MaskKind = StrEnum("MaskKind", ["pixels", "rectangle", "patches"])
"""What a mask hides."""
Until = StrEnum("Until", ["ratio", "stratum", "grid"])
"""When the probe stops drawing at PISM's mask ratios."""
Tokens = StrEnum("Tokens", ["sum", "mean"])
"""How attention on a group of tokens is aggregated."""
TextSpan = StrEnum("TextSpan", ["prompt", "before_image"])
"""Which prompt tokens count as text."""
ChanceCorrection = StrEnum("ChanceCorrection", ["none", "text_only"])
"""How PISM estimates the accuracy of blind guessing."""
Heads = StrEnum("Heads", ["mean", "max"])
"""How the attention of several heads becomes one."""
Normalize = StrEnum("Normalize", ["none", "mean_log"])
"""What is done to a product of many factors before it is compared."""
TextCredit = StrEnum("TextCredit", ["exact", "similarity"])
"""The credit of a text that differs from the gold."""
BoxesCredit = StrEnum("BoxesCredit", ["exact", "f1"])
"""The credit of an incomplete list of boxes."""
STRATIFYING = (Measure.pism, Measure.cmab, Measure.drm)
"""Measures that give each sample a stratum; CDE and ACE only keep or drop it."""
RAP_MEASURES = (Measure.cde, Measure.ace, Measure.drm)
"""The measures RAP selects by; leaving one out is an ablation."""
ATTENTION_STAGES = ("attention", "score")


@dataclass(kw_only=True, slots=True)
class ProbeConfig:
    """The mask ratios and the draws at each (Qi et al. 2026, Eq. 1 to 3)."""

    mask_percents: list[int] = field(default_factory=lambda: list(range(0, 100, 10)))
    """Mask ratios in whole percent, rising from 0 (Qi et al.: 0.0, 0.1, ... 0.9)."""
    draws: int = setting(10, at_least=1)
    """Responses drawn at each ratio (Qi et al.: K = 10)."""
    cde_rollouts: int = setting(5, fingerprint=("score",), at_least=1)
    """Responses with the full image, and as many without it, for CDE and DRM (RAP: M = 5)."""
    retest_samples: int = setting(0, fingerprint=("retest",), at_least=0, rule="must be at least 0")
    """Number of samples that are probed again with other seeds, for the report's reliability."""
    temperature: float = setting(0.7, above=0, at_most=2)
    """Sampling temperature (Qi et al.'s release; RAP samples at 1.0)."""
    max_new_tokens: int = setting(1024, at_least=1)
    """Longest response (Qi et al.'s release)."""
    mask: MaskKind = MaskKind.pixels
    """pixels is Qi et al.'s text, rectangle their release, patches their abstract's 'semantic'."""
    nested: bool = False
    """Use one mask per draw that grows with the ratio; Qi et al. draw each independently."""
    until: Until = setting(Until.ratio, fingerprint=("score",))
    """ratio: stop when PISM's failure ratio is settled; stratum: when its stratum is, which takes
    fewer draws; grid: draw every ratio K times. The strata are the same in all three."""

    def check(self) -> Problems:
        rising = all(a < b for a, b in itertools.pairwise(self.mask_percents))
        inside = all(0 <= percent <= 100 for percent in self.mask_percents)
        if not self.mask_percents or not rising or not inside or self.mask_percents[0] != 0:
            yield "mask_percents", "must rise from 0 and stay at or below 100"


@dataclass(kw_only=True, slots=True)
class PismConfig:
    """Progressive image semantic masking (Qi et al. 2026, Eq. 1 to 3)."""

    tau: float = setting(0.1, above=0, below=1)
    """A ratio fails when accuracy over the draws is below this (Qi et al.: 0.1)."""
    hard_max: float = setting(0.4, above=0, below=1)
    """A failure ratio above 0 and at or below this is hard (Qi et al.: 0.4)."""
    easy_min: float = 0.7
    """A failure ratio at or above this is easy (Qi et al.: 0.7)."""
    easy_inclusive: bool = True
    """Exactly easy_min is easy (Qi et al., text); false: medium (their Table A and Fig. 1)."""
    chance_correction: ChanceCorrection = ChanceCorrection.none
    """text_only: a ratio passes only if it has more correct draws than guessing would give."""
    alpha: float = setting(0.05, above=0, below=1)
    """With chance_correction=text_only: the largest probability, under guessing, of as many correct
    draws as a ratio that passes must have."""

    def check(self) -> Problems:
        if not self.hard_max < self.easy_min <= 1:
            yield "easy_min", f"must lie above hard_max={self.hard_max} and at or below 1"


@dataclass(kw_only=True, slots=True)
class CmabConfig:
    """Cross-modality attention balance (Qi et al. 2026, Eq. 4)."""

    epsilon: float = setting(1e-8, above=0)
    """Added inside the logarithm (Qi et al.: 1e-8)."""
    easy_below: float = 0.1
    """A balance below this is easy (Qi et al.: 0.1)."""
    hard_min: float = 0.4
    """Lower end of hard (Qi et al.: 0.4)."""
    hard_max: float = 1.6
    """Upper end of hard (Qi et al.: 1.6)."""
    easy_above: float = 1.9
    """A balance above this is easy (Qi et al.: 1.9)."""
    tokens: Tokens = Tokens.sum
    """sum is Eq. 4; mean is Fig. 2's caption and the release."""
    text: TextSpan = setting(TextSpan.prompt, fingerprint=ATTENTION_STAGES)
    """prompt: every input token that is not an image token; before_image: the release."""

    def check(self) -> Problems:
        bounds = ("easy_below", "hard_min", "hard_max", "easy_above")
        for low, high in itertools.pairwise(bounds):
            if not getattr(self, low) < getattr(self, high):
                yield high, f"must be above {low}={getattr(self, low)}"


@dataclass(kw_only=True, slots=True)
class CdeConfig:
    """Causal discrepancy (RAP, CDE)."""

    lambda_c: float = setting(0.5, at_least=-1, below=1, rule="must lie from -1 to below 1")
    """A sample is kept if its discrepancy is above this (RAP: 0.5)."""
    absolute: bool = False
    """Compare |D| instead of the signed D (RAP's release: signed)."""


@dataclass(kw_only=True, slots=True)
class AceConfig:
    """Attention confidence (RAP, ACE)."""

    sigma: float = setting(2.0, fingerprint=ATTENTION_STAGES, above=0)
    """Every attention value is multiplied by this (RAP: 2.0)."""
    lambda_a: float = setting(0.1, above=0)
    """A sample is attention-biased if its largest product is above this (RAP: 0.1)."""
    heads: Heads = setting(Heads.mean, fingerprint=ATTENTION_STAGES)
    """How the heads of the last layer become one matrix (RAP does not say)."""
    min_rows: int = setting(1, fingerprint=ATTENTION_STAGES, at_least=1)
    """Leave out columns with fewer rows than this, the diagonal counted (RAP: 1)."""
    window: int | None = setting(
        None,
        fingerprint=ATTENTION_STAGES,
        at_least=1,
        or_null="for all rows",
    )
    """Limit each product to so many rows, the diagonal counted; null: all (RAP)."""
    normalize: Normalize = setting(Normalize.none, fingerprint=ATTENTION_STAGES)
    """mean_log divides a product's logarithm by its number of factors (RAP: none)."""


@dataclass(kw_only=True, slots=True)
class DrmConfig:
    """Difficulty-aware replacement (RAP, DRM)."""

    hard_min: float = setting(0.5, above=0, below=1)
    """A difficulty at or above this is reported as hard, below it as medium; RAP's replacement does
    not use it."""


@dataclass(kw_only=True, slots=True)
class DifficultyConfig:
    """Which measures are scored, and whose strata select."""

    measure: Measure = Measure.pism
    """The measure whose strata the selection uses."""
    extra_measures: list[Measure] = field(default_factory=list)
    """Further measures to score and report beside it."""
    pism: PismConfig = field(default_factory=PismConfig)
    cmab: CmabConfig = field(default_factory=CmabConfig)
    cde: CdeConfig = field(default_factory=CdeConfig)
    ace: AceConfig = field(default_factory=AceConfig)
    drm: DrmConfig = field(default_factory=DrmConfig)

    @property
    def measures(self) -> list[Measure]:
        """All measures to score, the selecting one first, none twice."""
        return list(dict.fromkeys([self.measure, *self.extra_measures]))

    def check(self) -> Problems:
        if self.measure not in STRATIFYING:
            yield "measure", f"has strata only for {', '.join(STRATIFYING)}"
        if len(set(self.extra_measures)) < len(self.extra_measures):
            yield "extra_measures", "names a measure twice"
        corrected = self.pism.chance_correction is not ChanceCorrection.none
        if corrected and Measure.pism not in self.measures:
            rule = "needs pism as difficulty.measure or in difficulty.extra_measures"
            yield "pism.chance_correction", rule


@dataclass(kw_only=True, slots=True)
class SelectConfig:
    """Which samples train: those of some strata, or those that RAP selects."""

    strata: list[Stratum] = field(default_factory=lambda: [Stratum.hard])
    """The strata given to GRPO; empty where `rap` selects."""
    rap: list[Measure] = field(default_factory=list)
    """The measures RAP selects by: cde, ace, drm, or some of them."""
    random: bool = False
    """Instead of those samples, a random set of their number from all scored samples."""
    sft_strata: list[Stratum] = setting(default_factory=list, fingerprint=("select_sft",))
    """The strata given to SFT before GRPO; empty where there is no SFT."""
    sft_random: bool = setting(False, fingerprint=("select_sft",))
    """Instead of those, a random set of their number from all samples that have an SFT target."""

    def check(self) -> Problems:
        if not self.strata and not self.rap:
            yield "strata", "must name at least one stratum, or select.rap its measures"
        if self.strata and self.rap:
            yield "strata", "must be empty ([]) where select.rap selects"
        for name, what in (("strata", "stratum"), ("sft_strata", "stratum"), ("rap", "measure")):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                yield name, f"names a {what} twice"
        if self.sft_random and not self.sft_strata:
            yield "sft_random", "needs select.sft_strata, whose size it takes"
        if any(measure not in RAP_MEASURES for measure in self.rap):
            yield "rap", f"may hold {', '.join(RAP_MEASURES)}"


@dataclass(kw_only=True, slots=True)
class GradeConfig:
    """When an answer is correct. Every default is the strict one."""

    text: TextCredit = TextCredit.exact
    """exact: the gold's characters or no credit; similarity: 1 - edit distance / longer length."""
    text_correct_min: float = setting(1.0, above=0, at_most=1)
    """With text=similarity, the smallest similarity that counts as correct."""
    boxes: BoxesCredit = BoxesCredit.exact
    """exact: all boxes or no credit; f1: 2 x matched / (answer's + gold's boxes). Correct is f1 = 1
    in both cases."""
    boxes_iou: float = setting(0.5, above=0, at_most=1)
    """Smallest intersection over union of a matched pair."""
    number_tolerance: float = setting(0.0, at_least=0, below=0.5)
    """Largest relative error of a decimal that counts as equal; 0 is exact arithmetic."""

    def check(self) -> Problems:
        if self.text is TextCredit.exact and self.text_correct_min < 1:
            yield "text_correct_min", "below 1 needs grade.text=similarity"
