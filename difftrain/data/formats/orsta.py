"""Orsta-Data-47k: verl rows that say more, in {split}_{task}_{source}_{number}.parquet.

Golds stand in reward_model.ground_truth; boxes run from 0 to 1000 unless det_verifier_normalized
says no. `extra_info.id` is null in the release, so a row is known by its file and number.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from difftrain.config.data import BoxFormat
from difftrain.data import golds, rows
from difftrain.data.formats import verl
from difftrain.data.formats.origin import Origin
from difftrain.data.rows import Asked

TASKS = ("math", "puzzle", "science", "chart", "detection", "grounding", "counting", "ocr")
"""Reasoning first, then perception."""


def asked(row: Mapping[str, Any], origin: Origin) -> Asked:
    """An Orsta row; its task is the ability where that is one of the eight, else the file's."""
    read = verl.asked(row, origin)
    paid = row["reward_model"]
    if not read.gold:
        read = replace(read, gold=golds.opened(rows.gold_text(paid.get("answer"))))
    named = rows.task_of(row, "ability").removeprefix("cv_")
    task = named if named in TASKS else task_of_file(origin.file) or named
    return replace(read, task=task, scale=scale(paid.get("verifier_parm")))


def scale(parameters: Any) -> BoxFormat | None:
    """0 to 1000 unless the row denies it; then what data.box_format says."""
    denied = isinstance(parameters, dict) and parameters.get("det_verifier_normalized") is False
    return None if denied else BoxFormat.relative


def task_of_file(name: str) -> str | None:
    """The task in a file's name, such as train_math_mmmath_3539.parquet; None if there is none."""
    words = PurePosixPath(name).stem.split("_")
    return words[1] if len(words) > 2 and words[1] in TASKS else None
