"""ms-swift rows: {messages, images, solution}, or query and response; boxes may stand in `objects`.

`objects` holds `ref` and `bbox`, put one after another in place of <ref-object> and <bbox>;
bbox_type real counts pixels of the original picture, norm1 runs from 0 to 1.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from difftrain.config.data import BoxFormat
from difftrain.data import conversation, golds, rows
from difftrain.data.formats.origin import Origin
from difftrain.data.quarantine import RowError
from difftrain.data.rows import Asked

REF = "<ref-object>"
MARK = re.compile(r"<ref-object>|<bbox>")
SCALES = {"real": BoxFormat.pixels, "norm1": BoxFormat.unit}
QUESTIONS = ("query", "problem", "prompt", "question", "instruction")
ANSWERS = ("solution", "answer", "response", "output")
MOST_PATH = 2000
"""A longer string is a picture in base64 (ms-swift's own rule)."""


def asked(row: Mapping[str, Any], origin: Origin) -> Asked:
    """An ms-swift row. Raises RowError."""
    pictures = tuple(map(inline, rows.listed(row, "images", "image")))
    turns = row.get("messages")
    if turns is None:
        turns = next((row[key] for key in QUESTIONS if row.get(key) is not None), None)
    if turns is None:
        raise RowError(f"missing keys: messages; found: {', '.join(sorted(row)) or 'none'}")
    placed = row.get("objects")
    boxed = None
    if isinstance(placed, dict) and isinstance(turns, list) and placed.get("bbox"):
        turns, boxed = filled(turns, placed)
    return Asked(
        pictures=pictures,
        question=rows.question(turns, len(pictures)),
        gold=boxed or gold(row, turns),
        task=rows.task_of(row, "ability", "task", "task_type"),
        options=rows.option_texts(row.get("options", row.get("choices"))),
        kind=rows.stated_kind(row.get("answer_kind")),
        scale=SCALES.get(str(placed.get("bbox_type") or "real")) if boxed and placed else None,
    )


def inline(reference: Any) -> Any:
    """A picture reference, a long string as the base64 that it is."""
    bare = isinstance(reference, str) and len(reference) > MOST_PATH
    if bare and re.fullmatch(r"[A-Za-z0-9+/=\s]+", reference) and "/" * 20 not in reference:
        return {"bytes": reference}
    return reference


def gold(row: Mapping[str, Any], turns: Any) -> str:
    """The solution column, else what the assistant says last. Raises RowError without either."""
    for key in ANSWERS:
        if row.get(key) is not None:
            return golds.opened(rows.gold_text(row[key]))
    if (said := conversation.last_answer(turns)) is None:
        raise RowError(f"missing keys: solution; found: {', '.join(sorted(row)) or 'none'}")
    return golds.spoken(said)


def filled(turns: list[Any], placed: dict[str, Any]) -> tuple[list[Any], str | None]:
    """The turns with labels in place, and the assistant's boxes as a gold, None without any."""
    labels, boxes = iter(placed.get("ref") or ()), iter(placed["bbox"])
    said: list[dict[str, Any]] = []
    done = []
    for turn in turns:
        if not isinstance(turn, dict) or not isinstance(turn.get("content"), str):
            raise RowError("not one question: objects need turns of plain text")
        found, text = spread(turn["content"], labels, boxes)
        if found and turn.get("role") != "assistant":
            raise RowError("not one question: a <bbox> inside the question is not supported")
        said += found
        done.append({**turn, "content": text})
    return done, json.dumps(said, ensure_ascii=False) if said else None


def spread(
    text: str, labels: Iterator[Any], boxes: Iterator[Any]
) -> tuple[list[dict[str, Any]], str]:
    """The boxes that a turn names with their labels, and the turn's text. Raises RowError.

    A turn that begins with a box tells each label behind its box, else before its boxes.
    """
    marks = MARK.findall(text)
    values = [next(labels if mark == REF else boxes, None) for mark in marks]
    if None in values:
        raise RowError(f"placeholder mismatch: {len(marks)} marks, but objects hold fewer")
    behind = bool(marks) and marks[0] != REF
    found: list[dict[str, Any]] = []
    label: str | None = None
    for mark, value in zip(marks, values, strict=True):
        if mark != REF:
            found.append({"bbox_2d": value, "label": label})
        elif behind and found:
            found[-1]["label"] = str(value)
        else:
            label = str(value)
    put = iter(values)
    return found, MARK.sub(lambda _: str(next(put)), text)
