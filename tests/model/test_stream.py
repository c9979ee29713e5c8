"""The batch that refills: slots, shared prompts, memory that runs out, fixed shapes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import pytest
import torch
from PIL import Image

from difftrain.config.model import ModelConfig
from difftrain.data import prompts
from difftrain.model.engines import hf, kv_cache
from difftrain.model.engines.hf import SeededGumbelProcessor
from difftrain.model.engines.types import GenerationError, Request
from difftrain.model.loading import LoadedModel
from difftrain.records import Sample


def asked(sample: Sample, seed: int, longest: int = 12, **rest: Any) -> Request:
    picture = Image.open(BytesIO(sample.images[0])).convert("RGB")
    words = prompts.user_text(sample.question, sample.options)
    rest = {"temperature": 0.9, "parts": (picture, words), **rest}
    return Request(seed=seed, max_new_tokens=longest, **rest)


@pytest.fixture
def requests(shapes_samples: list[Sample]) -> list[Request]:
    """Two dozen draws of pictures and of words alone, short and long."""
    found = [asked(each, seed, 3 + seed % 9) for seed, each in enumerate(shapes_samples)]
    return [
        each if seed % 4 else asked(shapes_samples[seed], seed, parts=(each.text,))
        for seed, each in enumerate(found)
    ]


@contextmanager
def watched(module: Any, note: Callable[..., None]) -> Iterator[None]:
    """Call note(module, args, kwargs) before each forward of a module."""
    hook = module.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def steps(tiny: LoadedModel) -> Iterator[list[int]]:
    """The number of rows of each decoding step."""
    found: list[int] = []

    def note(_: Any, __: Any, given: dict[str, Any]) -> None:
        if given["input_ids"].shape[1] == 1:
            found.append(len(given["input_ids"]))

    with watched(tiny.model.base_model, note):
        yield found


def ids(found: Sequence[Any]) -> list[tuple[int, ...]]:
    return [each.token_ids for each in found]


@torch.inference_mode()
def generated(tiny: LoadedModel, request: Request) -> tuple[int, ...]:
    """The answer of transformers' own generate, alone in its batch."""
    inputs = kv_cache.encode(tiny, [request])
    width = inputs["input_ids"].shape[1]
    known = tiny.processor.tokenizer.get_vocab()
    banned = [known[name] for name in hf.PLACEHOLDERS]
    output = tiny.model.generate(
        **inputs,
        max_new_tokens=request.max_new_tokens,
        do_sample=False,
        eos_token_id=list(hf.eos_token_ids(tiny)),
        logits_processor=[
            SeededGumbelProcessor([request.seed], [request.temperature], width, banned)
        ],
    )
    return hf.to_completion(tiny, output[0, width:].tolist(), request.max_new_tokens).token_ids


def test_responses_are_those_of_transformers_generate(
    tiny: LoadedModel, requests: list[Request]
) -> None:
    assert ids(hf.generate(tiny, requests, 8)) == [generated(tiny, each) for each in requests]


def test_a_freed_slot_takes_the_next_request_at_once(
    tiny: LoadedModel, shapes_samples: list[Sample]
) -> None:
    """Three long answers and many short ones in four slots: the short ones share one slot."""
    view = {"view": "one", "parts": ("Write.",), "temperature": 2.0}
    lengths = [14, 14, 14, *[2] * 12]
    some = [asked(shapes_samples[0], seed, longest, **view) for seed, longest in enumerate(lengths)]
    with steps(tiny) as rows:
        found = list(hf.HfEngine(tiny, hf.BatchLimits(4)).stream(feeding(some)))
    assert len(found) == len(some)
    needed = sum(len(answer.token_ids) - 1 for _, answer in found)
    assert sum(rows) == needed  # no row is computed that has ended
    assert max(rows) == 4
    assert len(rows) <= 15


def feeding(some: list[Request]) -> Callable[[int], list[tuple[int, Request]]]:
    waiting = iter(enumerate(some))
    return lambda room: [each for _, each in zip(range(room), waiting, strict=False)]


def test_images_of_draws_that_share_a_view_are_encoded_once(
    tiny: LoadedModel, shapes_samples: list[Sample]
) -> None:
    seen: list[int] = []

    def note(_: Any, args: Any, given: dict[str, Any]) -> None:
        grid = given["grid_thw"] if "grid_thw" in given else args[1]
        seen.append(len(grid))

    draws = [
        asked(sample, 10 * number + draw, view=sample.sample_id)
        for draw in range(5)
        for number, sample in enumerate(shapes_samples[:3])
    ]
    apart = [asked(sample, seed) for seed, sample in enumerate(shapes_samples[3:5])]
    with watched(tiny.model.base_model.visual, note):
        shared = ids(hf.generate(tiny, draws + apart, 4))
    assert sum(seen) == 3 + 2
    plain = [asked(shapes_samples[k % 3], 10 * (k % 3) + k // 3) for k in range(15)]
    assert shared == ids(hf.generate(tiny, plain + apart, 4))


def test_out_of_memory_halves_the_batch_and_loses_nothing(
    tiny: LoadedModel, requests: list[Request], caplog: pytest.LogCaptureFixture
) -> None:
    def small(_: Any, __: Any, given: dict[str, Any]) -> None:
        if len(given["input_ids"]) > 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")

    expected = ids(hf.generate(tiny, requests, 8))
    with watched(tiny.model.base_model, small), steps(tiny) as rows:
        assert ids(hf.generate(tiny, requests, 16)) == expected
    assert max(rows) == 2  # 16, 8 and 4 prompts do not fit; no further half is lost
    assert "out of memory with 16 responses at once: going on with 8 at most" in caplog.text
    assert "going on with 2 at most" in caplog.text


def test_one_out_of_memory_in_prefill_halves_the_batch_once(
    tiny: LoadedModel, requests: list[Request]
) -> None:
    short: list[int] = []

    def once(*_: Any) -> None:
        if not short:
            short.append(1)
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")

    with watched(tiny.model.base_model, once), steps(tiny) as rows:
        hf.generate(tiny, requests, 16)
    assert max(rows) == 8


def test_a_row_that_does_not_fit_alone_and_any_other_error_are_raised(
    tiny: LoadedModel, requests: list[Request]
) -> None:
    def never(words: str) -> Callable[..., None]:
        def fail(*_: Any) -> None:
            raise RuntimeError(words)

        return fail

    for words, limits in (
        ("DefaultCPUAllocator: not enough memory: you tried", hf.BatchLimits(4)),
        ("DefaultCPUAllocator: not enough memory: you tried", hf.BatchLimits(16, fixed=True)),
        ("mat1 and mat2 shapes cannot be multiplied", hf.BatchLimits(4)),
    ):
        with watched(tiny.model.base_model, never(words)), pytest.raises(RuntimeError, match="m"):
            hf.generate(tiny, requests, limits)


def test_the_token_budget_bounds_rows_times_the_longest(
    tiny: LoadedModel, requests: list[Request]
) -> None:
    longest = max(map(hf.token_bound, requests))
    with steps(tiny) as rows:
        found = hf.generate(tiny, requests, hf.BatchLimits(16, tokens=3 * longest))
    assert max(rows) <= max(3, 3 * longest // min(map(hf.token_bound, requests)))
    assert max(rows) < 16
    with steps(tiny) as single:
        assert ids(hf.generate(tiny, requests, hf.BatchLimits(16, tokens=1))) == ids(found)
    assert max(single) == 1


def test_the_cache_grows_and_shrinks_with_the_rows_within_the_token_budget(
    tiny: LoadedModel, shapes_samples: list[Sample]
) -> None:
    """Many short prompts, then few long ones, then short ones: never many times the longest."""
    words = [*["Hi."] * 16, *["word " * 150] * 4, *["Hi."] * 16]
    some = [
        asked(shapes_samples[0], seed, 3 + seed % 7, parts=(text,), temperature=2.0)
        for seed, text in enumerate(words)
    ]
    budget = 2 * max(map(hf.token_bound, some))
    held: list[tuple[int, int]] = []

    def note(_: Any, __: Any, given: dict[str, Any]) -> None:
        if given["input_ids"].shape[1] == 1:
            rows, _, width, _ = given["past_key_values"].keys[0].shape
            held.append((rows, width))

    with watched(tiny.model.base_model, note):
        found = list(hf.HfEngine(tiny, hf.BatchLimits(16, tokens=budget)).stream(feeding(some)))
    assert max(rows * width for rows, width in held) <= budget * 5 // 4
    assert len(set(held)) > 1
    apart = list(hf.HfEngine(tiny, hf.BatchLimits(1)).stream(feeding(some)))
    assert [answer for _, answer in sorted(found)] == [answer for _, answer in sorted(apart)]


SCRIPTS = ("𓂀", "☃️", "漢", "क़", "🧑‍🚀", "")
"""Hieroglyphs, signs, Han, a letter that composition takes apart, joined signs, control."""


@pytest.mark.parametrize("letter", SCRIPTS, ids=ascii)
def test_a_bound_on_tokens_holds_for_every_script(
    tiny: LoadedModel, shapes_samples: list[Sample], letter: str
) -> None:
    sign = asked(shapes_samples[0], 1, 4, parts=(letter * 120,))
    read = kv_cache.encode(tiny, [sign])["input_ids"].shape[1]
    assert hf.token_bound(sign) >= read + 4
    fixed = hf.BatchLimits(2, fixed=True)
    assert len(ids(hf.generate(tiny, [sign], fixed))) == 1
    beyond = asked(shapes_samples[0], 1, 4, parts=(letter * 2048,))
    (found,) = hf.generate(tiny, [beyond], 1)
    assert isinstance(found, GenerationError)
    assert "the model takes 2048" in found.reason


def test_a_prompt_longer_than_the_models_positions_is_refused_with_its_length(
    tiny: LoadedModel, requests: list[Request]
) -> None:
    long = Request(parts=("What is this? " * 8000,), max_new_tokens=4)
    found = hf.generate(tiny, [requests[0], long, requests[1]], 4)
    assert isinstance(found[1], GenerationError)
    assert "tokens, the model takes 2048" in found[1].reason
    assert ids([found[0], found[2]]) == ids(hf.generate(tiny, requests[:2], 4))


@contextmanager
def scores(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[tuple[int, int], torch.Tensor]]:
    """The scores of every draw and position, as they come."""
    found: dict[tuple[int, int], torch.Tensor] = {}
    drawn = hf.ContinuousBatch.sample

    def noted(self: Any, scores_BV: torch.Tensor, rows: Sequence[Any]) -> list[int]:
        for place, row in enumerate(rows):
            if row is not None:
                found[row.request.seed, len(row.ids)] = scores_BV[place].clone()
        return drawn(self, scores_BV, rows)

    with monkeypatch.context() as patched:
        patched.setattr(hf.ContinuousBatch, "sample", noted)
        yield found


def differing(one: dict[Any, torch.Tensor], two: dict[Any, torch.Tensor]) -> int:
    both = one.keys() & two.keys()
    assert len(both) > 50
    return sum(not torch.equal(one[key], two[key]) for key in both)


def test_in_deterministic_mode_no_bit_depends_on_the_other_requests(
    tiny: LoadedModel, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole, in part, in another order, on one thread or two; without it, roundings differ."""
    settings = [ModelConfig(batch_size=size, deterministic=True) for size in (64, 3)]
    orders = [requests, requests[::-1][: len(requests) * 2 // 3]]
    found = []
    before = torch.get_num_threads()
    for config, some, threads in zip(settings, orders, (1, 2), strict=True):
        torch.set_num_threads(threads)
        with scores(monkeypatch) as fixed:
            hf.generate(tiny, some, hf.BatchLimits.of(config))
        with scores(monkeypatch) as free:
            hf.generate(tiny, some, config.batch_size)
        assert torch.get_num_threads() == threads
        found.append((fixed, free))
    torch.set_num_threads(before)
    (fixed, free), (fixed_too, free_too) = found
    assert differing(fixed, fixed_too) == 0
    assert differing(free, free_too) > 0
    for key in free.keys() & free_too.keys():
        torch.testing.assert_close(free[key], free_too[key], atol=1e-3, rtol=1e-3)


def test_deterministic_needs_the_engine_in_this_process() -> None:
    config = ModelConfig(deterministic=True, url="http://127.0.0.1:1/v1", engine="http")
    assert "deterministic" in dict(config.check())
