"""Rows in flight: one slot a row, each with a length of its own, so that any can be replaced.

A slot is a stretch of preallocated keys and values. A new row is copied into a free slot and the
next token of every row is written behind its own last one; nothing is shifted, padded or copied
for the others' sake. Only where there are too few slots, or too narrow ones, are they copied into
more or wider ones; each side grows by a share of itself, so that this is rare.
Axes: N slots, K key heads, W width, D head size, V vocabulary.
"""

import sys
from typing import Any

import torch
from torch.nn import functional

from difftrain.model.attention import attending
from difftrain.model.generate.prefill import Prompt
from difftrain.model.load import Loaded

STEP = 64
"""Widths are multiples of it, so that kernels are aligned and shapes recur."""


def one_query(module: Any, query: Any, key: Any, value: Any, mask: Any, **rest: Any) -> Any:
    """Attention of one query a row: heads that share keys are its queries, no key is repeated."""
    rows, heads, _, size = query.shape
    grouped = query.view(rows, key.shape[1], heads // key.shape[1], size)
    output = functional.scaled_dot_product_attention(
        grouped, key, value, attn_mask=mask, scale=rest["scaling"]
    )
    return output.reshape(rows, 1, heads, size), None


class Slots:
    """The model's cache for rows that come and go.

    At most `rows`, stored as they are used. Room beyond the need is made only while rows times
    width stay within 5/4 of `most` tokens. With `width` every shape is fixed: all slots are
    computed in each step, at this width.
    """

    def __init__(self, rows: int, width: int | None = None, most: int = sys.maxsize) -> None:
        self.rows, self.fixed, self.most = rows, width, most
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        self.length = [0] * rows
        self.cursor_N = torch.empty(0, dtype=torch.long)
        self.shown = 0

    def put(self, slot: int, prompt: Prompt) -> None:
        """Copy a prompt into a slot."""
        self._reach(prompt.length + 1, slot + 1, prompt.keys)
        for kept, given in ((self.keys, prompt.keys), (self.values, prompt.values)):
            for layer, rows in zip(kept, given, strict=True):
                layer[slot, :, : prompt.length] = rows
        self.length[slot] = prompt.length

    def move(self, source: int, target: int) -> None:
        """Copy a slot over another, so that the rows in flight stay side by side."""
        length = self.length[source]
        for layer in (*self.keys, *self.values):
            layer[target, :, :length] = layer[source, :, :length]
        self.length[target] = length
        self.length[source] = 0

    def _reach(self, width: int, rows: int, like: tuple[torch.Tensor, ...] = ()) -> None:
        had = self.keys[0].shape if self.keys else (0, 0, 0, 0)
        longest = max(self.length)
        used = max((slot + 1 for slot, length in enumerate(self.length) if length), default=0)
        width = self.fixed or -(-max(width, longest) // STEP) * STEP
        rows = self.rows if self.fixed else max(rows, used)
        if had[0] >= rows and had[2] >= width:
            return
        if not self.fixed:
            width = stored(width, had[2], longest * 5 // 4 // STEP * STEP)
            fitting = min(stored(rows, had[0], used * 2), self.rows, self.most * 5 // 4 // width)
            rows = max(rows, fitting)
        for kept in (self.keys, self.values):
            if not kept:
                kept.extend(each.new_empty((0, each.shape[0], 0, each.shape[2])) for each in like)
            for place, layer in enumerate(kept):
                wider = layer.new_zeros((rows, layer.shape[1], width, layer.shape[3]))
                wider[:used, :, :longest] = layer[:used, :, :longest]
                kept[place] = wider

    def advance(
        self, loaded: Loaded, token_N: torch.Tensor, position_N: torch.Tensor
    ) -> torch.Tensor:
        """Scores N V (float32) after one further token in each of the first N slots.

        Call `confirm` once the scores were used; a step that failed may be repeated.
        """
        count = len(token_N)
        longest = max(self.length[:count]) + 1
        self._reach(longest, count)
        self.shown = self.fixed or -(-longest // STEP) * STEP
        self.cursor_N = torch.tensor(self.length[:count], device=token_N.device)
        place_W = torch.arange(self.shown, device=token_N.device)
        seen_NW = place_W[None] <= self.cursor_N[:, None]
        with attending(loaded.model, one_query):
            output = loaded.model.base_model(
                input_ids=token_N[:, None],
                attention_mask=seen_NW[:, None, None],
                position_ids=position_N[None, :, None].expand(3, -1, -1),
                past_key_values=self,
                use_cache=True,
            )
        return loaded.model.get_output_embeddings()(output.last_hidden_state[:, -1]).float()

    def confirm(self, slots: list[int]) -> None:
        """The last step's tokens stay in these slots."""
        for slot in slots:
            self.length[slot] += 1

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What a layer calls (transformers' Cache.update): write its new keys, get all of them."""
        rows = torch.arange(len(keys), device=keys.device)
        found = []
        for kept, new in ((self.keys, keys), (self.values, values)):
            kept[layer_idx][rows, :, self.cursor_N] = new[:, :, 0]
            found.append(kept[layer_idx][: len(keys), :, : self.shown])
        return found[0], found[1]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """What the model may ask of its cache; positions are given, so it decides nothing."""
        return self.shown


def stored(needed: int, had: int, ample: int) -> int:
    """The new length of a side: ample where it must grow, else no longer than that or before."""
    return max(needed, ample if had < needed else min(had, ample))
