"""How ranks that never talk wait for one another: a file per rank, touched while it lives.

And how runs that share a stage take turns: the system's lock on a file, gone with its process.
"""

import fcntl
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from difftrain import lineage
from difftrain.world import World

PATIENCE_SECONDS = 600.0
POLL_SECONDS = 0.2
BEAT_SECONDS = 5.0
LAUNCH = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID")
"""What the processes of one launch share, and two launches at a time do not."""


FAILED = ".failed"
"""In a stage's folder: why the first rank stopped."""
STARTED = time.time()
"""When this process began; what failed before is another run's."""


class FirstFailed(RuntimeError):
    """The first rank stopped, so what it was to make never comes; the message is its reason."""


class RankSilent(RuntimeError):
    """A rank has not been heard of for too long; the message names it."""


def path_of(folder: Path, rank: int) -> Path:
    """The heartbeat file of a rank in a stage folder."""
    return folder / f".rank-{rank:03d}.beat"


def beat(folder: Path, world: World) -> None:
    """Say that this rank is alive."""
    folder.mkdir(parents=True, exist_ok=True)
    path_of(folder, world.rank).touch()


def silent(folder: Path, ranks: Iterable[int], since: float, patience: float) -> list[int]:
    """The ranks not heard of for `patience` seconds, counted from `since` at the earliest."""
    now = time.time()

    def last(rank: int) -> float:
        try:
            return max(since, path_of(folder, rank).stat().st_mtime)
        except FileNotFoundError:  # not there yet, or the stage has just been closed
            return since

    return [rank for rank in ranks if now - last(rank) > patience]


def wait(
    folder: Path,
    world: World,
    complete: Callable[[], bool],
    patience: float = PATIENCE_SECONDS,
    ranks: Iterable[int] | None = None,
) -> None:
    """Return once `complete()` is true. Raises RankSilent if one of `ranks` falls silent before.

    Without `ranks`, all other ranks are listened to.
    """
    since = time.time()
    others = [rank for rank in ranks or range(world.size) if rank != world.rank]
    while not complete():
        beat(folder, world)
        if gone := silent(folder, others, since, patience):
            names = ", ".join(f"rank {rank}" for rank in gone)
            raise RankSilent(
                f"{names} of {world.size} not heard of for {patience:.0f} s in {folder}; "
                "what it wrote stays, and the same command continues from there"
            )
        time.sleep(POLL_SECONDS)


@contextmanager
def working(folder: Path, world: World) -> Iterator[None]:
    """Keep beating from a thread while this rank does what the others wait for.

    Where it fails, its reason is left for them.
    """
    (folder / FAILED).unlink(missing_ok=True)
    done = threading.Event()

    def beats() -> None:
        while not done.wait(BEAT_SECONDS):
            beat(folder, world)

    beat(folder, world)
    thread = threading.Thread(target=beats, daemon=True)
    thread.start()
    finished = False
    try:
        yield
        finished = True
    finally:
        done.set()
        thread.join()
        if not finished and world.size > 1:
            error = sys.exc_info()[1]
            lineage.write_text(folder / FAILED, f"{type(error).__name__}: {error}")


def failure(folder: Path) -> str | None:
    """Why the first rank of this run stopped, or None."""
    path = folder / FAILED
    try:
        return path.read_text() if path.stat().st_mtime >= STARTED else None
    except FileNotFoundError:
        return None


def made_by_first(folder: Path, world: World) -> dict[str, Any]:
    """The made.json that the first rank writes.

    Raises FirstFailed with its reason if it stops, RankSilent if it falls silent meanwhile.
    """

    def settled() -> bool:
        return lineage.read_made(folder) is not None or failure(folder) is not None

    if not world.is_first:
        wait(folder, world, settled, ranks=[0])
    made = lineage.read_made(folder)
    if made is None and not world.is_first and (reason := failure(folder)):
        raise FirstFailed(f"rank 0 stopped: {reason}")
    if made is None:
        raise FileNotFoundError(f"no made.json in {folder}: the stage was not finished")
    return made


@contextmanager
def turn(folder: Path, world: World) -> Iterator[None]:
    """Keep other runs out of a stage folder meanwhile; waits, and says so, while one is in it.

    The first rank holds the lock and writes the launch's name into `.entered`; the others follow
    their own first rank, so that two launches cannot hold half of the locks each. A killed process
    gives its lock back. A file system without locks is told once and worked on without.
    """
    folder.mkdir(parents=True, exist_ok=True)
    launch = ":".join(os.environ.get(name, "") for name in LAUNCH)
    entered = folder / ".entered"
    if not world.is_first:
        while not (entered.is_file() and launch in entered.read_text().splitlines()):
            time.sleep(POLL_SECONDS)
        yield
        return
    with (folder / ".lock").open("w") as file:
        told = False
        while not locked(file, folder):
            if not told:
                print(f"another run is making {folder}: waiting", file=sys.stderr, flush=True)
            told = True
            time.sleep(POLL_SECONDS)
        with entered.open("a") as names:
            names.write(f"{launch}\n")
        yield


def locked(file: IO[str], folder: Path) -> bool:
    """Whether the lock is ours now, or cannot be had on this file system; False while held."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        told = f"{folder} cannot be locked ({error.strerror}): start no second run on it"
        print(told, file=sys.stderr, flush=True)
    return True


def clear(folder: Path) -> None:
    """Remove the heartbeats of a finished stage."""
    for path in folder.glob(".rank-*.beat"):
        path.unlink(missing_ok=True)
