"""Where a model lies, what identifies its weights, and whether its folder is complete.

Needs no torch: completeness is judged by the headers of the files, without reading the weights.
"""

import json
from pathlib import Path

from difftrain.pipeline import manifest

SHIPPED = {"tiny": Path(__file__).resolve().parent.parent / "shapes" / "tiny"}
"""Short names of models that come with the package."""
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def source(name: str) -> str:
    """The argument of from_pretrained: a folder, or the hub id unchanged."""
    if name in SHIPPED:
        return str(SHIPPED[name])
    folder = Path(name).expanduser()
    return str(folder) if folder.is_dir() else name


def identity(name: str, revision: str | None) -> str:
    """A string that changes when the weights do: a folder's contents, or hub id and revision."""
    folder = Path(source(name))
    return (
        manifest.folder_fingerprint(folder) if folder.is_dir() else f"{name}@{revision or 'main'}"
    )


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
