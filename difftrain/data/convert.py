"""A row of any format becomes a Sample: images decoded, the gold answer checked.

A format (formats.py) turns its columns into a RawRow; everything after that is here, once, so that
every source gives the same Sample. Not here: reading rows (readers.py), the limit (dataset.py).
"""

from dataclasses import dataclass
from typing import Any

from difftrain import images
from difftrain.config.data import BoxFormat, DataConfig
from difftrain.data import answers, prompts, storage
from difftrain.data.answers import GoldError
from difftrain.data.storage import Storage
from difftrain.grade import gold_problem
from difftrain.images import DecodedImage, ImageError, PixelBudget
from difftrain.records import AnswerKind, Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRow:
    """What a row holds, before anything is decoded or checked.

    `images` are references (storage.read_reference, which takes `by_tail` and `below`).
    `box_format` is given where the format has its own. `blank_is_none`: white images stand for no
    image.
    """

    images: tuple[Any, ...]
    question: str
    gold: str
    task: str = "unknown"
    options: tuple[str, ...] = ()
    answer_kind: AnswerKind | None = None
    box_format: BoxFormat | None = None
    rationale: str | None = None
    by_tail: bool = False
    below: str | None = None
    blank_is_none: bool = False


def convert(
    row: RawRow, place: str, files: Storage, config: DataConfig
) -> tuple[Sample, list[DecodedImage]]:
    """A row as Sample, and its decoded images. Raises RowError or ImageError."""
    kind = row.answer_kind or answers.infer_kind(row.gold, row.task, row.question, row.options)
    answer = row.gold
    if kind is AnswerKind.choice:
        answer = answers.choice_letter(answer, row.options)
    if not answer:
        raise GoldError("it is empty")
    if kind is not AnswerKind.boxes:
        check_gold(answer, kind, row.options)
    decoded = decode_images(row, files, config)
    if kind is AnswerKind.boxes:
        if len(decoded) != 1:
            raise GoldError(f"boxes need exactly one image, not {len(decoded)}")
        box_format = row.box_format or config.box_format
        answer = answers.boxes_in_model_pixels(answer, decoded[0], box_format)
        check_gold(answer, kind, row.options)
    # The options are part of the question: the same text with other options is another row.
    # White space around it is not, so that an exported row keeps its id when it is read again.
    text = prompts.user_text(row.question, row.options).strip()
    sample = Sample(
        sample_id=images.sample_id([(image.size, image.rgb) for image in decoded], text, answer),
        images=tuple(image.png for image in decoded),
        question=row.question,
        answer=answer,
        answer_kind=kind,
        options=row.options,
        task=row.task,
        task_set=answers.task_set(row.task, kind),
        source=place,
        rationale=row.rationale,
    )
    return sample, decoded


def check_gold(answer: str, kind: AnswerKind, options: tuple[str, ...]) -> None:
    """Raises RowError for a gold answer that its grader cannot parse."""
    if problem := gold_problem(answer, kind, options):
        raise GoldError(problem)


def decode_images(row: RawRow, files: Storage, config: DataConfig) -> list[DecodedImage]:
    """The row's images, decoded and inside the pixel budget. Raises ImageError."""
    budget = PixelBudget(config.min_pixels, config.max_pixels)
    decoded = []
    for reference in row.images:
        raw = storage.read_reference(reference, files, by_tail=row.by_tail, below=row.below)
        decoded.append(images.decode(raw, budget))
    if row.blank_is_none and all(image.is_white for image in decoded):
        raise ImageError("no image: only the blank one that means there is none")
    return decoded
