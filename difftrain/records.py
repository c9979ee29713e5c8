"""The six records that every stage reads or writes, and the words they are made of.

Field names are the parquet columns, the W&B keys and the words of the docs. pipeline/parquet.py
writes and reads them.

Axes: L layers, T response tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class AnswerKind(StrEnum):
    """What the gold answer is; each kind has its grader."""

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
    """The grader's verdict. `unparsable` is not `incorrect`: it is counted and reported apart."""

    correct = "correct"
    incorrect = "incorrect"
    unparsable = "unparsable"


class Measure(StrEnum):
    """The difficulty measures: pism and cmab of Qi et al. 2026, cde, ace and drm of RAP."""

    pism = "pism"
    cmab = "cmab"
    cde = "cde"
    ace = "ace"
    drm = "drm"


class Stratum(StrEnum):
    """The four difficulty strata of Qi et al. 2026."""

    easy = "easy"
    medium = "medium"
    hard = "hard"
    unsolved = "unsolved"


class TrainStage(StrEnum):
    """The training stage a sample is given to."""

    sft = "sft"
    grpo = "grpo"


class Arm(StrEnum):
    """Which checkpoint: the base model, the recipe's own training, or its random control's."""

    base = "base"
    tuned = "tuned"
    control = "control"


class GradedBy(StrEnum):
    """Who decided the score of a benchmark item."""

    rule = "rule"
    judge = "judge"


class ItemStatus(StrEnum):
    """Whether a benchmark item has a score, and if not, whether a next run tries it again."""

    scored = "scored"
    skipped = "skipped"
    failed = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A question with its images and its gold answer.

    `images` are PNG bytes inside the pixel budget; those of a sample from a stage's folder are read
    from disk at each access. `requires_image` and `gen_difficulty` (0 simplest to 1 hardest) are
    known for the shapes world alone, else None. `rationale` is the reasoning behind the answer.
    """

    sample_id: str
    images: Sequence[bytes] = field(repr=False)
    question: str
    answer: str
    answer_kind: AnswerKind
    options: tuple[str, ...] = ()
    task: str
    task_set: TaskSet
    source: str
    requires_image: bool | None = None
    gen_difficulty: float | None = None
    rationale: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One response of one model under one view. `token_ids` include any end token."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Where one response attends: mass per layer and response token, mean over heads.

    `image_tokens` and `text_tokens` are how many prompt tokens each mass is summed over.
    `max_log_psi` is ACE's largest log psi (None where no column is left or ACE is not measured).
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
    """One measure's value and stratum of one sample; None where it has none."""

    sample_id: str
    measure: Measure
    value: float | None
    stratum: Stratum | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """One sample given to one training stage, and the reason."""

    sample_id: str
    stage: TrainStage
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemResult:
    """One benchmark item graded for one checkpoint.

    Without a score it was skipped (its image cannot be shown) or failed (no response, or no reply
    of the judge); `error` says why, and `response` is None where the model gave none. `graded_by`
    is None where nothing decided: the score is then 0, or that of an option drawn at random.
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
