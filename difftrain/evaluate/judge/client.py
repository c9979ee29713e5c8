"""The judge as the scorers know it: cache first, then the endpoint, with everything counted."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from difftrain.config.judge import JudgeClientConfig, JudgeKind, by_rules_alone, server_hash
from difftrain.evaluate import benchmark_named
from difftrain.evaluate.judge.cache import Replies, key_of
from difftrain.evaluate.judge.endpoint import Endpoint
from difftrain.evaluate.judge.usage import Tally
from difftrain.evaluate.types import ItemGrade, JudgeDown
from difftrain.records import GradedBy
from difftrain.shapes.stub_judge import judge as stand_in

LONGEST_REPLY = 2048
"""Tokens of a reply where the reference says nothing else."""
SHORT_BEFORE = "2026-05-28"
"""MM-Vet's judge had 3 tokens until this day; a chatty one is cut off and unusable there."""


def longest_reply(benchmark: str, rules: str) -> int:
    """The reference harness's max_tokens for a benchmark's judge at the date `rules`."""
    name = benchmark_named(benchmark).name
    if name == "MMVet" and rules < SHORT_BEFORE:
        return 3
    return 128 if name == "MathVista" else LONGEST_REPLY


class OneItem:
    """The judge of one item; a scorer calls it as judge(prompt, temperature)."""

    def __init__(self, tally: Tally, ask: Callable[[str, float, int], str]) -> None:
        self._tally, self._ask = tally, ask
        self._tries: Counter[tuple[str, float]] = Counter()
        self.replies = 0
        """How many replies it has had."""

    def __call__(self, prompt: str, temperature: float) -> str:
        """One reply. Raises JudgeDown where there is none."""
        number = self._tries[prompt, temperature]
        self._tries[prompt, temperature] += 1
        try:
            found = self._ask(prompt, temperature, number)
        except JudgeDown:
            self._tally.count("failed_items")
            raise
        self._tally.count("replies")
        self.replies += 1
        return found

    def settle(self, grade: ItemGrade) -> None:
        """Count the replies that nothing could be made of."""
        self._tally.count("unusable", self.replies - (grade.graded_by is GradedBy.judge))


class Judging:
    """The judge of one checkpoint's marks; whoever makes one closes it."""

    def __init__(self, kind: JudgeKind, config: JudgeClientConfig, cache: Path) -> None:
        self.kind = kind
        self.tally = Tally()
        self.disk_full: OSError | None = None
        """Set where a reply could not be kept; the pass must not go on then."""
        asks = kind is JudgeKind.endpoint
        self.workers = config.max_concurrency if asks else 1
        self.endpoint = Endpoint(config, self.tally) if asks else None
        self._replies = Replies(cache) if asks else None
        self._server = server_hash(kind) or ""

    def of_item(self, benchmark: str, rules: str) -> OneItem | None:
        """The judge of one item, which counts its tries from anew; None where no judge is asked."""
        if by_rules_alone(self.kind, benchmark):
            return None
        longest = longest_reply(benchmark, rules)

        def ask(prompt: str, temperature: float, number: int) -> str:
            if self.endpoint is None:
                return stand_in(prompt, temperature)
            return self._kept_or_asked(prompt, temperature, number, longest)

        return OneItem(self.tally, ask)

    def _kept_or_asked(self, prompt: str, temperature: float, number: int, longest: int) -> str:
        assert self.endpoint is not None
        assert self._replies is not None
        key = key_of(self._server, self.endpoint.model, prompt, temperature, longest, number)
        if (known := self._replies.get(key)) is not None:
            self.tally.count("from_cache")
            return known
        found = self.endpoint.reply(prompt, temperature, longest)
        try:
            at = datetime.now(UTC).isoformat(timespec="seconds")
            return self._replies.add(key, found, model=self.endpoint.model, at=at)
        except OSError as full:
            self.disk_full = full
            raise JudgeDown("the reply could not be kept") from full

    def counts(self) -> dict[str, Any]:
        """What was asked and what came of it, and why nothing more was asked (None: it was)."""
        return self.tally.plain() | {"stopped": self.endpoint.out if self.endpoint else None}

    def close(self) -> None:
        """Refuse further calls and let go of connections and file."""
        if self.endpoint is not None:
            self.endpoint.close()
        if self._replies is not None:
            self._replies.close()
