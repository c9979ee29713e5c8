"""Run one stage of the chain: lock its folder, let the ranks work, write its manifest.

run_stage is for work that the first rank does alone (data, scores, selections); run_shared_stage
is for work of which every rank does a share (probe, attention, evaluation, training).

Both return the manifest and do nothing if the stage is finished. If the first rank fails, the other
ranks raise FirstRankFailed with the reason. `settings` are written to the manifest as JSON; they
may be a function that returns them. A folder without a manifest is unfinished: the work itself
decides which files to reuse.
"""

import json
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from difftrain.pipeline import coordination, manifest
from difftrain.pipeline.coordination import World

SAVE_SECONDS = 5.0  # pause between two saves of the elapsed seconds
PROGRESS = ".progress-"  # begins a file's name; it ends with the rank and holds [done, total]


class Heartbeat:
    """Shows the other ranks that this one is alive, and counts the stage's elapsed seconds.

    Only the first rank counts, over all starts of the stage, including killed ones. Every start
    saves its seconds in its own file in the stage's folder, until the manifest has the sum.
    """

    def __init__(self, folder: Path, world: World) -> None:
        self.folder, self.world = folder, world
        self.path = coordination.heartbeat_path(folder, world.rank)
        self.elapsed_path = folder / f".elapsed-{secrets.token_hex(6)}"
        self.started = self.saved_at = time.time()
        self.done: tuple[int, int] | None = None

    def progress(self, done: int, total: int) -> None:
        """Note how much of this rank's share is done; trackers show it while the stage runs."""
        self.done = done, total

    def beat(self) -> None:
        """Show that this rank is alive. Must be called at least every minute."""
        coordination.touch(self.path)
        if time.time() - self.saved_at > SAVE_SECONDS:
            self.save()

    def in_background(self) -> AbstractContextManager[None]:
        """Send heartbeats from a thread during one long step, such as loading a model."""
        return coordination.touch_regularly(self.path)

    def save(self) -> None:
        """Save this rank's progress and, on the first rank, the seconds so far."""
        self.saved_at = time.time()
        with suppress(OSError):  # if the disk is full, writing a part reports it
            if self.world.is_first:
                manifest.write_text(self.elapsed_path, repr(self.saved_at - self.started))
            if self.done:
                path = self.folder / f"{PROGRESS}{self.world.rank:03d}"
                manifest.write_text(path, json.dumps(self.done))

    def seconds(self) -> float:
        """Seconds of all starts, including those that an earlier manifest counts."""
        before = (manifest.read_manifest(self.folder) or {"seconds": 0.0})["seconds"]
        others = {*self.folder.glob(".elapsed-*")} - {self.elapsed_path}
        unfinished = sum(float(path.read_text()) for path in others)
        return before + unfinished + time.time() - self.started

    def clear(self) -> None:
        """Remove the files with seconds, progress and heartbeats; the manifest now has the sum of
        seconds."""
        for pattern in (".elapsed-*", ".rank-*.beat", f"{PROGRESS}*"):
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)


def run_stage(
    folder: Path,
    world: World,
    work: Callable[[], Mapping[str, Any]],
    *,
    settings: Any = None,
    inputs: Mapping[str, str],
    other_seconds: Callable[[], float] = lambda: 0.0,
) -> dict[str, Any]:
    """Have the first rank do the work and write the manifest with the counts it returns.

    The other ranks wait. Returns the manifest, immediately if the stage is finished.
    `other_seconds` returns seconds to add to those of the work.
    """
    seconds = 0.0

    def close() -> Mapping[str, Any]:
        nonlocal seconds
        started = time.time()
        counts = work()
        seconds = time.time() - started + other_seconds()
        return counts

    return run_shared_stage(
        folder, world, close=close, seconds=lambda: seconds, settings=settings, inputs=inputs
    )


def run_shared_stage(
    folder: Path,
    world: World,
    work: Callable[[Heartbeat], None] = lambda heart: None,
    *,
    is_complete: Callable[[], bool] = lambda: True,
    close: Callable[[], Mapping[str, Any]],
    settings: Any = None,
    inputs: Mapping[str, str],
    seconds: Callable[[], float] | None = None,
    is_finished: Callable[[Mapping[str, Any]], bool] = lambda manifest: True,
    lock: Path | None = None,
) -> dict[str, Any]:
    """Have every rank do its share of the work; returns the manifest, which the first rank writes.

    The first rank waits until `is_complete()`, then calls `close`, which returns the counts for the
    manifest. A manifest that does not satisfy `is_finished` is from an earlier, smaller request:
    the work adds what is missing. `seconds` returns the seconds if the work counts them itself.
    `lock` is the folder to lock if several stages add files to one folder. Raises RankTimeout if
    another rank sends no heartbeat.
    """

    def finished() -> bool:
        content = manifest.read_manifest(folder)
        return content is not None and is_finished(content)

    def closed() -> bool:  # a manifest of this launch suffices, even if items failed again
        written_at = coordination.touched_at(folder / manifest.MANIFEST)
        return finished() or written_at >= coordination.STARTED

    if not finished():
        with coordination.stage_lock(lock or folder, world, finished, folder.name if lock else ""):
            if not finished():
                heart = Heartbeat(folder, world)

                def all_shares_done() -> bool:
                    heart.beat()
                    return is_complete()

                heart.beat()
                try:
                    work(heart)
                    if world.is_first:
                        coordination.wait(folder, world, all_shares_done)
                finally:
                    heart.save()
                if world.is_first:
                    with heart.in_background():
                        counts, elapsed = close(), (seconds or heart.seconds)()
                        values = settings() if callable(settings) else settings
                        manifest.write_manifest(
                            folder, settings=values, inputs=inputs, seconds=elapsed, counts=counts
                        )
                    heart.clear()
            coordination.wait_for_first_rank(folder, world, closed, lock or folder)
    return coordination.wait_for_manifest(folder, world)
