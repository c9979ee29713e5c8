"""The first paper's figures, beside ours only where data and model are the paper's."""

import csv
from importlib import resources
from pathlib import Path
from typing import Any

from difftrain.report.comparison.rows import row_of

MODEL = "Qwen2.5-VL-7B-Instruct"
IN_PERCENT = ("MathVista", "MMVet", "OCRBench", "HallusionBench")
"""The paper prints these in percent, and MMMU and MMStar as fractions."""
TASK_SETS = {
    "reasoning": {"math", "puzzle", "science", "chart"},
    "perception": {"detection", "grounding", "counting", "ocr"},
}


def task_set(data: dict[str, Any]) -> str | None:
    """The paper's task set that these data settings read whole; None if they read other rows."""
    if str(data["source"]) != "orsta" or data["limit"] is not None:
        return None
    wanted = set(data["tasks"] or ())
    return next((name for name, tasks in TASK_SETS.items() if tasks == wanted), None)


def figures(settings: dict[str, Any], name: str, measure: str) -> dict[str, float]:
    """The paper's scores of a row as fractions, by benchmark; none where it has no such row.

    Each is one training run without an interval.
    """
    found = task_set(settings["data"])
    if found is None or Path(str(settings["model"]["name"])).name != MODEL:
        return {}
    text = (resources.files("difftrain.report.comparison") / "paper_tables.csv").read_text()
    wanted = (measure, found, row_of(name).title)
    for row in csv.DictReader(text.splitlines()):
        if (row.pop("measure"), row.pop("task_set"), row.pop("row")) == wanted:
            return {
                benchmark: float(value) / (100 if benchmark in IN_PERCENT else 1)
                for benchmark, value in row.items()
            }
    return {}
