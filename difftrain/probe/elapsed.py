"""Seconds of a stage over all its starts, those that were killed included.

The first rank's time is what counts: the others wait for it or it for them. Each start keeps its
seconds in a file of its own in the stage's folder, until manifest.json has the sum.
"""

import secrets
import time
from contextlib import suppress
from pathlib import Path

from difftrain.pipeline import manifest
from difftrain.pipeline.coordination import World

SAVE_INTERVAL_S = 5.0
"""A killed start loses so much at most."""


class ElapsedSeconds:
    """The clock of one start. Only the first rank's writes."""

    def __init__(self, folder: Path, world: World) -> None:
        self.folder, self.writes = folder, world.is_first
        self.path = folder / f".elapsed-{secrets.token_hex(6)}"
        self.started = self.noted = time.time()

    def beat(self) -> None:
        """Note the seconds so far, now and then."""
        if time.time() - self.noted > SAVE_INTERVAL_S:
            self.note()

    def note(self) -> None:
        """Note the seconds so far."""
        self.noted = time.time()
        if self.writes:
            with suppress(OSError):  # a full disk is told of by what is lost for want of it
                manifest.write_text(self.path, repr(self.noted - self.started))

    def total(self) -> float:
        """Seconds of all starts since the last manifest.json, this one included."""
        others = [path for path in self.folder.glob(".elapsed-*") if path != self.path]
        return time.time() - self.started + sum(float(path.read_text()) for path in others)

    def clear(self) -> None:
        """Forget them: manifest.json has them now."""
        for path in self.folder.glob(".elapsed-*"):
            path.unlink(missing_ok=True)
