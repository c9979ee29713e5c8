"""Rows of a .jsonl become Samples, one line at a time; what cannot is Quarantined with a reason.

Two formats, told apart row by row: the released one (image_paths, prompt, ground_truth, ability)
and messages (messages, images, solution). Not here: the limit (load.py).
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from difftrain import lineage
from difftrain.data import boxes, conversation, golds, images, pictures, prompts
from difftrain.data.config import DataConfig
from difftrain.data.quarantine import Quarantined, Unusable
from difftrain.grade import gold_problem
from difftrain.records import AnswerKind, Sample

PLACEHOLDER = re.compile(r"<image>\n?")
CONTROL = re.compile(r"<\|\w+\|>")
"""The chat template's own tokens, such as <|image_pad|>, which would break the prompt."""
FORMATS = (("image_paths", "prompt", "ground_truth"), ("images", "messages", "solution"))
"""Columns that hold pictures, words and gold."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a row holds, before anything is decoded or judged."""

    pictures: tuple[Any, ...]
    question: str
    gold: str
    task: str
    options: tuple[str, ...]
    kind: AnswerKind | None


def rows(path: Path, config: DataConfig) -> Iterator[Sample | Quarantined]:
    """The rows of a file, in order, one item a row (blank lines are no rows); line by line.

    A row whose pictures, words and gold equal an earlier one's is quarantined as a duplicate.
    """
    first_seen: dict[str, str] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            source = f"{path.name}:{number}"
            try:
                found = sample(asked(parsed(line)), source, path.parent, config)
            except Unusable as error:
                yield Quarantined(source, error.reason)
                continue
            first = first_seen.setdefault(found.sample_id, source)
            if first == source:
                yield found
            else:
                told = f"duplicate: the same pictures, question and answer as {first}"
                yield Quarantined(source, told)


def parsed(line: bytes) -> dict[str, Any]:
    """One line as an object. Raises Unusable."""
    try:
        row = json.loads(line.decode("utf-8-sig"))
        # Half a surrogate pair is JSON, but no file can hold it.
        json.dumps(row, ensure_ascii=False).encode()
    except RecursionError as error:
        raise Unusable("not JSON: nested too deeply") from error
    except ValueError as error:
        raise Unusable(f"not JSON: {error}") from error
    if not isinstance(row, dict):
        raise Unusable(f"not an object: the line is a {type(row).__name__}, not {{...}}")
    return row


def asked(row: Mapping[str, Any]) -> Asked:
    """A row of either format. Raises Unusable."""
    keys = FORMATS[1] if "messages" in row else FORMATS[0]
    found = ", ".join(sorted(row)) or "none"
    if missing := [key for key in keys[1:] if key not in row]:
        either = " (or messages, images, solution)" if keys is FORMATS[0] else ""
        raise Unusable(f"missing keys: {', '.join(missing)}{either}; found: {found}")
    pictured, worded, gold = keys
    listed = row.get(pictured)
    listed = [listed] if isinstance(listed, str | dict) else listed
    if not isinstance(listed, list) or not listed:
        raise Unusable(f"no picture: {pictured} is absent or empty; keys found: {found}")
    text, parts = conversation.words(row[worded])
    return Asked(
        pictures=tuple(listed),
        question=without_placeholders(text, len(listed), parts),
        gold=golds.opened(gold_text(row[gold])),
        task=str(row.get("ability") or "unknown").strip().lower(),
        options=golds.without_marks(option_texts(row.get("options", row.get("choices")))),
        kind=stated_kind(row.get("answer_kind")),
    )


def without_placeholders(text: str, listed: int, parts: int) -> str:
    """The question alone: pictures go first, as prompts.messages puts them. Raises Unusable.

    `parts` are image parts of the message, counted like <image> in its text.
    """
    marks = len(PLACEHOLDER.findall(text)) + parts
    if marks not in (0, listed):
        raise Unusable(f"placeholder mismatch: {marks} <image>, but {listed} pictures")
    if not (question := PLACEHOLDER.sub("", text).strip()):
        raise Unusable("empty question: nothing is left beside <image>")
    if found := CONTROL.search(question):
        raise Unusable(f"control token in the question: {found.group()}")
    return question


def gold_text(value: Any) -> str:
    """A gold column as text: strings as they are, numbers and lists of boxes as in JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def option_texts(value: Any) -> tuple[str, ...]:
    """A column of options. Raises Unusable."""
    if value is None:
        return ()
    if not isinstance(value, list) or not all(type(each) in (str, int, float) for each in value):
        raise Unusable("unusable options: must be a list of texts or numbers")
    return tuple(str(each) for each in value)


def stated_kind(value: Any) -> AnswerKind | None:
    """The answer_kind column, None where it is absent or null. Raises Unusable."""
    if value is None:
        return None
    if value not in list(AnswerKind):
        raise Unusable(f"unknown answer_kind: {value!r}; known: {', '.join(AnswerKind)}")
    return AnswerKind(value)


def sample(row: Asked, source: str, folder: Path, config: DataConfig) -> Sample:
    """A row as Sample, its pictures decoded and its gold checked. Raises Unusable."""
    kind = row.kind or golds.kind_of(row.gold, row.task, row.question, row.options)
    options = row.options
    answer = golds.as_choice(row.gold, options) if kind is AnswerKind.choice else row.gold
    if not answer:
        raise Unusable("unusable gold: it is empty")
    budget = images.Budget(config.min_pixels, config.max_pixels)
    shown = [images.load(pictures.fetched(each, folder), budget) for each in row.pictures]
    if kind is AnswerKind.boxes:
        if len(shown) != 1:
            raise Unusable(f"unusable gold: boxes need exactly one picture, not {len(shown)}")
        answer = boxes.in_model_pixels(answer, shown[0], config.boxes)
    if trouble := gold_problem(answer, kind, options):
        raise Unusable(f"unusable gold: {trouble}")
    # The options are part of what is asked: the same words with other options are another row.
    words = prompts.user_text(row.question, options)
    return Sample(
        sample_id=lineage.sample_id([(each.size, each.rgb) for each in shown], words, answer),
        images=tuple(each.png for each in shown),
        question=row.question,
        answer=answer,
        answer_kind=kind,
        options=options,
        task=row.task,
        task_set=golds.task_set(row.task, kind),
        source=source,
    )
