"""The six records that the stages write and read, and the enumerations in them.

Field names are the parquet columns, the W&B keys and the words of the docs. pipeline/parquet.py
writes and reads the records.

Axes: L layers, T response tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class AnswerKind(StrEnum):
    """The kind of the gold answer; each kind has its own grader."""

    choice = "choice"
    number = "number"
    count = "count"  # pyright: ignore[reportAssignmentType]  # shadows a str method
    text = "text"
    boxes = "boxes"


class TaskSet(StrEnum):
    """The two task sets of Qi et al. 2026, Table A."""

    reasoning = "reasoning"
    perception = "perception"


class View(StrEnum):
    """Which part of the sample the model sees."""

    full_image = "full_image"
    masked = "masked"
    text_only = "text_only"


class Verdict(StrEnum):
    """The grader's verdict. `unparsable` is not `incorrect`: it is reported separately."""

    correct = "correct"
    incorrect = "incorrect"
    unparsable = "unparsable"


class Measure(StrEnum):
    """The difficulty measures of Qi et al. 2026 (pism, cmab), of RAP (cde, ace, drm), and ours.

    The module difficulty/<name>.py defines a measure, and its name here registers it.
    """

    pism = "pism"  # the masked share of the image at which the model fails
    cmab = "cmab"  # attention to the image, divided by attention to the text
    cde = "cde"  # accuracy with the image minus accuracy without it
    ace = "ace"  # how much a response depends on one of its own tokens
    drm = "drm"  # the share of incorrect responses to the full image
    pass_rate = "pass_rate"  # the share of correct responses, as a posterior mean
    image_gain = "image_gain"  # log-probability of the gold answer with the image minus without


class Stratum(StrEnum):
    """The four difficulty strata of Qi et al. 2026."""

    easy = "easy"
    medium = "medium"
    hard = "hard"
    unsolved = "unsolved"


class TrainStage(StrEnum):
    """The training stage that a sample is selected for."""

    sft = "sft"
    grpo = "grpo"


class Arm(StrEnum):
    """A compared model: untrained, trained by the recipe, or trained on as many random samples."""

    base = "base"
    tuned = "tuned"
    control = "control"


class GradedBy(StrEnum):
    """What decided the score of a benchmark item: a rule, or a judge (a language model)."""

    rule = "rule"
    judge = "judge"


class ItemStatus(StrEnum):
    """Whether a benchmark item has a score. A later run retries failed items, not skipped ones."""

    scored = "scored"
    skipped = "skipped"
    failed = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A question with its images and its gold answer.

    If a question has several gold answers, `accepted` holds all of them, `answer` the first; one
    that several people gave stands there as often. `images` are PNG bytes within the pixel budget;
    a sample from a stage's folder reads them from disk at each access. Only generated samples have
    `requires_image` and `gen_difficulty` (the difficulty that the generator used, 0 to 1).
    `rationale` is the answer's reasoning. `extra` has the row's other columns, as a JSON object.
    """

    sample_id: str
    images: Sequence[bytes] = field(repr=False)
    question: str
    answer: str
    answer_kind: AnswerKind
    options: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()
    task: str
    task_set: TaskSet
    source: str
    requires_image: bool | None = None
    gen_difficulty: float | None = None
    rationale: str | None = None
    extra: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """Response number `draw` to one view of a sample. `token_ids` include the end token, if any.

    `parsed_answer` and `parsed_gold` are what the grader compared by `rule`; an unparsable answer
    has no parsed answer.
    """

    sample_id: str
    view: View
    mask_percent: int
    draw: int
    seed: int
    response: str
    num_tokens: int
    token_ids: tuple[int, ...] = field(repr=False)
    hit_eos: bool
    verdict: Verdict
    parsed_answer: str | None = None
    parsed_gold: str = ""
    rule: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """How much attention a response's tokens pay to the image and to the text, averaged over heads.

    `image_tokens` and `text_tokens` are the numbers of prompt tokens that each value sums over.
    `max_log_psi` is ACE's value, how biased attention is towards one token (None if undefined).
    """

    sample_id: str
    draw: int
    image_tokens: int
    text_tokens: int
    image_LT: tuple[tuple[float, ...], ...] = field(repr=False)
    text_LT: tuple[tuple[float, ...], ...] = field(repr=False)
    max_log_psi: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One measure's value and stratum for one sample; None if the measure does not define it."""

    sample_id: str
    measure: Measure
    value: float | None
    stratum: Stratum | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """One sample selected for one training stage, and the reason."""

    sample_id: str
    stage: TrainStage
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemResult:
    """One benchmark item graded for one checkpoint.

    An item without a score was skipped (its image is unusable) or failed (no response, or no
    reply of the judge); `error` says why. `response` is None if the model gave none. `graded_by` is
    None if neither decided: the score is 0 or, with fallback=random, that of a random option.
    """

    benchmark: str
    item_id: str
    response: str | None
    extracted: str | None
    score: float | None
    graded_by: GradedBy | None
    status: ItemStatus = ItemStatus.scored
    error: str | None = None
    category: str
