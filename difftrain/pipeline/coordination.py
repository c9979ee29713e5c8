"""How ranks that never talk wait for one another: a file per rank, touched while it lives.

And how runs that share a stage take turns: the system's lock on a file, gone with its process.
"""

import fcntl
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any

from difftrain.pipeline import manifest
from difftrain.pipeline.distributed import World

PATIENCE_SECONDS = 600.0
POLL_SECONDS = 0.2
BEAT_SECONDS = 5.0
LAUNCH = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID")
"""What the processes of one launch share, and two launches at a time do not."""


FAILED = ".failed"
"""In a stage's folder: why the first rank stopped; behind it the launch, where it has a name."""
TURN = ".turn.beat"
"""In a stage's folder: touched while a first rank waits for its turn or has it."""
FOLLOWED: deque[Path] = deque(maxlen=3)
"""The last folders that this rank followed its first rank into; that may still be in them."""
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
    with telling(path_of(folder, world.rank), world):
        yield


@contextmanager
def beating(folder: Path, world: World) -> Iterator[None]:
    """Keep beating from a thread while any rank does what takes long, such as loading a model."""
    with touching(path_of(folder, world.rank)):
        yield


@contextmanager
def telling(touched: Path, world: World) -> Iterator[None]:
    """Touch this file of a stage's folder from a thread meanwhile; a failure leaves its reason."""
    failed = failed_path(touched.parent)
    failed.unlink(missing_ok=True)
    finished = False
    try:
        with touching(touched):
            yield
        finished = True
    finally:
        if not finished and world.size > 1:
            error = sys.exc_info()[1]
            manifest.write_text(failed, f"{type(error).__name__}: {error}")


@contextmanager
def touching(touched: Path) -> Iterator[None]:
    """Touch this file from a thread meanwhile."""
    done = threading.Event()

    def touch() -> None:
        touched.parent.mkdir(parents=True, exist_ok=True)
        touched.touch()

    def beats() -> None:
        while not done.wait(BEAT_SECONDS):
            with suppress(OSError):  # a disk that hesitates: there is another beat
                touch()

    touch()
    thread = threading.Thread(target=beats, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def launch_name() -> str:
    """What the processes of this launch share; only colons where nothing names it."""
    return ":".join(os.environ.get(name, "") for name in LAUNCH)


def failed_path(folder: Path) -> Path:
    """Where this launch's first rank leaves its reason; another launch's is none of ours."""
    name = launch_name()
    return folder / (f"{FAILED}-{manifest.fingerprint(name)}" if name.strip(":") else FAILED)


def failure(folder: Path) -> str | None:
    """Why the first rank of this run stopped, or None."""
    path = failed_path(folder)
    try:
        return path.read_text() if path.stat().st_mtime >= STARTED else None
    except FileNotFoundError:
        return None


def made_by_first(folder: Path, world: World) -> dict[str, Any]:
    """The manifest.json that the first rank writes.

    Raises FirstFailed with its reason if it stops, RankSilent if it falls silent meanwhile.
    """

    def settled() -> bool:
        return manifest.read_made(folder) is not None or failure(folder) is not None

    if not world.is_first:
        wait(folder, world, settled, ranks=[0])
    made = manifest.read_made(folder)
    if made is None and not world.is_first and (reason := failure(folder)):
        raise FirstFailed(f"rank 0 stopped: {reason}")
    if made is None:
        raise FileNotFoundError(f"no manifest.json in {folder}: the stage was not finished")
    return made


@contextmanager
def turn(folder: Path, world: World) -> Iterator[None]:
    """Keep other runs out of a stage folder meanwhile; waits, and says so, while one is in it.

    The first rank holds the lock and writes the launch's name into `.entered`; the others follow
    their own first rank, so that two launches cannot hold half of the locks each. A killed process
    gives its lock back. A file system without locks is told once and worked on without. The others
    raise FirstFailed with its reason if it stops before it is in, RankSilent if it falls silent.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entered = folder / ".entered"
    if not world.is_first:
        follow(folder, world, entered)
        yield
        return
    beating = telling(folder / TURN, world) if world.size > 1 else nullcontext()
    with (folder / ".lock").open("w") as file, beating:
        told = False
        while not locked(file, folder):
            if not told:
                print(f"another run is making {folder}: waiting", file=sys.stderr, flush=True)
            told = True
            time.sleep(POLL_SECONDS)
        with entered.open("a") as names:
            names.write(f"{launch_name()}\n")
        yield


def follow(folder: Path, world: World, entered: Path) -> None:
    """Wait until this launch's first rank is in the folder, or see why it never comes.

    It may still be in a stage before this one. Raises FirstFailed or RankSilent.
    """
    launch, since, around = launch_name(), time.time(), [*FOLLOWED, folder]
    while not (entered.is_file() and launch in entered.read_text().splitlines()):
        if reasons := [reason for each in around if (reason := failure(each))]:
            raise FirstFailed(f"rank 0 stopped: {reasons[0]}")
        if time.time() - max(since, *map(heard, around)) > PATIENCE_SECONDS:
            raise RankSilent(
                f"rank 0 of {world.size} not heard of for {PATIENCE_SECONDS:.0f} s before {folder}"
            )
        time.sleep(POLL_SECONDS)
    FOLLOWED.append(folder)


def heard(folder: Path) -> float:
    """When a first rank was last heard of in a stage folder; 0 if never."""
    last = 0.0
    for path in (folder / TURN, path_of(folder, 0)):
        with suppress(FileNotFoundError):
            last = max(last, path.stat().st_mtime)
    return last


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
