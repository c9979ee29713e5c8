"""TRL's conversational rows: {prompt (turns), images or image, solution or completion}."""

from collections.abc import Mapping
from typing import Any

from difftrain.data import conversation, golds, rows
from difftrain.data.formats.origin import Origin
from difftrain.data.quarantine import RowError
from difftrain.data.rows import Asked


def asked(row: Mapping[str, Any], origin: Origin) -> Asked:
    """A TRL row; `messages` may stand for prompt and completion. Raises RowError."""
    turns = row.get("prompt", row.get("messages"))
    if turns is None:
        raise RowError(f"missing keys: prompt; found: {', '.join(sorted(row)) or 'none'}")
    if isinstance(turns, str):
        raise RowError("empty question: prompt is text, but TRL's picture rows need turns")
    pictures = rows.listed(row, "images", "image")
    return Asked(
        pictures=pictures,
        question=rows.question(turns, len(pictures)),
        gold=gold(row, turns),
        task=rows.task_of(row, "ability", "task"),
        options=rows.option_texts(row.get("options")),
        kind=rows.stated_kind(row.get("answer_kind")),
    )


def gold(row: Mapping[str, Any], turns: Any) -> str:
    """The solution, else what the assistant says last. Raises RowError if there is neither."""
    for key in ("solution", "answer"):
        if row.get(key) is not None:
            return golds.opened(rows.gold_text(row[key]))
    said = row.get("completion")
    said = said if isinstance(said, str) else conversation.last_answer(said or turns)
    if said is None:
        raise RowError(f"missing keys: solution; found: {', '.join(sorted(row)) or 'none'}")
    return golds.spoken(said)
