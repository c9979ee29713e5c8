"""MM-Eureka: {conversations, answer, image_urls}, or the newer {message (a chat as text), answer}.

Pictures carry foreign prefixes and lie in zips, so they are found by the tail of their path. A
text-only row points at a blank picture, which stands for none. MMK12's columns are read as well.
"""

import ast
import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from difftrain.data import conversation, golds, rows
from difftrain.data.formats.origin import Origin
from difftrain.data.quarantine import RowError
from difftrain.data.rows import Asked

BLANK = "blank"
"""How the name of the picture begins that stands for none."""


def asked(row: Mapping[str, Any], origin: Origin) -> Asked:
    """An MM-Eureka row of any of its three shapes. Raises RowError."""
    rows.needed(row, ("answer",))
    if isinstance(row.get("message"), str):
        turns = chat(row["message"])
        pictures = conversation.pictures(turns)
        if not pictures:
            raise RowError("no image: the message holds words alone")
    else:
        pictures = rows.listed(row, "image_urls", "images", "image")
        turns = row.get("conversations", row.get("question"))
    if all(is_blank(each) for each in pictures):
        raise RowError("no image: only the blank one that stands for none")
    question = rows.question(turns, len(pictures)).removeprefix("Question:").strip()
    return Asked(
        pictures=pictures,
        question=question,
        gold=golds.comparable(golds.opened(rows.gold_text(row["answer"]))),
        task=rows.task_of(row, "subject") if "subject" in row else "math",
        anywhere=True,
        blank_is_none=True,
    )


def is_blank(reference: Any) -> bool:
    """Whether a path names the blank picture."""
    return isinstance(reference, str) and PurePosixPath(reference).name.startswith(BLANK)


def chat(text: str) -> list[Any]:
    """The turns of a chat written as JSON or, in older files, as a Python literal."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        try:
            found = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
            raise RowError("empty question: message is no chat that can be read") from error
    if not isinstance(found, list):
        raise RowError("empty question: message is no list of turns")
    return found
