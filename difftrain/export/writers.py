"""The picks in the formats of five trainers, one folder each. Pictures are those that were scored:
inside the pixel budget, so that a trainer with the same budget resizes nothing, and boxes hold.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from datasets import Value

from difftrain.config.export import ExportFormat
from difftrain.data import prompts
from difftrain.export import tables
from difftrain.export.chosen import Chosen
from difftrain.export.tables import PICTURES, TEXT, TURNS

ABOUT = {"sample_id": TEXT, "stratum": TEXT, "task": TEXT, "answer_kind": TEXT}


def about(chosen: Chosen) -> dict[str, Any]:
    """Columns that go along: other trainers hand them to their reward functions or ignore them."""
    sample = chosen.sample
    return {
        "sample_id": sample.sample_id,
        "stratum": chosen.stratum,
        "task": sample.task,
        "answer_kind": sample.answer_kind,
    }


def asked(words: str) -> list[dict[str, str]]:
    """The system's and the user's turn."""
    return [{"role": "system", "content": prompts.SYSTEM}, {"role": "user", "content": words}]


def trl(folder: Path, rows: Sequence[Chosen]) -> None:
    """train.parquet for GRPOTrainer as it is: prompt, images, solution."""
    columns = {"prompt": TURNS, "images": PICTURES, "solution": TEXT, **ABOUT}
    written = (
        {
            "prompt": asked(each.words),
            "images": tables.embedded(each.sample),
            "solution": each.solution,
            **about(each),
        }
        for each in rows
    )
    tables.write(folder / "train.parquet", columns, written)


def easyr1(folder: Path, rows: Sequence[Chosen]) -> None:
    """train.parquet with problem, images and answer, EasyR1's default keys."""
    columns = {"problem": TEXT, "images": PICTURES, "answer": TEXT, **ABOUT}
    written = (
        {
            "problem": each.marked,
            "images": tables.embedded(each.sample),
            "answer": each.sample.answer,
            **about(each),
        }
        for each in rows
    )
    tables.write(folder / "train.parquet", columns, written)


def verl(folder: Path, rows: Sequence[Chosen]) -> None:
    """train.parquet for verl; data_source `difftrain` needs a reward function of one's own."""
    columns = {
        "data_source": TEXT,
        "prompt": TURNS,
        "images": PICTURES,
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
    tables.write(folder / "train.parquet", columns, map(for_verl, range(len(rows)), rows))


def for_verl(number: int, chosen: Chosen) -> dict[str, Any]:
    """One row of verl."""
    sample = chosen.sample
    return {
        "data_source": "difftrain",
        "prompt": asked(chosen.marked),
        "images": tables.embedded(sample),
        "ability": sample.task,
        "reward_model": {"style": "rule", "ground_truth": sample.answer},
        "extra_info": {
            "split": "train",
            "index": number,
            "answer": sample.answer,
            "question": chosen.words,
            "sample_id": sample.sample_id,
            "stratum": chosen.stratum,
        },
    }


def saved(folder: Path, chosen: Chosen) -> list[str]:
    """Write a sample's pictures below images/; returns their names relative to the folder."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    names = []
    for number, png in enumerate(chosen.sample.images):
        name = f"images/{chosen.sample.sample_id}-{number}.png"
        (folder / name).write_bytes(png)
        names.append(name)
    return names


def ms_swift(folder: Path, rows: Sequence[Chosen]) -> None:
    """train.jsonl with messages, images and solution; paths are relative to the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "train.jsonl").open("w", encoding="utf-8") as file:
        for each in rows:
            row = {
                "messages": asked(each.marked),
                "images": saved(folder, each),
                "solution": each.solution,
                **about(each),
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def llama_factory(folder: Path, rows: Sequence[Chosen]) -> None:
    """train.json in sharegpt form and dataset_info.json, for supervised training."""

    def turns() -> Iterator[str]:
        for each in rows:
            said = [*asked(each.marked), {"role": "assistant", "content": each.response}]
            row = {"messages": said, "images": saved(folder, each), **about(each)}
            yield json.dumps(row, ensure_ascii=False)

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "train.json").open("w", encoding="utf-8") as file:
        file.write("[")
        for number, row in enumerate(turns()):
            file.write(f"{',' if number else ''}\n{row}")
        file.write("\n]\n")
    tags = {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "system_tag": "system",
    }
    entry = {
        "file_name": "train.json",
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "images": "images"},
        "tags": tags,
    }
    (folder / "dataset_info.json").write_text(json.dumps({"difftrain_picks": entry}, indent=2))


WRITERS: dict[ExportFormat, Callable[[Path, Sequence[Chosen]], None]] = {
    ExportFormat.trl: trl,
    ExportFormat.ms_swift: ms_swift,
    ExportFormat.easyr1: easyr1,
    ExportFormat.verl: verl,
    ExportFormat.llama_factory: llama_factory,
}
