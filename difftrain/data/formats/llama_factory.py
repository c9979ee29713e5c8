"""LLaMA-Factory rows: sharegpt turns (conversations or messages) or alpaca columns, and images.

dataset_info.json beside the file names columns and tags where they differ from the defaults.
The gold is what the assistant says last.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from difftrain.data import conversation, golds, rows
from difftrain.data.formats.origin import Origin
from difftrain.data.quarantine import EmptyDatasetError, RowError
from difftrain.data.rows import Asked
from difftrain.data.store import Folder

INFO = "dataset_info.json"
TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "system_tag": "system",
}
OPENAI = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "system_tag": "system",
}


def asked(row: Mapping[str, Any], origin: Origin) -> Asked:
    """A LLaMA-Factory row. Raises RowError."""
    told = about(origin)
    columns = told.get("columns") or {}
    pictures = rows.listed(row, columns.get("images", "images"))
    turns = turns_of(row, told, columns)
    if (said := conversation.last_answer(turns)) is None:
        raise RowError("missing keys: the last turn must be the assistant's, which is the gold")
    return Asked(
        pictures=pictures,
        question=rows.question(turns, len(pictures)),
        gold=golds.spoken(said),
        task=rows.task_of(row, "ability", "task"),
    )


def turns_of(
    row: Mapping[str, Any], told: dict[str, Any], columns: dict[str, str]
) -> list[dict[str, Any]]:
    """The conversation as {role, content} turns. Raises RowError."""
    held = columns.get("messages")
    key = next((name for name in (held, "conversations", "messages") if name in row), None)
    if key is None:
        return from_alpaca(row, columns)
    said = row[key]
    if not isinstance(said, list) or not all(isinstance(turn, dict) for turn in said):
        raise RowError(f"empty question: {key} is not a list of turns")
    plain = bool(said) and "role" in said[0]
    tags = {**(OPENAI if plain else TAGS), **(told.get("tags") or {})}
    roles = {
        tags["user_tag"]: "user",
        tags["assistant_tag"]: "assistant",
        tags["system_tag"]: "system",
    }
    return [
        {
            "role": roles.get(turn.get(tags["role_tag"]), str(turn.get(tags["role_tag"]))),
            "content": turn.get(tags["content_tag"]),
        }
        for turn in said
    ]


def from_alpaca(row: Mapping[str, Any], columns: dict[str, str]) -> list[dict[str, Any]]:
    """instruction, input and output as two turns. Raises RowError."""
    keys = [columns.get("prompt", "instruction"), columns.get("response", "output")]
    rows.needed(row, tuple(keys))
    more = row.get(columns.get("query", "input"))
    words = [str(each) for each in (row[keys[0]], more) if each]
    return [
        {"role": "user", "content": "\n".join(words)},
        {"role": "assistant", "content": rows.gold_text(row[keys[1]])},
    ]


def about(origin: Origin) -> dict[str, Any]:
    """The file's entry in dataset_info.json, {} where there is none."""
    if isinstance(origin.store, Folder):
        entries = described(Folder(origin.store.root))
    else:
        entries = described(origin.store)
    return next((each for each in entries if each.get("file_name") == origin.file), {})


@lru_cache(maxsize=4)
def described(store: Any) -> list[dict[str, Any]]:
    """All entries of dataset_info.json. Raises EmptyDatasetError where it is damaged."""
    if not store.holds(INFO):
        return []
    with store.open(INFO) as file:
        try:
            held = json.load(file)
        except ValueError as error:
            raise EmptyDatasetError(f"{INFO} is no JSON: {error}") from error
    return [each for each in held.values() if isinstance(each, dict)]
