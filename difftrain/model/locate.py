"""Where a model lies and what identifies it, found without importing torch."""

from pathlib import Path

from difftrain.config.model import ModelConfig
from difftrain.pipeline import manifest

SHIPPED = {"tiny": Path(__file__).resolve().parent.parent / "shapes" / "tiny"}
"""Short names of models that come with the package."""


def source(name: str) -> str:
    """What from_pretrained is given: a folder, or the hub id as it stands."""
    if name in SHIPPED:
        return str(SHIPPED[name])
    folder = Path(name).expanduser()
    return str(folder) if folder.is_dir() else name


def identity(config: ModelConfig) -> str:
    """What changes when the weights do: a folder's contents, or a hub id with its revision."""
    place = Path(source(config.name))
    return (
        manifest.folder_fingerprint(place)
        if place.is_dir()
        else f"{config.name}@{config.revision or 'main'}"
    )
