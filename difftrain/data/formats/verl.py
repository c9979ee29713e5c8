"""verl rows: {prompt (turns), images, ability, reward_model {ground_truth}, data_source}."""

from collections.abc import Mapping
from typing import Any

from difftrain.data import golds, rows
from difftrain.data.formats.origin import Origin
from difftrain.data.quarantine import RowError
from difftrain.data.rows import Asked


def asked(row: Mapping[str, Any], origin: Origin) -> Asked:
    """A verl row. Raises RowError."""
    rows.needed(row, ("prompt", "reward_model"))
    paid = row["reward_model"]
    if not isinstance(paid, dict):
        raise RowError("missing keys: reward_model must hold ground_truth")
    pictures = rows.listed(row, "images")
    return Asked(
        pictures=pictures,
        question=rows.question(row["prompt"], len(pictures)),
        gold=golds.opened(rows.gold_text(paid.get("ground_truth"))),
        task=rows.task_of(row, "ability", "data_source"),
        kind=rows.stated_kind(row.get("answer_kind")),
    )
