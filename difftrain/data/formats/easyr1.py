"""EasyR1 rows, which RAP's are too: {problem with <image>, images, answer}."""

from collections.abc import Mapping
from typing import Any

from difftrain.data import golds, rows
from difftrain.data.formats.origin import Origin
from difftrain.data.rows import Asked


def asked(row: Mapping[str, Any], origin: Origin) -> Asked:
    """An EasyR1 row; RAP's `id` and `onlyid` are of no use here. Raises RowError."""
    rows.needed(row, ("problem", "answer"))
    pictures = rows.listed(row, "images", "image")
    return Asked(
        pictures=pictures,
        question=rows.question(row["problem"], len(pictures)),
        gold=golds.opened(rows.gold_text(row["answer"])),
        task=rows.task_of(row, "ability", "task", "subject"),
        options=rows.option_texts(row.get("options")),
        kind=rows.stated_kind(row.get("answer_kind")),
    )
