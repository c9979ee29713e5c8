"""Whether a model folder is whole, told from its files' own headers, without reading the weights.

Not here: which model it is (model/locate.py), and what a checkpoint in training needs besides.
"""

import json
from pathlib import Path

PROCESSOR = ("processor_config.json", "preprocessor_config.json")
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def cut_short(path: Path) -> str | None:
    """What is wrong with a .safetensors file: not there, no header, or shorter than it says."""
    if not path.is_file():
        return f"{path.name} is missing"
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > size:
            return f"{path.name} is cut short at {size:,} bytes"
        try:
            header = json.loads(file.read(length))
        except ValueError:
            return f"{path.name} has no readable header"
    if not isinstance(header, dict):
        return f"{path.name} has no readable header"
    header.pop("__metadata__", None)
    ends = 8 + length + max((each["data_offsets"][1] for each in header.values()), default=0)
    return None if size == ends else f"{path.name} holds {size:,} bytes of {ends:,}"


def shards(folder: Path) -> list[Path] | None:
    """The weight files a folder needs; None where it has neither a single file nor a whole index.

    Raises no error for an index that cannot be read: it counts as none.
    """
    if (folder / INDEX).is_file():
        try:
            named = json.loads((folder / INDEX).read_text())["weight_map"].values()
        except (ValueError, KeyError, AttributeError, TypeError):
            return None
        return [folder / name for name in sorted(set(named))]
    return [folder / SINGLE] if (folder / SINGLE).is_file() else None


def lacking(folder: Path) -> str | None:
    """What a model folder lacks, in words; None if config, weights and processor are whole.

    Weights of other formats than safetensors are taken as they are.
    """
    try:
        json.loads((folder / "config.json").read_text())
    except FileNotFoundError:
        return "config.json is missing"
    except ValueError:
        return "config.json cannot be read"
    if not any((folder / name).is_file() for name in PROCESSOR):
        return f"{PROCESSOR[0]} is missing"
    if not (folder / "tokenizer_config.json").is_file():
        return "tokenizer_config.json is missing"
    files = shards(folder)
    if files is None:
        others = any(folder.glob("pytorch_model*.bin"))
        return None if others else f"{SINGLE} is missing"
    return next((told for path in files if (told := cut_short(path))), None)
