"""The draws to ask next, over all open samples: as one is answered, another takes its place.

A sample's next draws are known only when all its open ones are answered, so samples wait in a
queue while others are asked; draws that show the same pictures stand side by side in it.
"""

from collections import Counter, deque
from collections.abc import Iterable

from difftrain.model.generate.request import Request
from difftrain.probe.config import ProbeConfig
from difftrain.probe.ledger import Ledger
from difftrain.probe.rollouts import Draw, request
from difftrain.records import Sample


class Pending:
    """What is still to be asked of these samples. `unsettled` counts those that want more."""

    def __init__(
        self, ledger: Ledger, samples: Iterable[Sample], config: ProbeConfig, root: int
    ) -> None:
        self.ledger, self.config, self.root = ledger, config, root
        self.queue: deque[Draw] = deque()
        self.open: Counter[str] = Counter()
        for sample in samples:
            self._line_up(sample)

    @property
    def unsettled(self) -> int:
        """How many samples have a draw open."""
        return len(self.open)

    def more(self, room: int) -> list[tuple[Draw, Request]]:
        """Up to `room` draws with their requests, oldest first."""
        taken = [self.queue.popleft() for _ in range(min(room, len(self.queue)))]
        return [(draw, request(draw, self.config, self.root)) for draw in taken]

    def answered(self, draw: Draw) -> None:
        """This draw is in the ledger; line up what its sample wants next."""
        key = draw.sample.sample_id
        self.open[key] -= 1
        if not self.open[key]:
            del self.open[key]
            self._line_up(draw.sample)

    def _line_up(self, sample: Sample) -> None:
        if wanted := self.ledger.wanted(sample):
            self.queue.extend(wanted)
            self.open[sample.sample_id] = len(wanted)
