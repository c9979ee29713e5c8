"""The first paper's own jsonl: {image_paths, prompt, ground_truth, ability}, perhaps `answer`."""

from collections.abc import Mapping
from typing import Any

from difftrain.data import golds, rows
from difftrain.data.formats.origin import Origin
from difftrain.data.quarantine import RowError
from difftrain.data.rows import Asked


def asked(row: Mapping[str, Any], origin: Origin) -> Asked:
    """A released row. Raises RowError."""
    if missing := [key for key in ("prompt", "ground_truth") if key not in row]:
        found = ", ".join(sorted(row)) or "none"
        told = f"{', '.join(missing)} (or messages, images, solution); found: {found}"
        raise RowError(f"missing keys: {told}")
    pictures = rows.listed(row, "image_paths")
    return Asked(
        pictures=pictures,
        question=rows.question(row["prompt"], len(pictures)),
        gold=golds.opened(rows.gold_text(row["ground_truth"])),
        task=rows.task_of(row, "ability"),
        options=rows.option_texts(row.get("options", row.get("choices"))),
        kind=rows.stated_kind(row.get("answer_kind")),
    )
