"""hiyouga/geometry3k: {images, problem, answer}, and {id, choices, ground_truth} when newer.

`answer` is the text of the right choice and `ground_truth` its letter. The choices are not shown:
EasyR1 and verl ask this set for the value, and so do we.
"""

from collections.abc import Mapping
from typing import Any

from difftrain.data import golds, rows
from difftrain.data.formats.origin import Origin
from difftrain.data.rows import Asked


def asked(row: Mapping[str, Any], origin: Origin) -> Asked:
    """A geometry3k row of either revision. Raises RowError."""
    rows.needed(row, ("problem", "answer"))
    pictures = rows.listed(row, "images")
    return Asked(
        pictures=pictures,
        question=rows.question(row["problem"], len(pictures)),
        gold=golds.opened(rows.gold_text(row["answer"])),
        task="geometry",
    )
