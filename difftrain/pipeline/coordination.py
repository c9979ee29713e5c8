"""Ranks and launches that share folders without talking: heartbeat files, failure files, a lock.

The ranks of one launch wait for one another through files in a stage's folder. Launches that share
a stage take turns: the first rank holds the folder's lock, which ends with its process. Stages use
both through stage.run_stage.
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from filelock import FileLock, Timeout

from difftrain.pipeline import manifest

logger = logging.getLogger(__name__)
T = TypeVar("T")

TIMEOUT_SECONDS = 600.0  # a rank without a heartbeat for this long is taken as dead
POLL_SECONDS = 0.2
BEAT_SECONDS = 5.0
LAUNCH_VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID")
"""Equal in all processes of one launch, and different between two launches at the same time."""
# Files in a stage's folder:
FAILED = ".failed"  # why the first rank stopped; the name ends with the launch, if it has one
LOCK_HEARTBEAT = ".turn.beat"  # touched while a first rank waits for the lock or holds it
ENTERED = ".entered"  # the launches whose first rank has held the lock, one a line
FOLLOWED: deque[Path] = deque(maxlen=3)
"""The last folders that this rank followed its first rank into; it may still be in one of them."""
STARTED = time.time()  # of this process; an older failure file belongs to another run


class FirstRankFailed(RuntimeError):
    """The first rank stopped, so its output will never come; the message is its reason."""


class RankTimeout(RuntimeError):
    """A rank has sent no heartbeat for too long; the message names it."""


@dataclass(frozen=True, slots=True)
class World:
    """Rank `rank` of `size` processes. Read once, in the launcher."""

    rank: int = 0
    size: int = 1

    @classmethod
    def from_environment(cls) -> Self:
        """The world that RANK and WORLD_SIZE describe (set by accelerate launch and torchrun)."""
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))

    @property
    def is_first(self) -> bool:
        """Whether this process is rank 0, which writes manifests and reports."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This rank's part of the items; the union over ranks is exactly the items."""
        return items[self.rank :: self.size]


def heartbeat_path(folder: Path, rank: int) -> Path:
    """The heartbeat file of a rank in a stage's folder."""
    return folder / f".rank-{rank:03d}.beat"


def touch(heartbeat: Path) -> None:
    """Show the processes that watch this heartbeat file that this one is alive."""
    heartbeat.parent.mkdir(parents=True, exist_ok=True)
    heartbeat.touch()


def touched_at(path: Path) -> float:
    """When a file was last written (a time.time()); 0 if it does not exist."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _is_silent(since: float, *heartbeats: Path) -> bool:
    """Whether none of these files has been touched for TIMEOUT_SECONDS, counted from `since`."""
    return time.time() - max(since, *map(touched_at, heartbeats)) > TIMEOUT_SECONDS


def wait(
    folder: Path, world: World, is_complete: Callable[[], bool], ranks: Iterable[int] | None = None
) -> None:
    """Return once `is_complete()` is true; RankTimeout if one of `ranks` stops beating before.

    Without `ranks`, all other ranks are watched.
    """
    since = time.time()
    others = [rank for rank in ranks or range(world.size) if rank != world.rank]
    while not is_complete():
        touch(heartbeat_path(folder, world.rank))
        silent = [rank for rank in others if _is_silent(since, heartbeat_path(folder, rank))]
        if silent:
            names = ", ".join(f"rank {rank}" for rank in silent)
            raise RankTimeout(
                f"{names} of {world.size}: no heartbeat for {TIMEOUT_SECONDS:.0f} s in {folder}; "
                "finished parts stay valid, and the same command continues from there"
            )
        time.sleep(POLL_SECONDS)


@contextmanager
def touch_regularly(heartbeat: Path) -> Iterator[None]:
    """Touch a heartbeat file from a background thread, such as while a model is loading."""
    done = threading.Event()

    def touch_until_done() -> None:
        while not done.wait(BEAT_SECONDS):
            with suppress(OSError):  # a file system that fails for a moment: the next beat counts
                touch(heartbeat)

    touch(heartbeat)
    thread = threading.Thread(target=touch_until_done, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def report_failure(folder: Path, world: World, heartbeat: Path | None = None) -> Iterator[None]:
    """Beat from a background thread while the other ranks wait for this one's output.

    If this rank fails, the reason is left in the folder for them.
    """
    reason_path = _failure_path(folder)
    reason_path.unlink(missing_ok=True)
    try:
        with touch_regularly(heartbeat or heartbeat_path(folder, world.rank)):
            yield
    except BaseException as error:
        if world.size > 1:
            manifest.write_text(reason_path, f"{type(error).__name__}: {error}")
        raise


def _launch_id() -> str:
    """What the processes of this launch share; only colons where the environment has no name."""
    return ":".join(os.environ.get(name, "") for name in LAUNCH_VARIABLES)


def _failure_path(folder: Path) -> Path:
    launch = _launch_id()
    return folder / (f"{FAILED}-{manifest.fingerprint(launch)}" if launch.strip(":") else FAILED)


def failure_reason(folder: Path) -> str | None:
    """Why the first rank of this launch stopped, or None."""
    path = _failure_path(folder)
    try:
        return path.read_text() if path.stat().st_mtime >= STARTED else None
    except FileNotFoundError:
        return None


def wait_for_first_rank(
    folder: Path, world: World, is_complete: Callable[[], bool], failures: Path | None = None
) -> None:
    """Return once the first rank has made what `is_complete` looks for; at once on rank 0.

    Raises FirstRankFailed with the reason, read from the folder `failures`, if it stops, and
    RankTimeout if its heartbeat ends.
    """
    if world.is_first:
        return
    failures = failures or folder
    wait(folder, world, lambda: is_complete() or failure_reason(failures) is not None, ranks=[0])
    if not is_complete():
        raise FirstRankFailed(f"rank 0 stopped: {failure_reason(failures)}")


def wait_for_manifest(folder: Path, world: World) -> dict[str, Any]:
    """The manifest that the first rank writes; see wait_for_first_rank for what it raises."""
    wait_for_first_rank(folder, world, lambda: manifest.read_manifest(folder) is not None)
    content = manifest.read_manifest(folder)
    if content is None:
        raise FileNotFoundError(f"no manifest.json in {folder}: the stage was not finished")
    return content


@contextmanager
def stage_lock(
    folder: Path, world: World, is_finished: Callable[[], bool] = lambda: False, stage: str = ""
) -> Iterator[None]:
    """Keep other launches out of a stage's folder meanwhile; waits, and says so, for its turn.

    The first rank holds the lock and writes the launch's name into `.entered`; the other ranks
    follow their own first rank, so two launches cannot hold half of the locks each. They need not
    wait once the stage `is_finished`. The lock of a killed process is free at once. On a file
    system without locks a warning is logged and work goes on without. `stage` tells several stages
    apart that take the lock of one folder. The other ranks raise FirstRankFailed if the first rank
    stops before it has the lock, RankTimeout if it is silent.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entry = f"{_launch_id()} {stage}".strip()
    if not world.is_first:
        _follow_first_rank(folder, world, is_finished, entry)
        yield
        return
    lock, alone = FileLock(folder / ".lock", fallback_to_soft=False), world.size == 1
    with nullcontext() if alone else report_failure(folder, world, folder / LOCK_HEARTBEAT):
        try:
            lock.acquire(blocking=False)
        except Timeout:
            logger.warning("another run is working in %s: waiting for it to finish", folder)
            lock.acquire(poll_interval=POLL_SECONDS)
        except OSError as error:
            reason = error.strerror or error
            logger.warning("%s cannot be locked (%s): start no second run on it", folder, reason)
        try:
            with (folder / ENTERED).open("a") as launches:
                launches.write(f"{entry}\n")
            yield
        finally:
            lock.release()


def _follow_first_rank(
    folder: Path, world: World, is_finished: Callable[[], bool], entry: str
) -> None:
    """Wait until this launch's first rank has entered the folder, or the stage is finished.

    It may still be in an earlier stage. Raises FirstRankFailed or RankTimeout.
    """
    since, folders, entered = time.time(), [*FOLLOWED, folder], folder / ENTERED
    heartbeats = [path / LOCK_HEARTBEAT for path in folders]
    heartbeats += [heartbeat_path(path, 0) for path in folders]
    while not is_finished():
        if entered.is_file() and entry in entered.read_text().splitlines():
            break
        if reasons := [reason for path in folders if (reason := failure_reason(path))]:
            raise FirstRankFailed(f"rank 0 stopped: {reasons[0]}")
        if _is_silent(since, *heartbeats):
            raise RankTimeout(
                f"rank 0 of {world.size}: no heartbeat for {TIMEOUT_SECONDS:.0f} s before {folder}"
            )
        time.sleep(POLL_SECONDS)
    FOLLOWED.append(folder)
