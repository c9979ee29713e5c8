"""What a row of any format asks, and that becoming a Sample: pictures decoded, gold checked.

A format (formats/) turns its columns into an `Asked`; all that follows is here, once, so that every
source gives the same Sample. Not here: reading rows (containers.py), the limit (load.py).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from difftrain import images
from difftrain.config.data import BoxFormat, DataConfig
from difftrain.data import boxes, conversation, golds, pictures, prompts
from difftrain.data.quarantine import RowError
from difftrain.data.store import Store
from difftrain.grade import gold_problem
from difftrain.records import AnswerKind, Sample

PLACEHOLDER = re.compile(r"<image>\n?")
CONTROL = re.compile(r"<\|\w+\|>")
"""The chat template's own tokens, such as <|image_pad|>, which would break the prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a row holds, before anything is decoded or judged.

    `scale` is what gold boxes count, where the format says so. `anywhere` looks for pictures by the
    tail of their path, `within` below this folder, loose or in a tar. `blank_is_none` takes
    pictures of one white for none.
    """

    pictures: tuple[Any, ...]
    question: str
    gold: str
    task: str = "unknown"
    options: tuple[str, ...] = ()
    kind: AnswerKind | None = None
    scale: BoxFormat | None = None
    rationale: str | None = None
    anywhere: bool = False
    within: str | None = None
    blank_is_none: bool = False


def needed(row: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    """Raises RowError naming the keys that the row lacks and those it has."""
    if missing := [key for key in keys if key not in row]:
        found = ", ".join(sorted(row)) or "none"
        raise RowError(f"missing keys: {', '.join(missing)}; found: {found}")


def listed(row: Mapping[str, Any], *keys: str) -> tuple[Any, ...]:
    """The pictures of the first of these columns that holds any. Raises RowError if none does."""
    for key in keys:
        held = row.get(key)
        held = [held] if isinstance(held, str | dict | bytes) else held
        if isinstance(held, list) and held:
            return tuple(held)
    found = ", ".join(sorted(row)) or "none"
    raise RowError(f"no image: {' and '.join(keys)} is absent or empty; keys found: {found}")


def question(asked: Any, listed: int) -> str:
    """The words of a prompt or a conversation, without placeholders. Raises RowError."""
    text, parts = conversation.words(asked)
    return without_placeholders(text, listed, parts)


def without_placeholders(text: str, listed: int, parts: int = 0) -> str:
    """The question alone: pictures go first, as prompts.messages puts them. Raises RowError.

    `parts` are image parts of the message, counted like <image> in its text.
    """
    marks = len(PLACEHOLDER.findall(text)) + parts
    if marks not in (0, listed):
        raise RowError(f"placeholder mismatch: {marks} <image>, but {listed} pictures")
    if not (question := PLACEHOLDER.sub("", text).strip()):
        raise RowError("empty question: nothing is left beside <image>")
    if found := CONTROL.search(question):
        raise RowError(f"control token in the question: {found.group()}")
    return question


def gold_text(value: Any) -> str:
    """A gold column as text: strings as they are, numbers and lists of boxes as in JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def option_texts(value: Any) -> tuple[str, ...]:
    """A column of options. Raises RowError."""
    if value is None:
        return ()
    if not isinstance(value, list) or not all(type(each) in (str, int, float) for each in value):
        raise RowError("unusable options: must be a list of texts or numbers")
    return golds.without_marks(tuple(str(each) for each in value))


def stated_kind(value: Any) -> AnswerKind | None:
    """The answer_kind column, None where it is absent or null. Raises RowError."""
    if value is None:
        return None
    if value not in list(AnswerKind):
        raise RowError(f"unknown answer_kind: {value!r}; known: {', '.join(AnswerKind)}")
    return AnswerKind(value)


def task_of(row: Mapping[str, Any], *keys: str) -> str:
    """The task that the first of these columns names, in lower case; unknown where none does."""
    named = (row.get(key) for key in keys)
    return next(
        (each.strip().lower() for each in named if isinstance(each, str) and each), "unknown"
    )


def shown(row: Asked, store: Store, config: DataConfig) -> list[images.DecodedImage]:
    """The row's pictures, decoded and inside the budget. Raises RowError."""
    budget = images.PixelBudget(config.min_pixels, config.max_pixels)
    found = [
        images.decode(pictures.fetched(each, store, row.anywhere, row.within), budget)
        for each in row.pictures
    ]
    if row.blank_is_none and all(each.is_white for each in found):
        raise RowError("no image: only the blank one that stands for none")
    return found


def sample(
    row: Asked, source: str, store: Store, config: DataConfig
) -> tuple[Sample, list[images.DecodedImage]]:
    """A row as Sample, and its pictures as decoded. Raises RowError."""
    kind = row.kind or golds.kind_of(row.gold, row.task, row.question, row.options)
    options = row.options
    answer = golds.as_choice(row.gold, options) if kind is AnswerKind.choice else row.gold
    if not answer:
        raise RowError("unusable gold: it is empty")
    if kind is not AnswerKind.boxes and (trouble := gold_problem(answer, kind, options)):
        raise RowError(f"unusable gold: {trouble}")
    found = shown(row, store, config)
    if kind is AnswerKind.boxes:
        if len(found) != 1:
            raise RowError(f"unusable gold: boxes need exactly one picture, not {len(found)}")
        answer = boxes.in_model_pixels(answer, found[0], row.scale or config.box_format)
        if trouble := gold_problem(answer, kind, options):
            raise RowError(f"unusable gold: {trouble}")
    # The options are part of what is asked: the same words with other options are another row.
    # White space around them is not, so that an exported row keeps its id when it is read again.
    words = prompts.user_text(row.question, options).strip()
    made = Sample(
        sample_id=images.sample_id([(each.size, each.rgb) for each in found], words, answer),
        images=tuple(each.png for each in found),
        question=row.question,
        answer=answer,
        answer_kind=kind,
        options=options,
        task=row.task,
        task_set=golds.task_set(row.task, kind),
        source=source,
        rationale=row.rationale,
    )
    return made, found
