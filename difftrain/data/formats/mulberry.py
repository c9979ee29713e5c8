"""Mulberry-SFT: {messages (user, assistant), images (one path)}, one large JSON array.

The gold is what follows the last "The final answer is:"; the steps before it are the solution.
Pictures are paths below mulberry_images/, unpacked or in mulberry_images.tar.
"""

import re
from collections.abc import Mapping
from typing import Any

from difftrain.data import conversation, golds, rows
from difftrain.data.formats.origin import Origin
from difftrain.data.quarantine import RowError
from difftrain.data.rows import Asked

MARKER = "The final answer is:"
FOLDER = "mulberry_images"
CHOICES = re.compile(r"^\s*\(?([A-Z])[.):]\s*(.+?)\s*$", re.MULTILINE)
LETTER = re.compile(r"\(?([A-Z])[.):](\s|$)")
HEADING = re.compile(r"[#\s]*$")


def asked(row: Mapping[str, Any], origin: Origin) -> Asked:
    """A Mulberry row. Raises RowError."""
    rows.needed(row, ("messages", "images"))
    pictures = rows.listed(row, "images")
    said = conversation.last_answer(row["messages"])
    steps, marker, final = (said or "").rpartition(MARKER)
    if not marker:
        raise RowError(f'unusable gold: the answer has no "{MARKER}"')
    question = rows.question(row["messages"], len(pictures)).removeprefix("Question:").strip()
    return Asked(
        pictures=tuple(below(each, origin) for each in pictures),
        question=question,
        gold=golds.comparable(lettered(golds.spoken(final), question)),
        rationale=HEADING.sub("", steps),
        within=FOLDER,
    )


def below(reference: Any, origin: Origin) -> Any:
    """A path below the pictures' folder where there is one."""
    if not isinstance(reference, str):
        return reference
    name = reference.replace("\\", "/").lstrip("/")
    inside = f"{FOLDER}/{name.removeprefix(f'{FOLDER}/')}"
    return inside if origin.store.holds(inside) else name


def lettered(gold: str, question: str) -> str:
    """The letter of a choice that is told as `A`, `A: red` or `red`; else the gold as it is."""
    offered = dict(CHOICES.findall(question))
    if not {"A", "B"} <= offered.keys():
        return gold
    if (named := LETTER.match(gold)) and named[1] in offered:
        return named[1]
    plain = gold.casefold().strip()
    same = [letter for letter, text in offered.items() if text.casefold() == plain]
    return same[0] if len(same) == 1 else gold
