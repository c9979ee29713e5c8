"""Whether a model folder is complete, by the headers of its files, without reading the weights.

Not here: which model it is (resolve.py), and what resuming a training run needs in addition.
"""

import json
from pathlib import Path

PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def damage_in_file(path: Path) -> str | None:
    """What is wrong with a .safetensors file: missing, no header or truncated; None if complete."""
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
    data_end = max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
    expected = 8 + length + data_end
    return None if size == expected else f"{path.name} holds {size:,} bytes of {expected:,}"


def weight_files(folder: Path) -> list[Path] | None:
    """The weight files that a folder needs; None without a single file or a readable index."""
    if (folder / INDEX).is_file():
        try:
            names = json.loads((folder / INDEX).read_text())["weight_map"].values()
        except (ValueError, KeyError, AttributeError, TypeError):
            return None
        return [folder / name for name in sorted(set(names))]
    return [folder / SINGLE] if (folder / SINGLE).is_file() else None


def missing_part(folder: Path) -> str | None:
    """What a model folder lacks; None if config, weights and processor are complete.

    Weights of other formats than safetensors are not checked.
    """
    try:
        json.loads((folder / "config.json").read_text())
    except FileNotFoundError:
        return "config.json is missing"
    except ValueError:
        return "config.json cannot be read"
    if not any((folder / name).is_file() for name in PROCESSOR_FILES):
        return f"{PROCESSOR_FILES[0]} is missing"
    if not (folder / "tokenizer_config.json").is_file():
        return "tokenizer_config.json is missing"
    files = weight_files(folder)
    if files is None:
        has_other_format = any(folder.glob("pytorch_model*.bin"))
        return None if has_other_format else f"{SINGLE} is missing"
    return next((damage for path in files if (damage := damage_in_file(path))), None)
