"""Where a model lies and what identifies its weights; needs no torch."""

from pathlib import Path

from difftrain.config.model import ModelConfig
from difftrain.pipeline import manifest

SHIPPED = {"tiny": Path(__file__).resolve().parent.parent / "shapes" / "tiny"}
"""Short names of models that come with the package."""


def source(name: str) -> str:
    """The argument of from_pretrained: a folder, or the hub id unchanged."""
    if name in SHIPPED:
        return str(SHIPPED[name])
    folder = Path(name).expanduser()
    return str(folder) if folder.is_dir() else name


def identity(config: ModelConfig) -> str:
    """A string that changes when the weights do: a folder's contents, or hub id and revision."""
    folder = Path(source(config.name))
    if folder.is_dir():
        return manifest.folder_fingerprint(folder)
    return f"{config.name}@{config.revision or 'main'}"
