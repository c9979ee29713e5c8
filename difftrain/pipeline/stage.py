"""One stage of the chain: its lock, its manifest, its resume, and which ranks do the work.

run_stage is for output that one process makes at once (data, scores, selections, reports of it);
run_shared_stage for work of which every rank does a share (probe, attention, evaluation, training).

Both return the manifest, do nothing if the stage is finished, and raise FirstRankFailed on the
other ranks with the first rank's reason when it stops. `settings` is what the manifest keeps of the
settings (JSON), or a function that returns it when the manifest is written. Whatever a stage's
folder holds without a manifest is unfinished: the work itself decides what to keep of it.
"""

import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from difftrain.pipeline import coordination, manifest
from difftrain.pipeline.coordination import World

SAVE_SECONDS = 5.0  # a killed start loses at most this much of its elapsed time


class Heartbeat:
    """Shows the other ranks that this one is alive, and keeps the stage's elapsed seconds.

    The first rank's time counts, over all starts, killed ones included: each start keeps its
    seconds in a file of its own in the stage's folder, until the manifest has the sum.
    """

    def __init__(self, folder: Path, world: World) -> None:
        self.folder, self.world = folder, world
        self.path = coordination.heartbeat_path(folder, world.rank)
        self.elapsed_path = folder / f".elapsed-{secrets.token_hex(6)}"
        self.started = self.saved_at = time.time()

    def beat(self) -> None:
        """Show that this rank is alive; to be called at least every minute."""
        coordination.touch(self.path)
        if time.time() - self.saved_at > SAVE_SECONDS:
            self.save()

    def in_background(self) -> AbstractContextManager[None]:
        """Beat from a thread during one long step, such as loading a model."""
        return coordination.touch_regularly(self.path)

    def save(self) -> None:
        """Write down the seconds so far."""
        self.saved_at = time.time()
        if self.world.is_first:
            with suppress(OSError):  # a full disk is reported by the parts that do not fit
                manifest.write_text(self.elapsed_path, repr(self.saved_at - self.started))

    def seconds(self) -> float:
        """Seconds of all starts, those in an earlier manifest included."""
        before = (manifest.read_manifest(self.folder) or {"seconds": 0.0})["seconds"]
        others = {*self.folder.glob(".elapsed-*")} - {self.elapsed_path}
        unfinished = sum(float(path.read_text()) for path in others)
        return before + unfinished + time.time() - self.started

    def clear(self) -> None:
        """Remove what shows an unfinished stage: the manifest has the sum of the seconds now."""
        for path in (*self.folder.glob(".elapsed-*"), *self.folder.glob(".rank-*.beat")):
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

    The other ranks wait. Returns the manifest, at once if the stage is finished. `other_seconds`
    returns what is added to the seconds of the work.
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
    """Have every rank do its share; the first waits until all `is_complete` and closes the stage.

    `close` returns the manifest's counts. A manifest that does not satisfy `is_finished` is of an
    earlier, smaller request: the work is done again for what is missing, and the elapsed seconds
    are added to it. `seconds` returns the seconds where the work counts them itself. `lock` is the
    folder whose lock is held, where several stages add to one folder. Returns the manifest. Raises
    RankTimeout if another rank's heartbeat ends.
    """

    def finished() -> bool:
        content = manifest.read_manifest(folder)
        return content is not None and is_finished(content)

    def closed() -> bool:  # by the first rank of this launch, even where items failed again
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
                        kept = settings() if callable(settings) else settings
                        manifest.write_manifest(
                            folder, settings=kept, inputs=inputs, seconds=elapsed, counts=counts
                        )
                    heart.clear()
            coordination.wait_for_first_rank(folder, world, closed, lock or folder)
    return coordination.wait_for_manifest(folder, world)
