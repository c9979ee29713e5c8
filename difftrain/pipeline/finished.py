"""Recognizes a finished run, so that the same command again ends within seconds.

The stages themselves know what is done, but importing what they need takes far longer than reading
their manifests. finished.json, in the run's folder, lists what the report was made from.
"""

import logging
from collections.abc import Iterable
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from difftrain.config.run_config import RunConfig
from difftrain.model import resolve
from difftrain.pipeline import manifest
from difftrain.pipeline.coordination import World
from difftrain.pipeline.manifest import MANIFEST
from difftrain.pipeline.paths import RunPaths, round_paths

FINISHED = "finished.json"
logger = logging.getLogger(__name__)


def train(config: RunConfig, world: World, recipe_settings: list[str]) -> Path:
    """Run all stages, unless this run is finished; returns the run's folder."""
    paths = round_paths(config, trained=True)[-1]
    if is_finished(paths, recipe_settings):
        logger.info("this run is finished, there is nothing to do")
        return paths.run
    from difftrain.pipeline import chain  # imports torch, transformers and trl

    return chain.train(config, world, recipe_settings)


def mark_finished(
    paths: RunPaths, recipe_settings: list[str], stages: Iterable[Path], checkpoints: Iterable[Path]
) -> None:
    """Write finished.json: the run's settings, its files, its stages' manifests, its checkpoints.

    Writes nothing if a stage is not finished.
    """
    manifests = {str(folder): _manifest_hash(folder) for folder in stages}
    if None not in manifests.values():
        content = _identity(paths, recipe_settings) | {
            "manifests": manifests,
            "files": sorted(path.name for path in paths.run.iterdir() if path.name != FINISHED),
            "checkpoints": sorted(map(str, checkpoints)),
        }
        manifest.write_json(paths.run / FINISHED, content)


def is_finished(paths: RunPaths, recipe_settings: list[str]) -> bool:
    """Whether the same command has nothing to do: nothing that finished.json names has changed."""
    path = paths.run / FINISHED
    if not path.is_file():
        return False
    content = manifest.read_json(path)
    manifests, files, checkpoints = (
        content.pop(name) for name in ("manifests", "files", "checkpoints")
    )
    return (
        content == _identity(paths, recipe_settings)
        and all((paths.run / name).exists() for name in files)
        and all(_manifest_hash(Path(folder)) == digest for folder, digest in manifests.items())
        and not any(resolve.missing_part(Path(folder)) for folder in checkpoints)
    )


def _identity(paths: RunPaths, recipe_settings: list[str]) -> dict[str, Any]:
    return {
        "settings": asdict(paths.config),
        "recipe_settings": recipe_settings,
        "version": metadata.version("difftrain"),
        # Changes if the items of a benchmark appear on this machine.
        "contamination": str(paths.contamination),
    }


def _manifest_hash(folder: Path) -> str | None:
    path = folder / MANIFEST
    return manifest.file_fingerprint(path) if path.is_file() else None
