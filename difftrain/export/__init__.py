"""Scores and selection for others: parquet beside the original rows, and other trainers' formats.

Writes scores.parquet, a folder for each trainer, README.md, and manifest.json last.
"""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from huggingface_hub import HfApi

from difftrain.config import run_config
from difftrain.config.run_config import RunConfig
from difftrain.data.quarantine import EmptyDatasetError
from difftrain.data.storage import HubUnavailable
from difftrain.export import card, rows
from difftrain.export.formats import FORMATS
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.model_session import ModelSession
from difftrain.pipeline.paths import RunPaths
from difftrain.pipeline.stage import run_stage
from difftrain.recipes import difficulty
from difftrain.records import Arm, Sample, Score, Selection

logger = logging.getLogger(__name__)
MADE_BY = "python launch/export.py"
NOT_PUBLISHED = ["manifest.json", ".*"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportInputs:
    """The finished stages that an export joins."""

    data: Path
    score: Path
    selection: Path


def run(config: RunConfig, world: World, _: list[str]) -> Path:
    """Data, probe, scores and selection as the recipe makes them, then the export; its folder."""
    paths = RunPaths(config)
    samples = difficulty.load_samples(config, paths, world)
    session = ModelSession(config.model, config.data)
    difficulty.probe(config, paths, world, session, samples)
    difficulty.score(config, paths, world)
    difficulty.select(config, paths, world, Arm.tuned)
    selection = paths.selection(Arm.tuned)
    inputs = ExportInputs(data=paths.data, score=paths.score, selection=selection)
    return export(config, inputs, paths.export, world)


def export(config: RunConfig, inputs: ExportInputs, folder: Path, world: World) -> Path:
    """Write the folder if it is not finished, and publish it if export.push_to_hub is set.

    Raises MissingArtifact for a stage that is not finished, EmptyDatasetError without a selection,
    HubUnavailable if the hub refuses.
    """
    run_stage(
        folder,
        world,
        lambda: write_files(config, inputs, folder),
        settings=run_config.plain(config.export),
        inputs={
            "data": inputs.data.name,
            "score": inputs.score.name,
            "select": inputs.selection.name,
        },
    )
    if world.is_first and (repository := config.export.push_to_hub):
        logger.info("published: %s", publish(folder, repository, config.export.private))
    return folder


def write_files(config: RunConfig, inputs: ExportInputs, folder: Path) -> dict[str, Any]:
    """Everything but the manifest; returns its counts."""
    selections = parquet.read_finished(inputs.selection, Selection, MADE_BY)
    if config.export.formats and not selections:
        raise EmptyDatasetError("no sample is selected; export.formats=[] writes the scores alone")
    measure = config.difficulty.measure
    joined = rows.join_rows(
        parquet.read_finished(inputs.data, Sample, MADE_BY),
        parquet.read_finished(inputs.score, Score, MADE_BY),
        selections,
        measure,
    )
    count = rows.write_scores(folder / "scores.parquet", joined, config.data)
    selected = rows.selected_rows(joined, selections)
    for name in config.export.formats:
        shutil.rmtree(folder / name.value, ignore_errors=True)
        FORMATS[name](folder / name.value, selected)
    data_manifest = manifest.read_manifest(inputs.data)
    info = card.CardInfo(
        settings=run_config.plain(config),
        measure=measure,
        formats=config.export.formats,
        rejected=data_manifest["counts"]["quarantined"] if data_manifest else 0,
    )
    card.write(folder, info, joined)
    return {"samples": count, "selected": len(selected)}


def publish(folder: Path, repository: str, private: bool, api: Any = None) -> str:
    """Create the dataset if it does not exist, and upload the folder; returns its address.

    Raises HubUnavailable, naming the finished folder, if the hub refuses or does not answer.
    """
    api = api or HfApi()
    try:
        api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=str(folder),
            repo_type="dataset",
            commit_message="Scores and selection by difftrain",
            ignore_patterns=NOT_PUBLISHED,
        )
    except (OSError, ValueError, httpx.HTTPError) as error:
        message = str(error).splitlines()[0] if str(error) else "-"
        raise HubUnavailable(
            f"export.push_to_hub={repository}: the hub refused the upload "
            f"({type(error).__name__}: {message}). The export is complete at {folder}; "
            "run the same command again with network and `hf auth login`"
        ) from error
    return f"{getattr(api, 'endpoint', 'https://huggingface.co')}/datasets/{repository}"
