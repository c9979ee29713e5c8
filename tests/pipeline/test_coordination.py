"""Ranks and launches that share a folder: heartbeats, failures, the lock.

A launch is one start of a command. Its ranks are its processes; MASTER_PORT identifies the launch.
World(1, 3) is rank 1 of 3; World() is a single process.
"""

import errno
import os
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from threading import Thread, Timer

import pytest

from difftrain.pipeline import coordination, manifest
from difftrain.pipeline.coordination import World


@pytest.fixture
def no_recent_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empties the list of the last three folders that this process entered, in other tests."""
    monkeypatch.setattr(coordination, "RECENT_FOLDERS", deque(maxlen=3))


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_the_shares_of_all_ranks_together_are_exactly_the_items(size: int) -> None:
    items = list(range(20))
    shares = [World(rank, size).share(items) for rank in range(size)]
    assert sorted(item for share in shares for item in share) == items


def test_rank_and_world_size_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert World.from_environment() == World(2, 4)


def test_waiting_for_ranks_without_heartbeat_ends_with_an_error_that_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordination, "TIMEOUT_SECONDS", 0.5)
    for rank in (0, 2):  # these ranks send one heartbeat and no more
        coordination.touch(coordination.heartbeat_path(tmp_path, rank))
    started = time.time()
    with pytest.raises(coordination.RankTimeout, match=r"rank 1, rank 2 of 3: no heartbeat"):
        coordination.wait(tmp_path, World(0, 3), lambda: False)
    assert time.time() - started < 10


def test_a_silent_rank_on_another_node_is_named_with_its_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordination, "TIMEOUT_SECONDS", 0.3)
    coordination.heartbeat_path(tmp_path, 1).write_text("node7")
    with pytest.raises(coordination.RankTimeout, match="rank 1 on node7 of 2: no heartbeat"):
        coordination.wait(tmp_path, World(0, 2), lambda: False)


def test_waiting_ends_when_the_work_is_complete(tmp_path: Path) -> None:
    answers = iter([False, False, True])
    coordination.wait(tmp_path, World(0, 2), is_complete=lambda: next(answers))


LOCK_HOLDER_CODE = """
import sys, time
from pathlib import Path
from difftrain.pipeline.coordination import World, stage_lock
with stage_lock(Path(sys.argv[1]), World()):
    print("inside", flush=True)
    time.sleep(60)
"""


def test_a_second_run_waits_for_the_lock_and_a_killed_run_releases_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", LOCK_HOLDER_CODE, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "inside\n"
    Timer(0.5, holder.kill).start()
    with coordination.stage_lock(tmp_path, World()):
        assert holder.wait(timeout=10) != 0
    assert f"another run is working in {tmp_path}" in caplog.text
    caplog.clear()
    with coordination.stage_lock(tmp_path, World()):
        assert not caplog.text


def test_on_a_file_system_without_locks_the_work_goes_on_after_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", no_locks)
    with coordination.stage_lock(tmp_path, World()):
        assert "cannot be locked (No locks available)" in caplog.text
    assert len(caplog.records) == 1


def test_the_other_ranks_enter_a_stage_after_their_own_first_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASTER_PORT", "29501")
    order: list[str] = []

    def enter_as_rank_1() -> None:
        with coordination.stage_lock(tmp_path, World(1, 2)):
            order.append("rank 1")

    rank_1 = Thread(target=enter_as_rank_1)
    rank_1.start()
    time.sleep(0.5)  # rank 1 would enter in this time if it did not wait
    order.append("rank 0")
    with coordination.stage_lock(tmp_path, World(0, 2)):
        rank_1.join(timeout=10)
    assert order == ["rank 0", "rank 1"]


def test_a_first_rank_that_works_longer_than_the_timeout_is_still_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordination, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(coordination, "TIMEOUT_SECONDS", 0.8)
    with coordination.report_failure(tmp_path, World(0, 2)):
        end = time.time() + 1.5
        coordination.wait(tmp_path, World(1, 2), lambda: time.time() > end, ranks=[0])


def test_a_manifest_that_the_first_rank_never_wrote_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="was not finished"):
        coordination.wait_for_manifest(tmp_path, World())


def test_the_other_ranks_raise_the_first_ranks_reason_when_it_fails(tmp_path: Path) -> None:
    def fail_on_first_rank() -> None:
        with coordination.report_failure(tmp_path, World(0, 2)):
            raise ValueError("the image does not reach the model")

    with pytest.raises(ValueError, match="the image"):
        fail_on_first_rank()
    started = time.time()
    with pytest.raises(
        coordination.FirstRankFailed, match=r"rank 0 stopped: ValueError: the image"
    ):
        coordination.wait_for_manifest(tmp_path, World(1, 2))
    assert time.time() - started < 5


def test_the_failure_of_an_earlier_run_does_not_end_this_one(tmp_path: Path) -> None:
    (tmp_path / coordination.FAILED).write_text("ValueError: long ago")
    minute_before = coordination.STARTED - 60
    os.utime(tmp_path / coordination.FAILED, (minute_before, minute_before))
    assert coordination.failure_reason(tmp_path) is None
    with coordination.report_failure(tmp_path, World(0, 2)):
        pass
    assert not (tmp_path / coordination.FAILED).exists()


def enter_and_leave(folder: Path, rank: int) -> None:
    """Enter a stage's folder as one of two ranks, and leave it again."""
    with coordination.stage_lock(folder, World(rank, 2)):
        pass


def test_an_error_that_all_ranks_raise_is_not_reported_so_that_they_may_go_on(
    tmp_path: Path,
) -> None:
    class AllDeadError(ValueError, coordination.RaisedByAllRanks):
        pass

    with pytest.raises(AllDeadError), coordination.report_failure(tmp_path, World(0, 2)):
        raise AllDeadError
    assert coordination.failure_reason(tmp_path) is None
    with pytest.raises(ValueError, match="a"), coordination.report_failure(tmp_path, World(0, 2)):
        raise ValueError("a")
    assert coordination.failure_reason(tmp_path) == "ValueError: a"


@pytest.mark.usefixtures("no_recent_folders")
def test_a_rank_in_the_next_stage_raises_the_reason_why_rank_0_failed_in_a_finished_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordination, "TIMEOUT_SECONDS", 20.0)
    finished, following = tmp_path / "finished", tmp_path / "following"
    manifest.write_manifest(finished, settings={}, inputs={}, seconds=0.0, counts={})

    def fail_as_rank_0() -> None:
        with coordination.stage_lock(finished, World(0, 2)):
            raise ValueError("a benchmark is gone")

    with pytest.raises(ValueError, match="benchmark"):
        fail_as_rank_0()
    started = time.time()
    with coordination.stage_lock(finished, World(1, 2)):
        coordination.wait_for_manifest(finished, World(1, 2))
    with pytest.raises(
        coordination.FirstRankFailed, match="rank 0 stopped: ValueError: a benchmark is"
    ):
        enter_and_leave(following, 1)
    assert time.time() - started < 5


@pytest.mark.usefixtures("no_recent_folders")
def test_a_first_rank_that_never_enters_a_stage_times_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordination, "TIMEOUT_SECONDS", 0.5)
    with pytest.raises(coordination.RankTimeout, match="rank 0 of 2: no heartbeat"):
        enter_and_leave(tmp_path, 1)


@pytest.mark.usefixtures("no_recent_folders")
def test_the_other_ranks_wait_for_a_first_rank_that_is_still_in_the_previous_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordination, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(coordination, "TIMEOUT_SECONDS", 1.0)
    order: list[str] = []

    def enter_both_as_rank_1() -> None:
        enter_and_leave(tmp_path / "first", 1)
        enter_and_leave(tmp_path / "second", 1)
        order.append("rank 1")

    rank_1 = Thread(target=enter_both_as_rank_1)
    with coordination.stage_lock(tmp_path / "first", World(0, 2)):
        rank_1.start()
        time.sleep(2.0)  # twice the timeout
    order.append("rank 0")
    enter_and_leave(tmp_path / "second", 0)
    rank_1.join(timeout=10)
    assert order == ["rank 0", "rank 1"]


def test_a_failure_of_another_launch_in_the_same_stage_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        with coordination.report_failure(tmp_path, World(0, 2)):
            raise ValueError("failed in launch 29501")

    monkeypatch.setenv("MASTER_PORT", "29501")
    with pytest.raises(ValueError, match="failed in launch 29501"):
        fail()
    assert coordination.failure_reason(tmp_path) == "ValueError: failed in launch 29501"
    monkeypatch.setenv("MASTER_PORT", "29502")
    assert coordination.failure_reason(tmp_path) is None
    with coordination.report_failure(tmp_path, World(0, 2)):
        pass
    monkeypatch.setenv("MASTER_PORT", "29501")
    assert coordination.failure_reason(tmp_path) == "ValueError: failed in launch 29501"
