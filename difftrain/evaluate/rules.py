"""Option matching as the reference harness does it, and what changed in it on which date.

Shared by MathVista, MMMU and MMStar. Its accidents are kept on purpose: "$70" contains "$7".
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from difftrain.config.evaluate import EvaluateConfig, HarnessOverrides


@dataclass(frozen=True, slots=True)
class Switches:
    """What the harness's matching did at a date, and where we were told to differ from it."""

    near_the_end: bool
    """A lone letter counts only among the last four tokens (since 2025-08-04)."""
    short_only: bool
    """Option texts are looked for only in predictions of bounded length (since 2025-08-04)."""
    answer_is: bool
    """"answer is X" is looked for, without a word boundary (since 2026-06-17)."""
    deviations: HarnessOverrides = field(default_factory=HarnessOverrides)
    """All off, but for the random fallback, which counts as wrong."""
    through_tables: bool = False
    """Predictions have been through the harness's tables, which turn NOT_TEXTS into `nan`."""


Rules = str | Switches
"""A date of the harness, or its switches with deviations."""


RULES = {
    "2025-07": Switches(near_the_end=False, short_only=False, answer_is=False),
    "2025-11": Switches(near_the_end=True, short_only=True, answer_is=False),
    "2026-08": Switches(near_the_end=True, short_only=True, answer_is=True),
}
"""By the date of the harness: commits 44d698f8, 19c0e386 (the paper's) and e8e78f05."""

NOT_TEXTS = frozenset(
    [
        *("", "None", "NA", "N/A", "n/a", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "<NA>"),
        *("#N/A", "#NA", "#N/A N/A", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
    ]
)
"""Texts that the harness's tables lose: an option or a prediction of this text is empty."""
API_FAILURE = "Failed to obtain answer via API"
NONE_OF_THEM = "Z"
LAST_TOKENS = 4
REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_BLANKED = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_ANSWER_IS = re.compile(r"answer is\s*\**\s*([A-D])", re.IGNORECASE)
_ANSWER_IS_ALONE = re.compile(r"answer is\s*\**\s*([A-D])(?!\w)", re.IGNORECASE)


def switches(rules: Rules) -> Switches:
    """The switches of a date. Raises ValueError for a date that is not known."""
    if isinstance(rules, str) and rules not in RULES:
        raise ValueError(f"rules={rules!r}: must be one of {', '.join(RULES)}")
    return RULES[rules] if isinstance(rules, str) else rules


def evaluated(config: EvaluateConfig) -> Switches:
    """The rules of an evaluation: a date, deviations, and the harness's tables on the way."""
    how = switches(config.rules)
    tables = not config.harness_overrides.kept_texts
    return replace(how, deviations=config.harness_overrides, through_tables=tables)


def by_letter(prediction: str, options: Mapping[str, str], how: Switches) -> str | None:
    """The option letter that stands as a word of its own, Z for a refusal, or None."""
    if API_FAILURE in prediction:
        return None
    if any(phrase in prediction for phrase in REFUSALS):
        return NONE_OF_THEM
    tokens = prediction.translate(_BLANKED).split()
    present = [letter for letter in options if letter in tokens]
    if len(present) == 1:
        place = tokens.index(present[0])
        if not how.near_the_end or place >= len(tokens) - LAST_TOKENS:
            return present[0]
    if not present and NONE_OF_THEM in tokens:
        return NONE_OF_THEM
    wanted = _ANSWER_IS_ALONE if how.deviations.whole_letter else _ANSWER_IS
    if how.answer_is and (found := wanted.search(prediction)):
        letter = found[1].upper()
        return letter if letter in options else None
    return None


def by_text(prediction: str, options: Mapping[str, str], how: Switches) -> str | None:
    """The one option whose text occurs in the prediction, ignoring case, or None."""
    longest = 2 * sum(len(text) for text in options.values())
    if how.short_only and len(prediction) > longest:
        return None
    words = prediction.lower()
    present = [letter for letter, text in options.items() if text.lower() in words]
    return present[0] if len(present) == 1 else None


def infer(prediction: str, options: Mapping[str, str], rules: Rules) -> str | None:
    """The option a prediction means: a letter, Z (none of them), or None (the rule cannot say)."""
    how = switches(rules)
    return by_letter(prediction, options, how) or by_text(prediction, options, how)
