"""One stage of the chain: its lock, its manifest, its resume, and which ranks do the work.

A stage whose output one process makes at once (data, scores, selection, ...):

    def score(...):
        def write_scores() -> dict[str, Any]:      # on the first rank only
            parquet.write_all(folder, scores(...))
            return {"hard": 12, ...}               # the manifest's counts

        run_stage(folder, world, write_scores, settings={...}, inputs={"probe": probe.name})

A stage whose ranks each take a share (probe, attention, evaluation, contamination):

    def probe(...):
        def probe_share(heart: Heartbeat) -> None:   # on every rank
            with heart.in_background():
                engine = load()
            for batch in batches(world.share(missing)):
                parquet.write_part(folder, parquet.next_part_name(folder, world.rank), batch)
                heart.beat()

        run_shared_stage(
            folder, world, probe_share,
            is_complete=lambda: wanted <= ids_in(folder),   # the first rank waits for all shares
            close=lambda: {"samples": len(samples)},        # on the first rank; the counts
            settings={...}, inputs={...},
        )

Both return the manifest, do nothing if the stage is finished, and raise FirstRankFailed on the
other ranks with the first rank's reason when it stops. `settings` may be a function, called when
the manifest is written. Whatever a stage's folder holds without a manifest is unfinished: the work
itself decides what to keep of it.
"""

import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from difftrain.pipeline import coordination, manifest
from difftrain.pipeline.coordination import World

Settings = Any | Callable[[], Any]
"""What the manifest keeps of the settings (JSON), or a function that returns it."""
SAVE_SECONDS = 5.0
"""A killed start loses at most this much of its elapsed time."""


def run_stage(
    folder: Path,
    world: World,
    work: Callable[[], Mapping[str, Any]],
    *,
    settings: Settings = None,
    inputs: Mapping[str, str],
    other_seconds: Callable[[], float] = lambda: 0.0,
) -> dict[str, Any]:
    """Have the first rank do the work and write the manifest with the counts it returns.

    The other ranks wait. Returns the manifest, at once if the stage is finished. `other_seconds`
    returns what is added to the seconds of the work.
    """

    def is_finished() -> bool:
        return manifest.read_manifest(folder) is not None

    if not is_finished():
        with coordination.stage_lock(folder, world, is_finished):
            if world.is_first and not is_finished():
                started = time.time()
                with coordination.report_failure(folder, world):
                    counts = work()
                    seconds = time.time() - started + other_seconds()
                    _write_manifest(folder, settings, inputs, seconds, counts)
    return coordination.wait_for_manifest(folder, world)


def run_shared_stage(
    folder: Path,
    world: World,
    work: "Callable[[Heartbeat], None]",
    *,
    is_complete: Callable[[], bool] = lambda: True,
    close: Callable[[], Mapping[str, Any]],
    settings: Settings = None,
    inputs: Mapping[str, str],
    seconds: Callable[[], float] | None = None,
    is_finished: Callable[[Mapping[str, Any]], bool] = lambda manifest: True,
    lock: Path | None = None,
) -> dict[str, Any]:
    """Have every rank do its share; the first waits until all `is_complete` and closes the stage.

    A manifest that does not satisfy `is_finished` is of an earlier, smaller request: the work is
    done again for what is missing, and the elapsed seconds are added to it. `seconds` returns the
    seconds where the work counts them itself. `lock` is the folder whose lock is held, where
    several stages add to one folder. Returns the manifest. Raises RankTimeout if another rank's
    heartbeat ends.
    """

    def finished() -> bool:
        content = manifest.read_manifest(folder)
        return content is not None and is_finished(content)

    def closed() -> bool:  # by the first rank of this launch, even where items failed again
        written_at = coordination.touched_at(folder / manifest.MANIFEST)
        return finished() or written_at >= coordination.STARTED

    if not finished():
        stage = folder.name if lock else ""
        with coordination.stage_lock(lock or folder, world, finished, stage):
            if not finished():
                heart = Heartbeat(folder, world)
                heart.beat()
                try:
                    work(heart)
                    if world.is_first:
                        coordination.wait(folder, world, lambda: heart.saved() and is_complete())
                finally:
                    heart.save()
                if world.is_first:
                    with coordination.report_failure(folder, world):
                        counts, elapsed = close(), (seconds or heart.seconds)()
                        _write_manifest(folder, settings, inputs, elapsed, counts)
                    heart.clear()
            coordination.wait_for_first_rank(folder, world, closed, lock or folder)
    return coordination.wait_for_manifest(folder, world)


def _write_manifest(
    folder: Path,
    settings: Settings,
    inputs: Mapping[str, str],
    seconds: float,
    counts: Mapping[str, Any],
) -> None:
    manifest.write_manifest(
        folder,
        settings=settings() if callable(settings) else settings,
        inputs=inputs,
        seconds=seconds,
        counts=counts,
    )
    for path in folder.glob(".rank-*.beat"):
        path.unlink(missing_ok=True)


class Heartbeat:
    """Shows the other ranks that this one is alive, and keeps the stage's elapsed seconds.

    The first rank's time counts, over all starts, killed ones included: each start keeps its
    seconds in a file of its own in the stage's folder, until the manifest has the sum.
    """

    def __init__(self, folder: Path, world: World) -> None:
        self.folder, self.world = folder, world
        self.path = folder / f".elapsed-{secrets.token_hex(6)}"
        self.started = self.saved_at = time.time()

    def beat(self) -> None:
        """Show that this rank is alive; to be called at least every minute."""
        coordination.beat(self.folder, self.world)
        self.saved()

    def in_background(self) -> AbstractContextManager[None]:
        """Beat from a thread during one long step, such as loading a model."""
        path = coordination.heartbeat_path(self.folder, self.world.rank)
        return coordination.touch_regularly(path)

    def saved(self) -> bool:
        """Save the seconds if the last time is long ago; always true."""
        if time.time() - self.saved_at > SAVE_SECONDS:
            self.save()
        return True

    def save(self) -> None:
        """Write down the seconds so far."""
        self.saved_at = time.time()
        if self.world.is_first:
            with suppress(OSError):  # a full disk is reported by the parts that do not fit
                manifest.write_text(self.path, repr(self.saved_at - self.started))

    def seconds(self) -> float:
        """Seconds of all starts, those in an earlier manifest included."""
        others = [path for path in self.folder.glob(".elapsed-*") if path != self.path]
        before = (manifest.read_manifest(self.folder) or {"seconds": 0.0})["seconds"]
        unfinished = sum(float(path.read_text()) for path in others)
        return before + unfinished + time.time() - self.started

    def clear(self) -> None:
        """Remove the files: the manifest has the sum now."""
        for path in self.folder.glob(".elapsed-*"):
            path.unlink(missing_ok=True)
