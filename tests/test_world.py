import time
from pathlib import Path

import pytest

from difftrain import heartbeat
from difftrain.world import World


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_the_shares_of_all_ranks_are_exactly_the_items(size: int) -> None:
    items = list(range(20))
    shares = [World(rank, size).share(items) for rank in range(size)]
    assert sorted(each for share in shares for each in share) == items


def test_the_world_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert World.from_environment() == World(2, 4)


def test_a_rank_that_falls_silent_is_named_instead_of_waited_for(tmp_path: Path) -> None:
    heartbeat.beat(tmp_path, World(0, 3))
    heartbeat.beat(tmp_path, World(2, 3))
    started = time.time()
    with pytest.raises(heartbeat.RankSilent, match=r"rank 1, rank 2 of 3 not heard of"):
        heartbeat.wait(tmp_path, World(0, 3), lambda: False, patience=0.5)
    assert time.time() - started < 10


def test_waiting_ends_when_the_work_is_complete(tmp_path: Path) -> None:
    answers = iter([False, False, True])
    heartbeat.wait(tmp_path, World(0, 2), lambda: next(answers), patience=60)
