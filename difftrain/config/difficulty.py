"""Settings of the probe (sampling responses), the difficulty measures, selection and graders.

Each value names its paper: "Qi et al." is Qi et al. 2026, "RAP" is Truth in the Few; values without
a paper are our own. A draw is one sampled response; a mask ratio is the hidden share of the image.
The measures of the papers are PISM, CMAB, CDE, ACE and DRM; the others' settings are in the module
of the measure. The strata are easy, medium, hard and unsolved.
"""

import itertools
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from difftrain.config.setting import Problems, setting
from difftrain.difficulty.definition import definition
from difftrain.records import Measure, Stratum

MaskKind = StrEnum("MaskKind", ["pixels", "rectangle", "patches"])
"""What a mask hides."""
Until = StrEnum("Until", ["ratio", "stratum", "grid"])
"""When the probe stops sampling responses at PISM's mask ratios."""
Tokens = StrEnum("Tokens", ["sum", "mean"])
"""How the attention weights on a group of tokens become one number."""
TextSpan = StrEnum("TextSpan", ["prompt", "before_image"])
"""Which prompt tokens count as text."""
ChanceCorrection = StrEnum("ChanceCorrection", ["none", "text_only"])
"""How PISM estimates the accuracy of guessing; text_only: from responses without the image."""
Heads = StrEnum("Heads", ["mean", "max"])
"""How the attention matrices of several heads become one."""
Normalize = StrEnum("Normalize", ["none", "mean_log"])
"""How ACE scales a product of many attention values before comparing it with its threshold."""
TextCredit = StrEnum("TextCredit", ["strict", "exact", "similarity", "anls", "vqa"])
"""When an answer text is correct, and its credit if it is not."""
BoxesCredit = StrEnum("BoxesCredit", ["exact", "f1"])
"""The credit of a box list that is only partly right."""
BoxCoordinates = StrEnum("BoxCoordinates", ["pixels", "relative"])
"""How a model counts in its boxes: pixels of the image that it gets, or 0 to 1000 on each side."""
RAP_MEASURES = (Measure.cde, Measure.ace, Measure.drm)
"""The measures by which RAP selects; leaving one out is an ablation."""
ATTENTION_STAGES = ("attention", "score")  # depend on how attention is measured


@dataclass(kw_only=True, slots=True)
class ProbeConfig:
    """How the probe masks images and samples responses (Qi et al. 2026, Eq. 1 to 3)."""

    mask_percents: list[int] = field(default_factory=lambda: list(range(0, 100, 10)))
    """Mask ratios in whole percent, rising from 0 (Qi et al.: 0.0, 0.1, ... 0.9)."""
    draws: int = setting(10, at_least=1)
    """Responses sampled at each mask ratio (Qi et al.: K = 10)."""
    cde_rollouts: int = setting(5, fingerprint=("score",), at_least=1)
    """Responses with the full image, and as many without it, for CDE and DRM (RAP: M = 5)."""
    retest_samples: int = setting(0, fingerprint=("retest",), at_least=0, rule="must be at least 0")
    """Number of samples to probe again with other seeds, to report how well scores repeat."""
    temperature: float = setting(0.7, above=0, at_most=2)
    """Sampling temperature (Qi et al.'s code: 0.7; RAP: 1.0)."""
    max_new_tokens: int = setting(1024, at_least=1)
    """Token limit of a response (Qi et al.'s code: 1024)."""
    mask: MaskKind = MaskKind.pixels
    """pixels hides single pixels (Qi et al.'s text), rectangle one rectangle (their code), patches
    whole patches of 28 x 28 pixels (their abstract: 'semantic')."""
    nested: bool = False
    """true: the mask of a draw grows with the ratio; false: masks are independent (Qi et al.)."""
    until: Until = setting(Until.stratum, fingerprint=("score",))
    """stratum: stop once the stratum is certain; ratio: once the failure ratio (see pism.tau) is
    certain, with more draws; grid: sample all `draws` at every ratio. All give equal strata."""

    view_workers: int | None = setting(
        None, fingerprint=(), at_least=0, rule="must be at least 0, or null"
    )
    """Processes that prepare masked images ahead of the engine. null: for a server or vLLM one less
    than the CPU cores, at most 4; else 0, and this process prepares them."""

    def check(self) -> Problems:
        rising = all(a < b for a, b in itertools.pairwise(self.mask_percents))
        inside = all(0 <= percent <= 100 for percent in self.mask_percents)
        if not self.mask_percents or not rising or not inside or self.mask_percents[0] != 0:
            yield "mask_percents", "must rise from 0 and stay at or below 100"


@dataclass(kw_only=True, slots=True)
class PismConfig:
    """PISM, progressive image semantic masking (Qi et al. 2026, Eq. 1 to 3)."""

    tau: float = setting(0.1, above=0, below=1)
    """A mask ratio fails if the accuracy of its draws is below this (Qi et al.: 0.1). The failure
    ratio is the smallest mask ratio that fails."""
    hard_max: float = setting(0.4, above=0, below=1)
    """A sample is hard up to this failure ratio (Qi et al.: 0.4), but unsolved at ratio 0."""
    easy_min: float = 0.7
    """A sample is easy from this failure ratio on (Qi et al.: 0.7), and medium above hard_max."""
    easy_inclusive: bool = True
    """true: exactly easy_min is easy (Qi et al.'s text); false: medium (their Table A, Fig. 1)."""
    chance_correction: ChanceCorrection = ChanceCorrection.none
    """text_only: a ratio passes only if it has more correct draws than guessing would give."""
    alpha: float = setting(0.05, above=0, below=1)
    """Significance level of chance_correction=text_only: a ratio passes only if guessing reaches
    as many correct draws with at most this probability."""

    def check(self) -> Problems:
        if not self.hard_max < self.easy_min <= 1:
            yield "easy_min", f"must lie above hard_max={self.hard_max} and at or below 1"


@dataclass(kw_only=True, slots=True)
class CmabConfig:
    """CMAB, cross-modality attention balance: image over text attention (Qi et al. 2026, Eq. 4)."""

    epsilon: float = setting(1e-8, above=0)
    """Added to the attention ratio inside the logarithm (Qi et al.: 1e-8)."""
    easy_below: float = 0.1
    """A balance below this is easy (Qi et al.: 0.1)."""
    hard_min: float = 0.4
    """A balance from this to hard_max is hard (Qi et al.: 0.4)."""
    hard_max: float = 1.6
    """A balance from hard_min to this is hard (Qi et al.: 1.6)."""
    easy_above: float = 1.9
    """A balance above this is easy (Qi et al.: 1.9); all other balances are medium."""
    tokens: Tokens = Tokens.sum
    """sum: as in Eq. 4; mean: as in the caption of Fig. 2 and in their code."""
    text: TextSpan = setting(TextSpan.prompt, fingerprint=ATTENTION_STAGES)
    """prompt: all tokens except the image's; before_image: those before it (Qi et al.'s code)."""

    def check(self) -> Problems:
        bounds = ("easy_below", "hard_min", "hard_max", "easy_above")
        for low, high in itertools.pairwise(bounds):
            if not getattr(self, low) < getattr(self, high):
                yield high, f"must be above {low}={getattr(self, low)}"


@dataclass(kw_only=True, slots=True)
class CdeConfig:
    """CDE, causal discrepancy (RAP): accuracy with the image minus accuracy without it."""

    lambda_c: float = setting(0.5, at_least=-1, below=1, rule="must lie from -1 to below 1")
    """A sample is kept if its discrepancy is above this (RAP: 0.5)."""
    absolute: bool = False
    """Compare the absolute value of the discrepancy (RAP's code: the signed value)."""


@dataclass(kw_only=True, slots=True)
class AceConfig:
    """ACE, attention confidence (RAP): products down the columns of a response's attention."""

    sigma: float = setting(2.0, fingerprint=ATTENTION_STAGES, above=0)
    """Every attention value is multiplied by this (RAP: 2.0)."""
    lambda_a: float = setting(0.1, above=0)
    """A sample whose largest product is above this is attention-biased; RAP drops it (RAP: 0.1)."""
    heads: Heads = setting(Heads.mean, fingerprint=ATTENTION_STAGES)
    """How the heads of the last layer become one matrix (RAP does not say)."""
    min_rows: int = setting(1, fingerprint=ATTENTION_STAGES, at_least=1)
    """Ignore columns with fewer rows than this; a column begins at the diagonal (RAP: 1)."""
    window: int | None = setting(
        None, fingerprint=ATTENTION_STAGES, at_least=1, or_null="for all rows"
    )
    """Multiply only this many rows of a column, beginning at the diagonal; null: all (RAP)."""
    normalize: Normalize = setting(Normalize.none, fingerprint=ATTENTION_STAGES)
    """mean_log divides a product's logarithm by its number of factors (RAP: none)."""


@dataclass(kw_only=True, slots=True)
class DrmConfig:
    """DRM, difficulty-aware replacement (RAP): the share of incorrect responses."""

    hard_min: float = setting(0.5, above=0, below=1)
    """A share of at least this is hard, a lower one medium; RAP's selection ignores this limit."""


C = TypeVar("C", bound=type)


def _with_measure_sections(cls: C) -> C:
    """Class decorator: add the section of each measure whose own module has its settings."""
    for measure in Measure:
        if measure not in cls.__annotations__ and (section := definition(measure).settings):
            cls.__annotations__[measure.value] = section
            setattr(cls, measure.value, field(default_factory=section))
    return cls


@dataclass(kw_only=True, slots=True)
@_with_measure_sections
class DifficultyConfig:
    """Which measures are scored, and which measure's strata the selection uses."""

    measure: Measure = Measure.pism
    """The measure whose strata the selection uses."""
    extra_measures: list[Measure] = field(default_factory=list)
    """Measures to score and report in addition to `measure`."""
    pism: PismConfig = field(default_factory=PismConfig)
    cmab: CmabConfig = field(default_factory=CmabConfig)
    cde: CdeConfig = field(default_factory=CdeConfig)
    ace: AceConfig = field(default_factory=AceConfig)
    drm: DrmConfig = field(default_factory=DrmConfig)

    @property
    def measures(self) -> list[Measure]:
        """All measures to score, without repetition; `measure` comes first."""
        return list(dict.fromkeys([self.measure, *self.extra_measures]))

    def section(self, measure: Measure) -> Any:
        """The settings of a measure."""
        return getattr(self, measure.value)

    def check(self) -> Problems:
        if not definition(self.measure).has_strata:
            stratifying = [name for name in Measure if definition(name).has_strata]
            yield "measure", f"must be a measure with strata: {', '.join(stratifying)}"
        if len(set(self.extra_measures)) < len(self.extra_measures):
            yield "extra_measures", "names a measure twice"
        corrected = self.pism.chance_correction is not ChanceCorrection.none
        if corrected and Measure.pism not in self.measures:
            rule = "needs pism as difficulty.measure or in difficulty.extra_measures"
            yield "pism.chance_correction", rule


@dataclass(kw_only=True, slots=True)
class SelectConfig:
    """Which samples are trained on: those of some strata, or those that RAP selects."""

    strata: list[Stratum] = field(default_factory=lambda: [Stratum.hard])
    """The strata on which GRPO trains; empty if `rap` selects the samples."""
    rap: list[Measure] = field(default_factory=list)
    """The measures by which RAP selects: cde, ace, drm, or some of them; empty without RAP."""
    random: bool = False
    """true: train on random scored samples instead, as many as the strata or RAP select."""
    ids: str | None = setting(None, fingerprint=())  # paths.py hashes the file's content
    """A text file with one sample_id per line (the explorer exports it). GRPO trains on exactly
    these samples; select.strata and select.rap then have no influence."""
    sft_strata: list[Stratum] = setting(default_factory=list, fingerprint=("select_sft",))
    """The strata on which SFT trains before GRPO; empty if the recipe has no SFT."""
    sft_random: bool = setting(False, fingerprint=("select_sft",))
    """true: train SFT on random samples with a target instead, as many as sft_strata select."""

    def check(self) -> Problems:
        if not self.strata and not self.rap:
            yield "strata", "must name at least one stratum, unless select.rap names measures"
        if self.strata and self.rap:
            yield "strata", "must be empty ([]) if select.rap names measures"
        for name, item in (("strata", "stratum"), ("sft_strata", "stratum"), ("rap", "measure")):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                yield name, f"names a {item} twice"
        if self.sft_random and not self.sft_strata:
            yield "sft_random", "needs select.sft_strata, which set the number of samples"
        if any(measure not in RAP_MEASURES for measure in self.rap):
            yield "rap", f"may name only {', '.join(RAP_MEASURES)}"
        if self.ids is not None and not Path(self.ids).expanduser().is_file():
            yield "ids", "there is no such file"
        elif self.ids is not None and not self.listed_ids:
            yield "ids", "the file lists no sample_id (one per line)"

    @property
    def listed_ids(self) -> list[str]:
        """The ids in the file `ids`, each once, sorted; empty without a file."""
        if self.ids is None:
            return []
        lines = Path(self.ids).expanduser().read_text(encoding="utf-8").splitlines()
        return sorted({line.strip() for line in lines} - {""})


@dataclass(kw_only=True, slots=True)
class GradeConfig:
    """When an answer is correct. By default only a correct answer has credit."""

    text: TextCredit = TextCredit.exact
    """strict: equal to the gold answer, ignoring case, width and spacing; exact: also without
    layout, such as LaTeX, quotes, end punctuation and articles; similarity: exact, else a credit of
    1 - edit distance / length of the longer text; anls: that credit, but 0 below 0.5, the score of
    DocVQA (Biten et al. 2019); vqa: VQA accuracy (Antol et al. 2015)."""
    text_correct_min: float = setting(1.0, above=0, at_most=1)
    """With text=similarity or text=anls, the smallest score that counts as correct."""
    boxes: BoxesCredit = BoxesCredit.exact
    """exact: credit only if all boxes match; f1: 2 x matched / (boxes of answer + boxes of gold).
    Either way an answer is correct only if f1 = 1."""
    boxes_iou: float = setting(0.5, above=0, at_most=1)
    """Smallest intersection over union at which two boxes match."""
    box_coordinates: BoxCoordinates | None = setting(None, fingerprint=())
    """pixels: responses have boxes in pixels of the image that the model gets (Qwen2.5-VL);
    relative: in 0 to 1000 along both sides (Qwen3-VL, GLM-4V, InternVL). null: as model.name's
    family has them (difftrain/model/family.py), pixels if that is unknown."""
    number_tolerance: float = setting(0.0, at_least=0, below=0.5)
    """Largest relative error at which a decimal number is still correct; 0: must be equal."""
    convert_units: bool = False
    """Whether 2 hours is correct for 120 minutes. A missing unit is always accepted."""

    def check(self) -> Problems:
        has_score = self.text in (TextCredit.similarity, TextCredit.anls)
        if self.text_correct_min < 1 and not has_score:
            yield "text_correct_min", "below 1 needs grade.text=similarity or grade.text=anls"
