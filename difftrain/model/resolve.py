"""Finds a model's folder, fingerprints its weights and checks its files, without torch."""

import json
from contextlib import suppress
from pathlib import Path

from difftrain.pipeline import manifest

# Short names of models that come with the package. `tiny` is for tests and demonstrations.
SHIPPED = {"tiny": Path(__file__).resolve().parent.parent / "shapes" / "tiny"}
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
WEIGHTS_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"


def source(name: str) -> str:
    """The argument of from_pretrained: a folder, or the hub id unchanged."""
    if name in SHIPPED:
        return str(SHIPPED[name])
    folder = Path(name).expanduser()
    return str(folder) if folder.is_dir() else name


def identity(name: str, revision: str | None) -> str:
    """A string that changes when the weights do: a folder's contents, or hub id and revision."""
    folder = Path(source(name))
    if folder.is_dir():
        return manifest.folder_fingerprint(folder)
    return f"{name}@{revision or 'main'}"


def damage_in_file(path: Path) -> str | None:
    """What is wrong with a .safetensors file (missing, unreadable, truncated), or None."""
    if not path.is_file():
        return f"{path.name} is missing"
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")  # of the header, which follows
        if length > size:
            return f"{path.name} is cut short at {size:,} bytes"
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
        except (ValueError, AttributeError, TypeError):
            return f"{path.name} has no readable header"
    data_end = max((t["data_offsets"][1] for t in header.values()), default=0)  # [begin, end]
    expected = 8 + length + data_end
    return None if size == expected else f"{path.name} has {size:,} bytes, not {expected:,}"


def missing_part(folder: Path) -> str | None:
    """What a model folder lacks, or None; of its weights, only safetensors files are checked."""
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
    names = [WEIGHTS_FILE]
    with suppress(OSError, ValueError, KeyError, AttributeError, TypeError):  # no index: one file
        names = sorted(set(json.loads((folder / INDEX_FILE).read_text())["weight_map"].values()))
    has_other_format = any(folder.glob("pytorch_model*.bin"))
    if names == [WEIGHTS_FILE] and not (folder / WEIGHTS_FILE).is_file() and has_other_format:
        return None
    return next((damage for name in names if (damage := damage_in_file(folder / name))), None)
