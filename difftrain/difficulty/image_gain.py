"""Image gain: how much more likely does the image make the gold answer?

    gain = log p(answer | image, question) - log p(answer | question)

in nats, summed over the answer's tokens. This is the pointwise mutual information of answer and
image given the question, under the model; with one model fine-tuned for each term it would be the
pointwise V-information of Ethayarajh et al. 2022 ("Understanding Dataset Difficulty with V-Usable
Information"). Its mean over tokens is the difference of two log-perplexities, as in the visual
information gain of Lee and Hwang 2026 (arXiv 2602.17186).

Two forward passes (probe/likelihood_pass.py) measure it, and no response is generated. A gain near
0 means that the model does not use the image for the answer: the text alone suggests it, or the
model cannot tell it at all. So the gain has no strata. A sample without an image has no gain.

A model that reads the image only while it thinks, like the tiny one, cannot show it in an answer
after an empty thought. For such a model `target: rationale` scores the data's thought, too.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from difftrain.config.setting import setting
from difftrain.difficulty.definition import Definition

if TYPE_CHECKING:  # the settings of all measures import this module
    from difftrain.config.difficulty import DifficultyConfig, ProbeConfig
    from difftrain.difficulty.evidence import AnswerLikelihood, Evidence

LikelihoodTarget = StrEnum("LikelihoodTarget", ["answer", "rationale"])
"""What is scored: the gold answer alone, or the data's rationale and the answer."""
WithoutImage = StrEnum("WithoutImage", ["text_only", "blank"])
"""What replaces the sample's image in the second pass."""
LIKELIHOOD_STAGES = ("likelihood", "score")  # depend on what is scored


@dataclass(kw_only=True, slots=True)
class ImageGainConfig:
    """Image gain: the gold answer's log-probability with the image minus that without it."""

    target: LikelihoodTarget = setting(LikelihoodTarget.answer, fingerprint=LIKELIHOOD_STAGES)
    """answer: the gold answer after an empty thought; rationale: the data's rationale and the
    answer, as SFT learns them (only shapes and mulberry have rationales)."""
    without_image: WithoutImage = setting(WithoutImage.text_only, fingerprint=LIKELIHOOD_STAGES)
    """text_only: the prompt has no image, as in CDE; blank: a black image of the same size."""


def gain(with_image: float, without_image: float) -> float:
    """The difference of the answer's two log-probabilities, in nats."""
    return with_image - without_image


def _likelihood(evidence: "Evidence") -> "AnswerLikelihood":
    if evidence.likelihood is None:
        raise ValueError("the likelihood of the gold answer was not measured")
    return evidence.likelihood


def score(
    evidence: "Evidence", _config: "DifficultyConfig", _probe: "ProbeConfig"
) -> tuple[float | None, None]:
    """The gain of one sample; None without an image. Raises ValueError if it was not measured."""
    row = _likelihood(evidence)
    if row.with_image is None or row.without_image is None:
        return None, None
    return gain(row.with_image, row.without_image), None


MEASURE = Definition(
    meaning="how much more likely the image makes the gold answer, in nats",
    score=score,
    settings=ImageGainConfig,
    keeps=lambda value, _config: value > 0,
)
