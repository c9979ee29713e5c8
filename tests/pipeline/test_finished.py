"""Whether the same command on a run's folder has nothing to do."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from difftrain.cli.overrides import compose_config
from difftrain.config.report import Tracker
from difftrain.config.run_config import resolve as resolve_config
from difftrain.model import resolve
from difftrain.pipeline import manifest
from difftrain.pipeline.finished import FINISHED, is_finished, mark_finished
from difftrain.pipeline.manifest import MANIFEST
from difftrain.pipeline.paths import RunPaths

SETTINGS = ["recipe=grpo_hard"]  # those that the recipe sets; any list of strings will do


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    """A finished run of two stages and a checkpoint."""
    config = resolve_config(compose_config(["recipe=grpo_hard", f"output_dir={tmp_path}"]))
    result = RunPaths(config, trained=True)
    for folder in (result.data, result.probe, result.run):
        folder.mkdir(parents=True)
    for folder in (result.data, result.probe):
        manifest.write_json(folder / MANIFEST, {"counts": folder.parent.name})
    (result.run / "report.json").write_text("{}")
    shutil.copytree(resolve.source("tiny"), checkpoint(result))
    mark_finished(result, SETTINGS, [result.data, result.probe], [checkpoint(result)])
    return result


def checkpoint(paths: RunPaths) -> Path:
    return paths.output_dir / "checkpoint"


def test_the_same_command_has_nothing_to_do(paths: RunPaths) -> None:
    assert is_finished(paths, SETTINGS)


def test_other_settings_have_something_to_do(paths: RunPaths) -> None:
    assert not is_finished(paths, ["recipe=grpo_mid_hard"])
    changed = replace(paths, config=replace(paths.config, report_to=Tracker.wandb))
    assert changed.run == paths.run
    assert not is_finished(changed, SETTINGS)


@pytest.mark.parametrize(
    "damage",
    [
        lambda paths: (paths.probe / MANIFEST).unlink(),
        lambda paths: manifest.write_json(paths.probe / MANIFEST, {"counts": "others"}),
        lambda paths: shutil.rmtree(paths.data),
        lambda paths: (paths.run / "report.json").unlink(),
        lambda paths: (paths.run / FINISHED).unlink(),
        lambda paths: (checkpoint(paths) / "model.safetensors").write_bytes(b"cut"),
        lambda paths: shutil.rmtree(checkpoint(paths)),
    ],
    ids=[
        "no manifest",
        "changed manifest",
        "no stage folder",
        "no report",
        "no finished.json",
        "damaged checkpoint",
        "no checkpoint",
    ],
)
def test_a_missing_or_changed_file_gives_something_to_do(
    damage: Callable[[RunPaths], None], paths: RunPaths
) -> None:
    damage(paths)
    assert not is_finished(paths, SETTINGS)


def test_a_run_with_an_unfinished_stage_is_not_marked(paths: RunPaths) -> None:
    (paths.run / FINISHED).unlink()
    mark_finished(paths, SETTINGS, [paths.data, paths.score], [])
    assert not (paths.run / FINISHED).exists()
