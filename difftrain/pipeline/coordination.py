"""Files through which ranks and launches coordinate: heartbeats, failure reasons, and a lock.

A launch is one start of a command; its ranks are its processes. Ranks wait for each other through
files in a stage's folder. Launches that need the same stage take turns: rank 0 locks the folder.
"""

import logging
import os
import socket
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

TIMEOUT_SECONDS = 600.0  # a rank without a heartbeat for this long is considered dead
POLL_SECONDS = 0.2  # pause between two looks for a file or the lock
BEAT_SECONDS = 5.0  # pause between two heartbeats of a background thread
LAUNCH_VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID")
"""Environment variables, equal in all ranks of a launch, different for parallel launches."""
# Files in a stage's folder:
FAILED = ".failed"  # says why rank 0 stopped; the file's full name ends with a hash of the launch
LOCK_HEARTBEAT = ".turn.beat"  # touched while rank 0 waits for the lock or holds it
ENTERED = ".entered"  # lists the launches whose rank 0 has held the lock, one per line
NAMED_HEARTBEATS: set[Path] = set()
"""The heartbeat files into which this process has written the name of its node."""
RECENT_FOLDERS: deque[Path] = deque(maxlen=3)
"""The folders that this rank entered last; rank 0 may still work in one of them."""
STARTED = time.time()  # when this process started; an older failure file is from an earlier run


class RaisedByAllRanks(Exception):
    """A mixin for errors that all ranks raise alike: the first does not report them to the others,
    so that the ranks may go on together after catching one."""


class FirstRankFailed(RuntimeError):
    """The first rank stopped, so its output will never exist; the message gives the reason."""


class RankTimeout(RuntimeError):
    """A rank has sent no heartbeat for too long; the message names the rank."""


@dataclass(frozen=True, slots=True)
class World:
    """This process is rank `rank` of `size` processes."""

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
        """This rank's share of the items; all ranks' shares together are exactly the items."""
        return items[self.rank :: self.size]


def heartbeat_path(folder: Path, rank: int) -> Path:
    """The heartbeat file of a rank in a stage's folder."""
    return folder / f".rank-{rank:03d}.beat"


def node_name() -> str:
    """The name of this machine, as SLURM knows it if it started this process."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def touch(heartbeat: Path) -> None:
    """Touch a heartbeat file, which shows other processes that this one is alive, and where."""
    heartbeat.parent.mkdir(parents=True, exist_ok=True)
    if heartbeat in NAMED_HEARTBEATS:
        heartbeat.touch()
    else:
        heartbeat.write_text(node_name())
        NAMED_HEARTBEATS.add(heartbeat)


def _rank_with_node(folder: Path, rank: int) -> str:
    """`rank 3`, with its node if that is another one: `rank 3 on node7`."""
    try:
        node = heartbeat_path(folder, rank).read_text()
    except FileNotFoundError:
        node = ""
    return f"rank {rank} on {node}" if node not in ("", node_name()) else f"rank {rank}"


def touched_at(path: Path) -> float:
    """When a file was last written or touched (a time.time()); 0 if it does not exist."""
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
    """Wait until `is_complete()` is true.

    Raises RankTimeout if one of `ranks` (default: all other ranks) sends no heartbeat meanwhile.
    """
    since = time.time()
    others = [rank for rank in ranks or range(world.size) if rank != world.rank]
    while not is_complete():
        touch(heartbeat_path(folder, world.rank))
        silent = [rank for rank in others if _is_silent(since, heartbeat_path(folder, rank))]
        if silent:
            names = ", ".join(_rank_with_node(folder, rank) for rank in silent)
            raise RankTimeout(
                f"{names} of {world.size}: no heartbeat for {TIMEOUT_SECONDS:.0f} s in {folder}; "
                "finished parts stay valid, and the same command continues from there"
            )
        time.sleep(POLL_SECONDS)


@contextmanager
def touch_regularly(heartbeat: Path) -> Iterator[None]:
    """Touch a heartbeat file from a background thread, for example while a model loads."""
    done = threading.Event()

    def touch_until_done() -> None:
        while not done.wait(BEAT_SECONDS):
            with suppress(OSError):  # if the file system fails briefly, the next beat tries again
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
    """On rank 0: touch `heartbeat` (default: rank 0's) regularly while the other ranks wait.

    If rank 0 fails, write the reason into the folder, where the other ranks read it.
    """
    reason_path = _failure_path(folder)
    reason_path.unlink(missing_ok=True)
    try:
        with touch_regularly(heartbeat or heartbeat_path(folder, world.rank)):
            yield
    except RaisedByAllRanks:
        raise
    except BaseException as error:  # also KeyboardInterrupt: the other ranks must stop
        if world.size > 1:
            manifest.write_text(reason_path, f"{type(error).__name__}: {error}")
        raise


def _launch_id() -> str:
    """An id that all ranks of this launch share; only colons if no variable is set."""
    return ":".join(os.environ.get(name, "") for name in LAUNCH_VARIABLES)


def _failure_path(folder: Path) -> Path:
    launch = _launch_id()
    return folder / (f"{FAILED}-{manifest.fingerprint(launch)}" if launch.strip(":") else FAILED)


def failure_reason(folder: Path) -> str | None:
    """Why the first rank of this launch stopped; None if it did not."""
    path = _failure_path(folder)
    try:
        return path.read_text() if path.stat().st_mtime >= STARTED else None
    except FileNotFoundError:
        return None


def wait_for_first_rank(
    folder: Path, world: World, is_complete: Callable[[], bool], failures: Path | None = None
) -> None:
    """Wait until `is_complete()`, which checks the first rank's output; rank 0 does not wait.

    Raises FirstRankFailed if the first rank stops, with the reason that it wrote into the folder
    `failures` (default: `folder`), and RankTimeout if it sends no heartbeat.
    """
    if world.is_first:
        return
    failures = failures or folder
    wait(folder, world, lambda: is_complete() or failure_reason(failures) is not None, ranks=[0])
    if not is_complete():
        raise FirstRankFailed(f"rank 0 stopped: {failure_reason(failures)}")


def wait_for_manifest(folder: Path, world: World) -> dict[str, Any]:
    """The manifest that the first rank writes. Raises the errors of wait_for_first_rank."""
    wait_for_first_rank(folder, world, lambda: manifest.read_manifest(folder) is not None)
    content = manifest.read_manifest(folder)
    if content is None:
        raise FileNotFoundError(f"no manifest.json in {folder}: the stage was not finished")
    return content


@contextmanager
def stage_lock(
    folder: Path, world: World, is_finished: Callable[[], bool] = lambda: False, stage: str = ""
) -> Iterator[None]:
    """Let one launch at a time work in a stage's folder; a second launch waits and logs that.

    Rank 0 takes the lock and adds the launch's id to the file `.entered`. The other ranks wait
    until that id is there or `is_finished()` is true, so the ranks of two launches never mix. They
    raise FirstRankFailed if rank 0 stops before it has the lock, and RankTimeout if it sends no
    heartbeat. A killed process releases its lock. On a file system without locks, work goes on
    after a warning. `stage` distinguishes stages that lock the same folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entry = f"{_launch_id()} {stage}".strip()
    if not world.is_first:
        _follow_first_rank(folder, world, is_finished, entry)
        yield
        return
    # No soft lock: a killed process would never release it.
    lock, is_alone = FileLock(folder / ".lock", fallback_to_soft=False), world.size == 1
    with nullcontext() if is_alone else report_failure(folder, world, folder / LOCK_HEARTBEAT):
        try:
            lock.acquire(blocking=False)
        except Timeout:
            logger.warning("another run is working in %s: waiting for it to finish", folder)
            lock.acquire(poll_interval=POLL_SECONDS)
        except OSError as error:
            warning = "%s cannot be locked (%s): do not start a second run in it"
            logger.warning(warning, folder, error.strerror or error)
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

    The first rank may still work in an earlier stage. Raises FirstRankFailed or RankTimeout.
    """
    since, folders, entered = time.time(), [*RECENT_FOLDERS, folder], folder / ENTERED
    heartbeats = [path / LOCK_HEARTBEAT for path in folders]
    heartbeats += [heartbeat_path(path, 0) for path in folders]
    while not is_finished():
        if entered.is_file() and entry in entered.read_text().splitlines():
            break
        if reasons := [reason for path in folders if (reason := failure_reason(path))]:
            raise FirstRankFailed(f"rank 0 stopped: {reasons[0]}")
        if _is_silent(since, *heartbeats):
            silence = f"no heartbeat for {TIMEOUT_SECONDS:.0f} s"
            raise RankTimeout(f"rank 0 of {world.size}: {silence} before {folder}")
        time.sleep(POLL_SECONDS)
    RECENT_FOLDERS.append(folder)
