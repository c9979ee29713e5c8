"""Generation in this process with transformers: continuous batching and seeded sampling.

Responses end at different times, and callers may need a response before their next request.
So each row has its own cache slot (kv_cache.py), and a freed slot takes the next request. The
continuous batching of transformers takes no images. Its `generate` keeps ended rows until the batch
ends, and in every step it copies a key for each query head that shares it.

Sampling is argmax(logits / T + noise) with Gumbel noise, whose distribution is softmax(logits / T).
The noise is a hash of (seed, position, token), so it is the same in any batch, on any rank and
after any restart. Axes: N slots, B rows sampled together, V vocabulary.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList

from difftrain.config.model import FIXED_ROWS, ModelConfig
from difftrain.model import family, loading
from difftrain.model.engines.kv_cache import (
    PrefixCache,
    SlotCache,
    encode,
    overlong_reason,
    token_bound,
    token_counter,
)
from difftrain.model.engines.types import Completion, Feed, GenerationError, K, Request, Result
from difftrain.model.loading import LoadedModel

logger = logging.getLogger(__name__)

IDLE_CALL_S = 2.0  # between two calls of on_idle
# While rows are decoding, a prefill pass waits until the new prompts have this many tokens in all,
# or until there is one new prompt for every 8 slots.
MIN_PREFILL_TOKENS, SLOTS_PER_PROMPT = 1024, 8
MASK_32 = 0xFFFFFFFF  # the low 32 bits of an int64


def _mix_bits(value: Tensor) -> Tensor:
    """A 32-bit integer hash (murmur's finalizer) of each element, in int64 arithmetic."""
    value = value & MASK_32
    value = ((value ^ (value >> 16)) * 0x85EBCA6B) & MASK_32
    value = ((value ^ (value >> 13)) * 0xC2B2AE35) & MASK_32
    return value ^ (value >> 16)


def gumbel_noise(seed_B: Tensor, position: int | Tensor, vocab: int) -> Tensor:
    """Standard Gumbel noise B V, float32. `position` is one number for all rows or one per row."""
    position_B = torch.zeros_like(seed_B) + position + 1  # + 1, because the hash of 0 is 0
    row_B1 = _mix_bits(seed_B[:, None] + _mix_bits(position_B[:, None]))
    token_V = _mix_bits(torch.arange(vocab, device=seed_B.device) * 0x9E3779B1)  # Fibonacci hashing
    bits_BV = _mix_bits(row_B1 ^ token_V[None])
    uniform_BV = (bits_BV.double() + 0.5) / 2.0**32  # never 0 or 1
    return -torch.log(-torch.log(uniform_BV)).float()


def noisy_logits(
    logits_BV: Tensor, sampling: Sequence[tuple[int, int, float]], banned: Sequence[int]
) -> Tensor:
    """Logits whose argmax is a sample of softmax(logits / T), for each row's (seed, position, T).

    `sampling` has those three numbers; a row with T = 0 is greedy. `banned` tokens are never
    sampled, because the attention pass would take a placeholder for an image.
    """
    logits_BV = logits_BV.float()
    logits_BV[:, banned] = -torch.inf
    if all(temperature == 0 for _, _, temperature in sampling):
        return logits_BV
    seed_B, position_B, temperature_B = (
        torch.tensor(column, device=logits_BV.device) for column in zip(*sampling, strict=True)
    )
    scaled_BV = logits_BV / temperature_B[:, None].clamp(min=1e-6)  # no division by 0
    noisy_BV = scaled_BV + gumbel_noise(seed_B, position_B, logits_BV.shape[1])
    return torch.where(temperature_B[:, None] > 0, noisy_BV, logits_BV)


@dataclass(slots=True)
class Row(Generic[K]):
    """A response being generated, with `ids` so far; `position` is its first rotary position."""

    key: K
    request: Request
    position: int
    ids: list[int]

    def has_ended(self, eos_ids: set[int]) -> bool:
        """Whether the last token ends the response."""
        return self.ids[-1] in eos_ids or len(self.ids) >= self.request.max_new_tokens


class ContinuousBatch(Generic[K]):
    """Rows being decoded, and requests that wait for a slot.

    In deterministic mode all shapes are fixed, so other rows cannot change a row's rounding.
    """

    def __init__(self, loaded: LoadedModel, config: ModelConfig) -> None:
        self.loaded, self.has_fixed_shapes = loaded, config.deterministic
        self.max_tokens = config.batch_tokens
        self.image_tokens = token_counter(loaded)
        self.eos_ids = eos_token_ids(loaded)
        self.banned = list(loaded.banned.values())
        self.max_rows = FIXED_ROWS if self.has_fixed_shapes else config.batch_size
        self.waiting: list[tuple[K, Request]] = []
        self.rows: dict[int, Row[K]] = {}
        self.ended: list[Row[K]] = []
        self.cache, self.width = SlotCache(self.max_rows, max_tokens=self.max_tokens), 0
        self.prefixes = PrefixCache(loaded, self.max_rows, one_by_one=self.has_fixed_shapes)

    def bound(self, request: Request) -> int:
        """An upper bound of the request's tokens (see token_bound)."""
        return token_bound(request, self.image_tokens)

    def fixed_width(self, request: Request) -> int:
        """The slot width in deterministic mode: the next power of two, at least 128."""
        return 1 << max(7, (self.bound(request) - 1).bit_length())

    @property
    def room(self) -> int:
        """How many further requests fit."""
        return max(0, self.max_rows - len(self.rows) - len(self.waiting))

    def admissible(self) -> list[tuple[K, Request]]:
        """The waiting requests that may join within the limits; at least one if no row runs."""
        if self.has_fixed_shapes and not self.rows and self.waiting:
            self.width = self.fixed_width(self.waiting[0][1])  # of the first request
            self.cache = SlotCache(self.max_rows, self.width)
        joining: list[tuple[K, Request]] = []
        max_tokens_of_row = max((self.bound(row.request) for row in self.rows.values()), default=0)
        for item in self.waiting:
            _, request = item
            num_rows = len(self.rows) + len(joining) + 1
            width = max(max_tokens_of_row, self.bound(request))
            fits = num_rows * width <= self.max_tokens
            if self.has_fixed_shapes:
                fits = self.fixed_width(request) == self.width
            if (fits and num_rows <= self.max_rows) or num_rows == 1:
                joining.append(item)
                max_tokens_of_row = width
        return joining

    @torch.inference_mode()
    def refill(self) -> None:
        """Give free slots to waiting requests; prefill only when enough prompts wait.

        Raises ValueError for a prompt whose placeholders do not match its image tokens.
        """
        joining = self.admissible()
        missing = self.prefixes.missing([request for _, request in joining])
        total = sum(self.bound(request) - request.max_new_tokens for request in missing)
        too_few = total < MIN_PREFILL_TOKENS and len(missing) * SLOTS_PER_PROMPT < self.max_rows
        if too_few and self.rows:
            joining = [item for item in joining if not self.prefixes.missing([item[1]])]
        if not joining:
            return
        prompts = self.prefixes.get([request for _, request in joining])
        new_rows = [
            Row(key, request, prompt.position, [])
            for (key, request), prompt in zip(joining, prompts, strict=True)
        ]
        tokens = self.sample(torch.stack([prompt.logits_V for prompt in prompts]), new_rows)
        free_slots = iter([slot for slot in range(self.max_rows) if slot not in self.rows])
        for item, row, token, prompt in zip(joining, new_rows, tokens, prompts, strict=True):
            row.ids.append(token)
            if row.has_ended(self.eos_ids):
                self.ended.append(row)
            else:
                slot = next(free_slots)
                self.cache.put(slot, prompt)
                self.rows[slot] = row
            self.waiting = [other for other in self.waiting if other is not item]

    def sample(self, logits_BV: Tensor, rows: Sequence[Row[K] | None]) -> list[int]:
        """Each row's next token; None is an empty slot, whose token is not used."""
        sampling = [
            (row.request.seed, len(row.ids), row.request.temperature) if row else (0, 0, 0.0)
            for row in rows
        ]
        return noisy_logits(logits_BV, sampling, self.banned).argmax(1).tolist()

    @torch.inference_mode()
    def step(self) -> None:
        """Decode one token for every row; rows that end free their slots."""
        if not self.rows:
            return
        num_slots = self.max_rows if self.has_fixed_shapes else max(self.rows) + 1
        rows = [self.rows.get(slot) for slot in range(num_slots)]
        inputs = [(row.ids[-1], row.position + len(row.ids) - 1) if row else (0, 0) for row in rows]
        token_N, position_N = torch.tensor(inputs, device=self.loaded.device).T
        tokens = self.sample(self.cache.decode(self.loaded, token_N, position_N), rows)
        for slot in sorted(self.rows, reverse=True):
            row = self.rows[slot]
            row.ids.append(tokens[slot])
            if row.has_ended(self.eos_ids):
                self.ended.append(row)
                del self.rows[slot]
                self.cache.lengths[slot] = 0
                last_slot = max(self.rows, default=-1)
                if last_slot > slot and not self.has_fixed_shapes:  # keeps the used slots together
                    self.cache.move(last_slot, slot)
                    self.rows[slot] = self.rows.pop(last_slot)

    def halve(self) -> None:
        """Halve the number of rows when memory runs out; open rows restart with their seeds."""
        before = min(self.max_rows, max(1, len(self.rows) + len(self.admissible())))
        self.max_rows = max(1, before // 2)
        self.waiting = [(row.key, row.request) for row in self.rows.values()] + self.waiting
        self.rows, self.cache = {}, SlotCache(self.max_rows, max_tokens=self.max_tokens)
        self.prefixes.halve(self.max_rows)
        next_step = f"going on with {self.max_rows} at most"
        logger.warning(f"out of memory with {before} responses at once: {next_step}")
        loading.free_memory()


class GenerateBatch(ContinuousBatch[K]):
    """Batches for models without a cache slot per row, such as those with linear attention.

    transformers' `generate` decodes a batch to its end, with the same noise. No prompt is shared.
    """

    @property
    def room(self) -> int:
        return max(0, self.max_rows - len(self.waiting))

    def refill(self) -> None:
        """The waiting requests start in `step`."""

    @torch.inference_mode()
    def step(self) -> None:
        """Generate one batch of waiting requests to their ends."""
        batch = self.admissible()
        if not batch:
            return
        if not self.prefixes.mixes_images:  # prompts with and without images go apart
            batch = [item for item in batch if bool(item[1].images) == bool(batch[0][1].images)]
        if self.has_fixed_shapes:
            batch = batch[:1]
        rows = [Row(key, request, 0, []) for key, request in batch]
        inputs = encode(self.loaded, [row.request for row in rows])
        start = inputs["input_ids"].shape[1]

        def choose(ids_BS: Tensor, logits_BV: Tensor) -> Tensor:
            sampling = [
                (r.request.seed, ids_BS.shape[1] - start, r.request.temperature) for r in rows
            ]
            return noisy_logits(logits_BV, sampling, self.banned)

        output = self.loaded.model.generate(
            **inputs,
            generation_config=GenerationConfig(
                max_new_tokens=max(row.request.max_new_tokens for row in rows),
                do_sample=False,
                eos_token_id=sorted(self.eos_ids),
                pad_token_id=self.loaded.processor.tokenizer.pad_token_id,
            ),
            logits_processor=LogitsProcessorList([choose]),
        )
        for row, ids in zip(rows, output[:, start:].tolist(), strict=True):
            row.ids = ids
        self.ended += rows
        done = {id(request) for _, request in batch}
        self.waiting = [item for item in self.waiting if id(item[1]) not in done]


class HfEngine:
    """transformers in this process."""

    def __init__(self, loaded: LoadedModel, config: ModelConfig) -> None:
        self.loaded, self.config = loaded, config
        self.batch_class = (
            ContinuousBatch if family.has_slots(loaded.model.config) else GenerateBatch
        )
        self.info = {"engine": "hf", "seeds": "honored"}  # equal seeds, equal responses

    def stream(
        self, next_requests: Feed[K], on_idle: Callable[[], None] = lambda: None
    ) -> Iterator[tuple[K, Result]]:
        """See Engine.stream. A prompt longer than the model's positions gets a GenerationError.

        If memory runs out, the batch is halved; in deterministic mode, or if one row alone does not
        fit, the error is raised.
        """
        batch: ContinuousBatch[K] = self.batch_class(self.loaded, self.config)
        last_idle_call = time.monotonic()
        while True:
            rejected = []
            for key, request in next_requests(batch.room) if batch.room else ():
                if reason := overlong_reason(self.loaded, request):
                    rejected.append((key, GenerationError(reason)))
                else:
                    batch.waiting.append((key, request))
            if rejected:
                yield from rejected
                continue
            if not batch.waiting and not batch.rows:
                return
            self._advance(batch)
            if time.monotonic() - last_idle_call > IDLE_CALL_S:
                on_idle()
                last_idle_call = time.monotonic()
            ended, batch.ended = batch.ended, []
            for row in ended:
                yield row.key, to_completion(self.loaded, row.ids, row.request.max_new_tokens)

    def _advance(self, batch: ContinuousBatch[Any]) -> None:
        try:
            with _single_thread(batch.has_fixed_shapes):
                batch.refill()
                batch.step()
            return
        except (RuntimeError, MemoryError) as error:
            if not loading.is_out_of_memory(error) or batch.has_fixed_shapes or batch.max_rows == 1:
                raise
        batch.halve()  # outside the handler, whose traceback keeps the tensors that did not fit

    def close(self) -> None:
        """Frees nothing: the model belongs to whoever loaded it."""


@contextmanager
def _single_thread(enabled: bool) -> Iterator[None]:
    """Limit torch to one thread if `enabled`, because the number of threads changes rounding."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if enabled else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def eos_token_ids(loaded: LoadedModel) -> set[int]:
    """The token ids that end a response."""
    ids = loaded.model.generation_config.eos_token_id or loaded.processor.tokenizer.eos_token_id
    return set(ids) if isinstance(ids, list) else {ids}


def to_completion(loaded: LoadedModel, ids: list[int], max_new_tokens: int) -> Completion:
    """A completion from generated token ids, cut after the EOS token or at the request's limit."""
    eos_ids, ids = eos_token_ids(loaded), ids[:max_new_tokens]
    eos_positions = [i for i, token in enumerate(ids) if token in eos_ids]
    ids = ids[: eos_positions[0] + 1] if eos_positions else ids
    text = loaded.processor.tokenizer.decode(ids, skip_special_tokens=True)
    return Completion(text, tuple(ids), bool(eos_positions))
