"""The selection in the formats of five trainers, one folder each. The images are those that the
model saw, so a trainer with the same pixel budget resizes nothing and box answers stay valid.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from datasets import Value

from difftrain.config.export import ExportFormat
from difftrain.data import prompts
from difftrain.export.rows import IMAGES, TEXT, TURNS, ExportRow, write_parquet

EXTRA_COLUMNS = {"sample_id": TEXT, "stratum": TEXT, "task": TEXT, "answer_kind": TEXT}
"""Other trainers pass these to their reward functions or ignore them."""
SHAREGPT_TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "system_tag": "system",
}


def extra_cells(row: ExportRow) -> dict[str, Any]:
    """The cells of EXTRA_COLUMNS."""
    sample = row.sample
    return {
        "sample_id": sample.sample_id,
        "stratum": row.stratum,
        "task": sample.task,
        "answer_kind": sample.answer_kind,
    }


def prompt_turns(text: str) -> list[dict[str, str]]:
    """The system's and the user's turn."""
    return [{"role": "system", "content": prompts.SYSTEM}, {"role": "user", "content": text}]


def write_trl(folder: Path, rows: Sequence[ExportRow]) -> None:
    """train.parquet for GRPOTrainer without changes: prompt, images, solution."""
    columns = {"prompt": TURNS, "images": IMAGES, "solution": TEXT, **EXTRA_COLUMNS}
    cells = (
        {
            "prompt": prompt_turns(row.prompt),
            "images": row.image_cells,
            "solution": row.solution,
            **extra_cells(row),
        }
        for row in rows
    )
    write_parquet(folder / "train.parquet", columns, cells)


def write_easyr1(folder: Path, rows: Sequence[ExportRow]) -> None:
    """train.parquet with problem, images and answer, EasyR1's default keys."""
    columns = {"problem": TEXT, "images": IMAGES, "answer": TEXT, **EXTRA_COLUMNS}
    cells = (
        {
            "problem": row.prompt_with_images,
            "images": row.image_cells,
            "answer": row.sample.answer,
            **extra_cells(row),
        }
        for row in rows
    )
    write_parquet(folder / "train.parquet", columns, cells)


def write_verl(folder: Path, rows: Sequence[ExportRow]) -> None:
    """train.parquet for verl; data_source `difftrain` needs a reward function of your own."""
    columns = {
        "data_source": TEXT,
        "prompt": TURNS,
        "images": IMAGES,
        "ability": TEXT,
        "reward_model": {"style": TEXT, "ground_truth": TEXT},
        "extra_info": {
            "split": TEXT,
            "index": Value("int64"),
            "answer": TEXT,
            "question": TEXT,
            "sample_id": TEXT,
            "stratum": TEXT,
        },
    }
    cells = (
        {
            "data_source": "difftrain",
            "prompt": prompt_turns(row.prompt_with_images),
            "images": row.image_cells,
            "ability": row.sample.task,
            "reward_model": {"style": "rule", "ground_truth": row.sample.answer},
            "extra_info": {
                "split": "train",
                "index": index,
                "answer": row.sample.answer,
                "question": row.prompt,
                "sample_id": row.sample.sample_id,
                "stratum": row.stratum,
            },
        }
        for index, row in enumerate(rows)
    )
    write_parquet(folder / "train.parquet", columns, cells)


def write_images(folder: Path, row: ExportRow) -> list[str]:
    """Write a sample's images below images/; returns their names relative to the folder."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    names = []
    for index, png in enumerate(row.sample.images):
        name = f"images/{row.sample.sample_id}-{index}.png"
        (folder / name).write_bytes(png)
        names.append(name)
    return names


def write_ms_swift(folder: Path, rows: Sequence[ExportRow]) -> None:
    """train.jsonl with messages, images and solution; paths are relative to the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "train.jsonl").open("w", encoding="utf-8") as file:
        for row in rows:
            line = {
                "messages": prompt_turns(row.prompt_with_images),
                "images": write_images(folder, row),
                "solution": row.solution,
                **extra_cells(row),
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def sharegpt_lines(folder: Path, rows: Iterable[ExportRow]) -> Iterable[str]:
    """The rows as conversations in JSON; their images are written on the way."""
    for row in rows:
        assistant = {"role": "assistant", "content": row.response}
        line = {
            "messages": [*prompt_turns(row.prompt_with_images), assistant],
            "images": write_images(folder, row),
            **extra_cells(row),
        }
        yield json.dumps(line, ensure_ascii=False)


def write_llama_factory(folder: Path, rows: Sequence[ExportRow]) -> None:
    """train.json in sharegpt form and dataset_info.json, for supervised training."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "train.json").open("w", encoding="utf-8") as file:
        file.write("[")
        for index, line in enumerate(sharegpt_lines(folder, rows)):
            file.write(f"{',' if index else ''}\n{line}")
        file.write("\n]\n")
    entry = {
        "file_name": "train.json",
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "images": "images"},
        "tags": SHAREGPT_TAGS,
    }
    info = json.dumps({"difftrain_selection": entry}, indent=2)
    (folder / "dataset_info.json").write_text(info)


FORMATS: dict[ExportFormat, Callable[[Path, Sequence[ExportRow]], None]] = {
    ExportFormat.trl: write_trl,
    ExportFormat.ms_swift: write_ms_swift,
    ExportFormat.easyr1: write_easyr1,
    ExportFormat.verl: write_verl,
    ExportFormat.llama_factory: write_llama_factory,
}
