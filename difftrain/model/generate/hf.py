"""Generation in this process with transformers: a batch whose finished rows are replaced at once.

Answers end at different times and the early-stopping schedule asks one draw after another, so a
batch that waits for its longest answer computes rows nobody needs. Here each row has a slot of its
own (slots.py) and a freed slot takes the next request. Why an own loop: transformers' continuous
batching takes token ids alone, no pictures, and `generate` keeps ended rows to the batch's end and
repeats the keys of grouped heads in every step. Prompts are read once a view (prefill.py).

Not here: draws asked on suspicion while slots idle at the end of a pool. Which rows are written
would then depend on the batch size, and artifacts must not.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from difftrain.model import memory
from difftrain.model.generate.flight import Flight, Limits
from difftrain.model.generate.prefill import beyond, encode, tokens_at_most
from difftrain.model.generate.request import Answer, Found, K, NoAnswer, Request
from difftrain.model.load import Loaded

__all__ = ["PLACEHOLDERS", "Limits", "answers", "encode", "ends", "read", "stream"]


PLACEHOLDERS = (
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
ALIVE_SECONDS = 2.0


def ends(loaded: Loaded) -> set[int]:
    """The token ids that end an answer."""
    found = loaded.model.generation_config.eos_token_id or loaded.processor.tokenizer.eos_token_id
    return set(found) if isinstance(found, list) else {found}


def read(loaded: Loaded, ids: list[int], longest: int) -> Answer:
    """An answer from generated token ids: cut at the end token, or at the request's own limit."""
    stops = ends(loaded)
    ids = ids[:longest]
    end = next((place for place, token in enumerate(ids) if token in stops), None)
    kept = ids if end is None else ids[: end + 1]
    text = loaded.processor.tokenizer.decode(kept, skip_special_tokens=True)
    return Answer(text, tuple(kept), end is not None)


@contextmanager
def one_thread(wanted: bool) -> Iterator[None]:
    """On a CPU the number of threads changes sums too: in deterministic mode there is one."""
    before = torch.get_num_threads()
    try:
        if wanted:
            torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)


def stream(
    loaded: Loaded,
    more: Callable[[int], Sequence[tuple[K, Request]]],
    limits: Limits,
    alive: Callable[[], None] = lambda: None,
) -> Iterator[tuple[K, Found]]:
    """Answers as they are done, in any order, each with the key that its request came with.

    `more(room)` gives up to `room` further requests, maybe none for now; the stream ends when it
    gives none while nothing is open. `alive` is called now and then. A prompt longer than the
    model's positions is refused. Out of memory, the batch is halved and what was open is asked
    again; where a single row does not fit, and in deterministic mode, the error is raised.
    """
    known = loaded.processor.tokenizer.get_vocab()
    banned = [known[token] for token in PLACEHOLDERS if token in known]
    flight: Flight[K] = Flight(loaded, limits, ends(loaded), banned)
    told = time.monotonic()
    while True:
        refused = []
        if flight.room:
            for key, request in more(flight.room):
                if reason := beyond(loaded, request):
                    refused.append((key, NoAnswer(reason)))
                else:
                    flight.waiting.append((key, request))
        if refused:
            yield from refused
            continue
        if not flight.waiting and not flight.rows:
            return
        short = False
        try:
            with one_thread(limits.fixed):
                flight.refill()
                flight.step()
        except (RuntimeError, MemoryError) as error:
            if not memory.is_short(error) or limits.fixed or flight.most == 1:
                raise
            short = True
        if short:  # outside the handler, whose traceback holds on to what did not fit
            flight.shrink()
        if time.monotonic() - told > ALIVE_SECONDS:
            alive()
            told = time.monotonic()
        ended, flight.ended = flight.ended, []
        for row in ended:
            yield row.key, read(loaded, row.ids, row.request.max_new_tokens)


def answers(loaded: Loaded, requests: Sequence[Request], limits: Limits | int) -> list[Found]:
    """Answers in the order of the requests, so many rows at once; those of like length first."""
    order = sorted(range(len(requests)), key=lambda place: (tokens_at_most(requests[place]), place))
    waiting = iter([(place, requests[place]) for place in order])

    def more(room: int) -> list[tuple[int, Request]]:
        return [each for _, each in zip(range(room), waiting, strict=False)]

    within = limits if isinstance(limits, Limits) else Limits(limits)
    found = dict(stream(loaded, more, within))
    return [found[place] for place in range(len(requests))]
