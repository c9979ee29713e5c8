"""Converts a row of any format to a RawRow, by the names of its columns.

A RowError begins with a short reason, such as "empty question", by which rejected rows are counted
(quarantine.py).
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from difftrain.config.data import BoxFormat, DataConfig, TextOnly
from difftrain.data import answers, prompts
from difftrain.data.quarantine import RowError
from difftrain.data.readers import Row
from difftrain.data.storage import Storage
from difftrain.records import AnswerKind

MAX_EXTRA_CHARS = 2000  # our choice; a longer value of a column that is not read is left out


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRow:
    """The fields of a row before images are decoded and answers checked.

    `gold` is the first of the `accepted` answers if there are several. `images` are references
    (storage.resolve_reference). `find_image` finds an image whose path in the row is not its path
    in the storage. `box_format`, if set, overrides data.box_format. `blank_is_none`: a row whose
    images are all white has no image. `extra` has the columns that are not read.
    """

    images: tuple[Any, ...]
    question: str
    gold: str
    accepted: tuple[str, ...] = ()
    task: str = "unknown"
    options: tuple[str, ...] = ()
    answer_kind: AnswerKind | None = None
    box_format: BoxFormat | None = None
    rationale: str | None = None
    find_image: Callable[[Storage, str], bytes] | None = None
    blank_is_none: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RowContext:
    """Where a row is from: the storage of its file, "FILE:NUMBER", and the settings."""

    files: Storage
    location: str
    config: DataConfig

    @property
    def keeps_text_only(self) -> bool:
        """Whether a row may have no image."""
        return self.config.text_only is TextOnly.keep


@dataclass(frozen=True, slots=True)
class Columns:
    """A format's column names. Spaces separate alternatives; the first that is not null is used.

    `a.b` is field b of column a. If a `required` column is missing, `hint` is added to the error.
    `from_response`: without an answer column, the gold answer is the assistant's last turn in
    `completion` or in the question's messages.
    """

    images: str
    question: str
    answer: str
    required: str = ""
    task: str = ""
    options: str = ""
    default_task: str = "unknown"
    from_response: bool = False
    hint: str = ""

    @property
    def names(self) -> set[str]:
        """All columns that these names read."""
        fields = (self.images, self.question, self.answer, self.required, self.task, self.options)
        names = {name.split(".")[0] for text in fields for name in text.split()}
        return names | {"answer_kind", "completion"}


def from_columns(row: Row, columns: Columns, context: RowContext) -> RawRow:
    """Convert a row by its column names alone. Raises RowError."""
    require_keys(row, columns.required, columns.hint)
    references = image_references(row, columns.images, context)
    if (prompt := first_value(row, columns.question)) is None:
        raise _missing_keys_error(row, columns.question.split()[0])  # its usual name
    question = prompts.question_text(prompt, len(references))
    kind = row.get("answer_kind")
    if kind is not None and kind not in list(AnswerKind):
        raise RowError(f"unknown answer_kind: {kind!r}; allowed: {', '.join(AnswerKind)}")
    task = task_name(row, columns.task, columns.default_task)
    golds = gold_answers(row, columns, prompt, "detection" if kind == "boxes" else task)
    options = answers.option_texts(first_value(row, columns.options))
    options = answers.strip_option_marks(options)
    gold = first_value(row, columns.answer)
    if type(gold) is int and kind in (None, AnswerKind.choice):
        golds = (answers.option_letter_of_index(gold, options) or golds[0],)
    return RawRow(
        images=references,
        question=question,
        gold=golds[0],
        accepted=golds if len(golds) > 1 else (),
        task=task,
        options=options,
        answer_kind=None if kind is None else AnswerKind(kind),
        extra=extra_columns(row, columns.names),
    )


def gold_answers(row: Row, columns: Columns, prompt: Any, task: str) -> tuple[str, ...]:
    """The accepted answers in the answer column, else the answer in the assistant's last turn.

    Raises RowError if there is none.
    """
    gold = first_value(row, columns.answer)
    if gold is not None or not columns.from_response:
        is_boxes = answers.KIND_OF_TASK.get(task.removeprefix("cv_")) is AnswerKind.boxes
        accepted = None if is_boxes else answers.accepted_answers(gold)
        return accepted or (answers.gold_text(gold, task),)
    response = row.get("completion")
    if not isinstance(response, str):
        response = prompts.last_response(response or prompt)
    if response is None:
        raise _missing_keys_error(row, columns.answer.split()[0])  # its usual name
    return (answers.answer_of_response(response),)


def extra_columns(row: Row, names: set[str]) -> dict[str, Any]:
    """The columns other than `names` that JSON can hold in MAX_EXTRA_CHARS characters."""
    extra = {}
    for name, value in row.items():
        if name not in names and value is not None:
            try:
                is_short = len(json.dumps(value, allow_nan=False)) <= MAX_EXTRA_CHARS
            except (TypeError, ValueError):
                continue  # bytes, dates, not a number
            if is_short:
                extra[name] = value
    return extra


def first_value(row: Row, names: str) -> Any:
    """The first value in these columns that is not null; None if all are null."""
    for name in names.split():
        value: Any = row
        for key in name.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None:
            return value
    return None


def require_keys(row: Row, keys: str, hint: str = "") -> None:
    """Raises RowError if the row lacks a key; it names the missing and the existing keys."""
    if missing := [key for key in keys.split() if key not in row]:
        error = _missing_keys_error(row, ", ".join(missing) + hint)
        raise RowError(f"{error}; data=auto recognizes more names")


def _missing_keys_error(row: Row, missing: str) -> RowError:
    return RowError(f"missing keys: {missing}; found: {_key_list(row)}")


def _key_list(row: Row) -> str:
    return ", ".join(sorted(row)) or "none"


def image_references(row: Row, columns: str, context: RowContext) -> tuple[Any, ...]:
    """The image references in the first non-empty column.

    If all are empty: raises RowError, or returns () with data.text_only=keep.
    """
    names = columns.split()
    for name in names:
        value = row.get(name)
        value = [value] if isinstance(value, str | dict | bytes) else value
        if isinstance(value, list) and value:
            return tuple(value)
    if context.keeps_text_only and not any(row.get(name) for name in names):
        return ()
    missing = f"{' and '.join(names)} is absent or empty"
    raise RowError(f"no image: {missing}; keys found: {_key_list(row)}")


def task_name(row: Row, names: str, default: str = "unknown") -> str:
    """The task, in lower case, from the first of these columns that has text, else the default."""
    values = [row.get(name) for name in names.split()]
    tasks = [value.strip().lower() for value in values if value and isinstance(value, str)]
    return tasks[0] if tasks else default
