"""Incomplete or damaged model folders and checkpoints are detected, and never written."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText

from difftrain.config import run_config
from difftrain.config.run_config import RunConfig
from difftrain.model import resolve
from difftrain.model.resolve import SHIPPED
from difftrain.pipeline import chain, manifest
from difftrain.pipeline.parquet import MissingArtifact
from difftrain.train import checkpointing


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the folder of the tiny model that comes with difftrain."""
    return Path(shutil.copytree(SHIPPED["tiny"], tmp_path / "model"))


def cut(path: Path, num_bytes: int = 1) -> None:
    """Remove the last bytes of a file."""
    path.write_bytes(path.read_bytes()[:-num_bytes])


def test_a_complete_folder_has_no_missing_part(model: Path) -> None:
    assert resolve.missing_part(model) is None


def test_a_weights_file_that_is_one_byte_too_short_is_detected(model: Path) -> None:
    cut(model / "model.safetensors")
    assert "model.safetensors has" in str(resolve.missing_part(model))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer_config.json"])
def test_a_missing_file_is_named(model: Path, name: str) -> None:
    (model / name).unlink()
    assert resolve.missing_part(model) == f"{name} is missing"


def test_a_missing_shard_is_named(model: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert resolve.missing_part(model) == "model-2.safetensors is missing"


def test_an_incomplete_model_folder_is_reported_as_a_problem_of_the_settings(model: Path) -> None:
    config = RunConfig()
    config.model.name = str(model)
    assert list(run_config.problems(config)) == []
    (model / "config.json").unlink()
    (problem,) = run_config.problems(config)
    assert problem.endswith("config.json is missing; copy or make it again")


def test_a_damaged_checkpoint_of_a_finished_stage_is_refused(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "stage"
    folder.mkdir()
    model.rename(folder / "checkpoint")
    assert checkpointing.finished_checkpoint(folder) is None
    manifest.write_manifest(folder, settings=None, inputs={}, seconds=0.0, counts={})
    assert checkpointing.finished_checkpoint(folder) == folder / "checkpoint"
    cut(folder / "checkpoint" / "model.safetensors")
    with pytest.raises(MissingArtifact, match=r"incomplete: model.safetensors has .* delete"):
        checkpointing.finished_checkpoint(folder)


@pytest.mark.parametrize("exists", [False, True])
def test_an_interrupted_copy_leaves_no_part_of_a_checkpoint(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    target = tmp_path / "run" / "checkpoint"
    if exists:
        chain.link_tree(model, target)
    link, linked = os.link, []

    # Ctrl-C at the third file.
    def interrupted_link(source: str, destination: str) -> None:
        linked.append(source)
        if len(linked) > 2:
            raise KeyboardInterrupt
        link(source, destination)

    monkeypatch.setattr(os, "link", interrupted_link)
    with pytest.raises(KeyboardInterrupt):
        chain.link_tree(model, target)
    monkeypatch.setattr(os, "link", link)
    assert target.exists() == exists  # an earlier copy stays
    assert not exists or resolve.missing_part(target) is None
    chain.link_tree(model, target)
    assert resolve.missing_part(target) is None
    assert [path.name for path in target.parent.iterdir()] == ["checkpoint"]


def write_checkpoint(folder: Path, step: int) -> Path:
    """Write a training checkpoint with all files that resuming needs; returns its folder."""
    path = folder / "checkpoints" / f"checkpoint-{step}"
    path.mkdir(parents=True)
    shutil.copy(SHIPPED["tiny"] / "model.safetensors", path)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({"step": step}, path / name)
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return path


@pytest.mark.parametrize(
    "name", ["trainer_state.json", "model.safetensors", "optimizer.pt", "rng_state.pth"]
)
def test_training_resumes_from_the_last_complete_checkpoint(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    first, second = write_checkpoint(tmp_path, 9), write_checkpoint(tmp_path, 10)
    assert checkpointing.last_checkpoint(tmp_path) == second
    cut(second / name, 40)  # enough to make any of these files unreadable
    assert checkpointing.last_checkpoint(tmp_path) == first
    assert f"checkpoint-10: {name}" in caplog.text
    (second / name).unlink()
    assert checkpointing.last_checkpoint(tmp_path) == first
    shutil.rmtree(first)
    assert checkpointing.last_checkpoint(tmp_path) is None


def test_a_checkpoint_of_two_processes_needs_the_rng_state_of_both(tmp_path: Path) -> None:
    first, second = write_checkpoint(tmp_path, 9), write_checkpoint(tmp_path, 10)
    for path in (first, second):
        for rank in range(2):
            torch.save({"rank": rank}, path / f"rng_state_{rank}.pth")
        (path / "rng_state.pth").unlink()
    assert checkpointing.last_checkpoint(tmp_path, num_processes=2) == second
    (second / "rng_state_1.pth").unlink()
    assert checkpointing.last_checkpoint(tmp_path, num_processes=2) == first
    problem = checkpointing.resume_problem(second, num_processes=2)
    assert problem == "RNG state missing for 1 of 2 ranks"


def test_loading_a_checkpoint_restores_every_weight_under_its_modules_name(
    tmp_path: Path,
) -> None:
    trained = AutoModelForImageTextToText.from_pretrained(SHIPPED["tiny"], dtype=torch.float32)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(0.5)
    trained.save_pretrained(tmp_path)
    fresh = AutoModelForImageTextToText.from_pretrained(SHIPPED["tiny"], dtype=torch.float32)
    checkpointing.load_weights(fresh, tmp_path)
    expected = trained.state_dict()
    assert all(torch.equal(expected[key], tensor) for key, tensor in fresh.state_dict().items())
