"""The draws to ask next, over all open samples: as one is answered, another takes its place.

A sample's next draws are known only when all its open ones are answered; then they go before
those of samples not begun yet, so that few samples are open at a time and an engine that remembers
their prompts need not read them again. Samples wait in the order of their length.
"""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import replace

from difftrain.config.probe import ProbeConfig
from difftrain.model.generate.request import Request
from difftrain.probe.ledger import Ledger
from difftrain.probe.rollouts import Draw, draw_seed, request
from difftrain.records import Sample, View


class Pending:
    """What is still to be asked of these samples. `unsettled` counts those that want more."""

    def __init__(
        self, ledger: Ledger, samples: Iterable[Sample], config: ProbeConfig, root: int
    ) -> None:
        self.ledger, self.config, self.root = ledger, config, root
        self.queue: deque[Draw] = deque()
        self.open: Counter[str] = Counter()
        self.unmasked: dict[tuple[str, View], Request] = {}
        for sample in sorted(samples, key=lambda each: -len(each.question)):
            self._line_up(sample)

    @property
    def unsettled(self) -> int:
        """How many samples have a draw open."""
        return len(self.open)

    def more(self, room: int) -> list[tuple[Draw, Request]]:
        """Up to `room` draws with their requests; none of a sample that was set aside."""
        taken: list[Draw] = []
        while self.queue and len(taken) < room:
            draw = self.queue.popleft()
            if draw.sample.sample_id in self.ledger.aside:
                self.answered(draw)
            else:
                taken.append(draw)
        return [(draw, self._request(draw)) for draw in taken]

    def answered(self, draw: Draw) -> None:
        """This draw is in the ledger, or its sample aside; line up what the sample wants next."""
        key = draw.sample.sample_id
        self.open[key] -= 1
        if not self.open[key]:
            del self.open[key]
            self._line_up(draw.sample)
        if key not in self.open:
            for view in View:
                self.unmasked.pop((key, view), None)

    def _line_up(self, sample: Sample) -> None:
        if wanted := self.ledger.wanted(sample):
            self.queue.extendleft(reversed(wanted))
            self.open[sample.sample_id] = len(wanted)

    def _request(self, draw: Draw) -> Request:
        """A draw's request; of an open sample, unmasked pictures are decoded once."""
        if draw.view is View.masked:
            return request(draw, self.config, self.root)
        key = draw.sample.sample_id, draw.view
        if key not in self.unmasked:
            self.unmasked[key] = request(draw, self.config, self.root)
        return replace(self.unmasked[key], seed=draw_seed(self.root, draw))
