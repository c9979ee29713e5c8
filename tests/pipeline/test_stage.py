"""One stage: which ranks work, what is written, when it is skipped, what other ranks raise.

MASTER_PORT identifies a launch: ranks ignore failures of other launches.
"""

import json
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from difftrain.pipeline import coordination, manifest
from difftrain.pipeline.coordination import FirstRankFailed, World
from difftrain.pipeline.manifest import SchemaError
from difftrain.pipeline.stage import Heartbeat, run_shared_stage, run_stage

INPUTS = {"probe": "abc"}


def test_a_finished_stage_does_not_run_again(tmp_path: Path) -> None:
    calls: list[int] = []

    def work() -> dict[str, int]:
        calls.append(1)
        return {"rows": 3}

    manifests = [
        run_stage(tmp_path, World(), work, settings={"tau": 0.1}, inputs=INPUTS) for _ in range(2)
    ]
    assert calls == [1]
    assert manifests[0] == manifests[1]
    assert manifests[0]["counts"] == {"rows": 3}
    assert manifests[0]["settings"] == {"tau": 0.1}
    assert manifests[0]["inputs"] == INPUTS


def test_a_stage_that_fails_has_no_manifest(tmp_path: Path) -> None:
    def work() -> dict[str, int]:
        raise ValueError("no rows")

    with pytest.raises(ValueError, match="no rows"):
        run_stage(tmp_path, World(), work, inputs={})
    assert manifest.read_manifest(tmp_path) is None


def on_two_ranks(run: Callable[[World], Any]) -> list[Any]:
    """What `run` returns or raises on rank 0 and on rank 1, which run at the same time."""
    outcomes: list[Any] = [None, None]

    def on_rank(rank: int) -> None:
        try:
            outcomes[rank] = run(World(rank, 2))
        except (ValueError, FirstRankFailed) as error:
            outcomes[rank] = error

    threads = [Thread(target=on_rank, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    return outcomes


def test_only_the_first_rank_works_and_every_rank_gets_the_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASTER_PORT", "29501")
    calls: list[int] = []

    def run(world: World) -> dict[str, Any]:
        def work() -> dict[str, int]:
            calls.append(world.rank)
            return {"rows": 1}

        return run_stage(tmp_path, world, work, inputs={})

    first, second = on_two_ranks(run)
    assert calls == [0]  # one call, on rank 0
    assert first == second == manifest.read_manifest(tmp_path)


def test_the_other_ranks_raise_the_first_ranks_reason_when_the_work_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASTER_PORT", "29502")

    def run(world: World) -> dict[str, Any]:
        def work() -> dict[str, int]:
            raise ValueError("nothing was selected")

        return run_stage(tmp_path, world, work, inputs={})

    first, second = on_two_ranks(run)
    assert isinstance(first, ValueError)
    assert isinstance(second, FirstRankFailed)
    assert "rank 0 stopped: ValueError: nothing was selected" in str(second)


def shared_stage(
    folder: Path, world: World, num_files: int, close_fails: bool = False
) -> dict[str, Any]:
    """A stage in which every rank writes its share of the files 0.txt, 1.txt, ..."""

    def work(heart: Heartbeat) -> None:
        for number in world.share(range(num_files)):
            (folder / f"{number}.txt").touch()
            heart.beat()

    def close() -> dict[str, int]:
        if close_fails:
            raise ValueError("the disk is full")
        return {"files": num_files}

    return run_shared_stage(
        folder,
        world,
        work,
        is_complete=lambda: len(list(folder.glob("*.txt"))) >= num_files,
        close=close,
        settings=lambda: {"ranks": world.size},
        inputs=INPUTS,
        is_finished=lambda content: content["counts"]["files"] >= num_files,
    )


def test_every_rank_does_its_share_and_the_first_writes_the_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASTER_PORT", "29503")
    first, second = on_two_ranks(lambda world: shared_stage(tmp_path, world, 5))
    assert first == second
    assert first["counts"] == {"files": 5}
    assert first["settings"] == {"ranks": 2}
    # The files with which ranks measure time and send heartbeats are removed at the end.
    assert not list(tmp_path.glob(".elapsed-*"))
    assert not list(tmp_path.glob(".rank-*"))


def test_a_larger_request_continues_a_finished_stage_and_adds_its_seconds(
    tmp_path: Path,
) -> None:
    shared_stage(tmp_path, World(), 2)
    content = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(content | {"seconds": 100.0}))
    assert shared_stage(tmp_path, World(), 2)["seconds"] == 100.0
    larger = shared_stage(tmp_path, World(), 4)
    assert larger["counts"] == {"files": 4}
    assert larger["seconds"] >= 100.0


def test_the_seconds_of_a_killed_start_are_added(tmp_path: Path) -> None:
    (tmp_path / ".elapsed-0123456789ab").write_text("60.0")  # seconds that the killed start saved
    assert shared_stage(tmp_path, World(), 1)["seconds"] >= 60.0


def test_the_other_ranks_raise_an_error_when_closing_a_shared_stage_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASTER_PORT", "29504")
    first, second = on_two_ranks(lambda world: shared_stage(tmp_path, world, 3, close_fails=True))
    assert isinstance(first, ValueError)
    assert isinstance(second, FirstRankFailed)


def test_the_error_for_a_folder_of_an_earlier_version_names_the_folder(tmp_path: Path) -> None:
    stage = tmp_path / "artefacts" / "score" / "0123"
    run = tmp_path / "artefacts" / "run" / "grpo_hard-4567"
    for folder in (stage, run):
        folder.mkdir(parents=True)
    (stage / "made.json").write_text("{}")
    for folder in (stage, run):
        with pytest.raises(SchemaError, match=f"{folder.name} was written by an earlier version"):
            manifest.read_manifest(folder)


def test_a_finished_stage_does_not_wait_for_the_lock(tmp_path: Path) -> None:
    manifest.write_manifest(tmp_path, settings={}, inputs={}, seconds=0.0, counts={})
    with coordination.stage_lock(tmp_path, World()):
        assert run_stage(tmp_path, World(), dict, inputs={})["counts"] == {}


def test_a_failure_reaches_the_other_ranks_if_the_stage_locks_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASTER_PORT", "29505")
    lock, folder = tmp_path / "responses", tmp_path / "results"

    def run(world: World) -> dict[str, Any]:
        def work(heart: Heartbeat) -> None:
            if world.is_first:
                raise ValueError("the engine is gone")

        return run_shared_stage(
            folder, world, work, is_complete=lambda: True, close=dict, inputs={}, lock=lock
        )

    first, second = on_two_ranks(run)
    assert isinstance(first, ValueError)
    assert isinstance(second, FirstRankFailed)
    assert "the engine is gone" in str(second)
