"""Writes small files in the formats of published datasets."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features, Image, List, Value

TURNS = [{"content": Value("string"), "role": Value("string")}]
DETECTION_RATIOS = (
    "iou_max_label_first",
    "iou_max_iou_first",
    "iou_completeness",
    "map",
    "map50",
    "map75",
)
"""Weights of Orsta's detection reward."""
ORSTA = Features(
    {
        "data_source": Value("string"),
        "images": List(Image()),
        "prompt": TURNS,
        "ability": Value("string"),
        "reward_model": {
            "answer": Value("string"),
            "ground_truth": Value("string"),
            "accuracy_ratio": Value("float32"),
            "format_ratio": Value("float32"),
            "verifier": Value("string"),
            "verifier_parm": {
                "det_verifier_normalized": Value("bool"),
                "det_reward_ratio": {name: Value("float32") for name in DETECTION_RATIOS},
            },
        },
        "extra_info": {"id": Value("string"), "image_path": Value("string")},
    }
)
"""The columns of Orsta-Data-47k; `datasets` stores these types in the parquet file."""


def orsta_row(
    image: bytes, question: str, gold: str, ability: str | None, has_box: bool = False
) -> dict[str, Any]:
    """One row of Orsta-Data-47k. `has_box`: the gold answer is a box (detection and grounding).

    Orsta writes a box in <answer> and any other gold answer in LaTeX's \\boxed{}.
    """
    ratios = dict.fromkeys(DETECTION_RATIOS, 0.0 if has_box else None)
    return {
        "data_source": "synthetic",
        "images": [{"bytes": image, "path": None}],
        "prompt": [{"role": "user", "content": f"<image>{question}"}],
        "ability": ability,
        "reward_model": {
            "answer": gold,
            "ground_truth": f"<answer>\n{gold}\n</answer>" if has_box else f"\\boxed{{{gold}}}",
            "accuracy_ratio": 1.0,
            "format_ratio": 0.1 if has_box else 0.0,
            "verifier": "detection" if has_box else "mathverify",
            "verifier_parm": {
                "det_verifier_normalized": True if has_box else None,
                "det_reward_ratio": ratios,
            },
        },
        "extra_info": {"id": None, "image_path": "images/synthetic.png"},
    }


def orsta_file(path: Path, rows: list[dict[str, Any]], metadata: bool = True) -> Path:
    """Writes a parquet file with the schema metadata of `datasets`, or without, like pandas."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if metadata:
        Dataset.from_list(rows, features=ORSTA).to_parquet(path)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    """Writes a jsonl and returns its path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
