"""The batch that flies: rows that begin and end at different times, within limits.

Axes: N slots, B rows that are drawn together, V vocabulary.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

import torch

from difftrain.config.model import FIXED_ROWS, ModelConfig
from difftrain.model import memory
from difftrain.model.generate import gumbel
from difftrain.model.generate.prefill import Prompt, Reader, tokens_at_most
from difftrain.model.generate.request import K, Request
from difftrain.model.generate.slots import Slots
from difftrain.model.load import Loaded

WORTH_TOKENS = 1024
"""So many waiting prompt tokens fill a pass; fewer wait for company while others are answered."""
WORTH_SHARE = 8
"""One part in so many of the slots, free and wanted, is worth a pass too."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is computed together: `rows` at most, and rows times their longest at most `tokens`.

    `fixed` asks for the same shapes whatever else is asked, so that a row's answer does not
    depend, even by a rounding, on its neighbours (deterministic mode).
    """

    rows: int
    tokens: int = 262_144
    fixed: bool = False

    @classmethod
    def of(cls, config: ModelConfig) -> "Limits":
        """The limits that the settings give."""
        rows = FIXED_ROWS if config.deterministic else config.batch_size
        return cls(rows, config.batch_tokens, config.deterministic)


@dataclass(slots=True)
class Row(Generic[K]):
    """An answer in the making. `position` is the rotary position of its first token."""

    key: K
    request: Request
    position: int
    ids: list[int]

    def ended(self, stops: set[int]) -> bool:
        """Whether the last token was its last."""
        return self.ids[-1] in stops or len(self.ids) >= self.request.max_new_tokens


class Flight(Generic[K]):
    """Rows in flight, and requests that wait for a slot."""

    def __init__(self, loaded: Loaded, limits: Limits, stops: set[int], banned: list[int]) -> None:
        self.loaded, self.limits = loaded, limits
        self.most = limits.rows
        self.waiting: list[tuple[K, Request]] = []
        self.rows: dict[int, Row[K]] = {}
        self.ended: list[Row[K]] = []
        self.slots, self.width = Slots(self.most, most=limits.tokens), 0
        self.reader = Reader(loaded, self.most, alone=limits.fixed)
        self.stops, self.banned = stops, banned

    @property
    def room(self) -> int:
        """How many further requests may come."""
        return max(0, self.most - len(self.rows) - len(self.waiting))

    def fitting(self) -> list[tuple[K, Request]]:
        """The waiting requests that the limits let join now; one at least where no row is left."""
        if self.limits.fixed and not self.rows and self.waiting:
            self.width = fixed_width(self.waiting[0][1])
            self.slots = Slots(self.most, self.width)
        found: list[tuple[K, Request]] = []
        longest = max((tokens_at_most(row.request) for row in self.rows.values()), default=0)
        for each in self.waiting:
            request = each[1]
            count = len(self.rows) + len(found) + 1
            width = max(longest, tokens_at_most(request))
            fits = count <= self.most and count * width <= self.limits.tokens
            if self.limits.fixed:
                fits = count <= self.most and fixed_width(request) == self.width
            if fits or count == 1:
                found.append(each)
                longest = width
        return found

    @torch.inference_mode()
    def refill(self) -> None:
        """Give free slots to waiting requests; prompts not read yet wait until a pass is worth it.

        Raises ValueError for a prompt whose placeholders are not its pictures' tokens.
        """
        joining = self.fitting()
        unread = self.reader.unread([request for _, request in joining])
        tokens = sum(tokens_at_most(each) - each.max_new_tokens for each in unread)
        few = tokens < WORTH_TOKENS and len(unread) * WORTH_SHARE < self.most
        if few and self.rows:
            joining = [each for each in joining if not self.reader.unread([each[1]])]
        if joining:
            found = self.reader.read([request for _, request in joining])
            self.join(joining, found)

    def join(self, joining: list[tuple[K, Request]], found: list[Prompt]) -> None:
        """Draw each row's first token from its prompt's scores and give it a slot."""
        starting = [
            Row(key, request, prompt.position, [])
            for (key, request), prompt in zip(joining, found, strict=True)
        ]
        first = self.drawn(torch.stack([prompt.scores_V for prompt in found]), starting)
        free = iter([slot for slot in range(self.most) if slot not in self.rows])
        for each, row, token, prompt in zip(joining, starting, first, found, strict=True):
            row.ids.append(token)
            if row.ended(self.stops):
                self.ended.append(row)
            else:
                slot = next(free)
                self.slots.put(slot, prompt)
                self.rows[slot] = row
            self.waiting = [other for other in self.waiting if other is not each]

    def drawn(self, scores_BV: torch.Tensor, rows: Sequence[Row[K] | None]) -> list[int]:
        """Each row's next token: its draw's own sample of the scores, or the likeliest."""
        device = scores_BV.device
        scores_BV[:, self.banned] = -torch.inf
        seeds = [row.request.seed if row else 0 for row in rows]
        heat = [row.request.temperature if row else 0.0 for row in rows]
        place_B = torch.tensor([len(row.ids) if row else 0 for row in rows], device=device)
        seed_B = torch.tensor(seeds, dtype=torch.int64, device=device)
        noisy_BV = gumbel.noisy(scores_BV, seed_B, place_B, torch.tensor(heat, device=device))
        return noisy_BV.argmax(1).tolist()

    @torch.inference_mode()
    def step(self) -> None:
        """One further token for every row; rows that end leave their slots."""
        if not self.rows:
            return
        count = self.most if self.limits.fixed else max(self.rows) + 1
        rows = [self.rows.get(slot) for slot in range(count)]
        device = self.loaded.device
        token_N = torch.tensor([row.ids[-1] if row else 0 for row in rows], device=device)
        position_N = torch.tensor(
            [row.position + len(row.ids) - 1 if row else 0 for row in rows], device=device
        )
        tokens = self.drawn(self.slots.advance(self.loaded, token_N, position_N), rows)
        self.slots.confirm(list(self.rows))
        for slot in sorted(self.rows, reverse=True):
            row = self.rows[slot]
            row.ids.append(tokens[slot])
            if row.ended(self.stops):
                self.ended.append(row)
                self.vacate(slot)

    def vacate(self, slot: int) -> None:
        """Free a slot. The last row moves into it, unless shapes are fixed."""
        del self.rows[slot]
        self.slots.length[slot] = 0
        last = max(self.rows, default=-1)
        if last > slot and not self.limits.fixed:
            self.slots.move(last, slot)
            self.rows[slot] = self.rows.pop(last)

    def shrink(self) -> None:
        """Half as many rows from now on; those in flight start again, with the same draws."""
        before = min(self.most, max(1, len(self.rows) + len(self.fitting())))
        self.most = max(1, before // 2)
        again = [(row.key, row.request) for row in self.rows.values()]
        self.waiting = again + self.waiting
        self.rows, self.slots = {}, Slots(self.most, most=self.limits.tokens)
        self.reader.halve(self.most)
        told = f"out of memory with {before} answers at once: going on with {self.most} at most"
        print(told, file=sys.stderr, flush=True)
        memory.release()


def fixed_width(request: Request) -> int:
    """The width of a request's slot in deterministic mode: the next power of two."""
    return 1 << max(7, (tokens_at_most(request) - 1).bit_length())
