"""Continuous batching: slots, shared prompts, out of memory, deterministic mode."""

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
from difftrain.model.engines.types import GenerationError, Request, feed
from difftrain.model.loading import LoadedModel
from difftrain.records import Sample
from tests.model.answering import generate


def make_request(sample: Sample, seed: int, max_new_tokens: int = 12, **rest: Any) -> Request:
    image = Image.open(BytesIO(sample.images[0])).convert("RGB")
    text = prompts.user_text(sample.question, sample.options)
    rest = {"temperature": 0.9, "parts": (image, text), **rest}
    return Request(seed=seed, max_new_tokens=max_new_tokens, **rest)


@pytest.fixture
def requests(shapes_samples: list[Sample]) -> list[Request]:
    """24 requests, short and long; every fourth has no image."""
    results = [make_request(sample, i, 3 + i % 9) for i, sample in enumerate(shapes_samples)]
    return [
        request if i % 4 else make_request(shapes_samples[i], i, parts=(request.text,))
        for i, request in enumerate(results)
    ]


@contextmanager
def forward_hook(module: Any, record: Callable[..., None]) -> Iterator[None]:
    """Call record(module, args, kwargs) before each forward of a module."""
    hook = module.register_forward_pre_hook(record, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def decoding_steps(tiny: LoadedModel) -> Iterator[list[int]]:
    """A list that collects the number of rows of each decoding step."""
    results: list[int] = []

    def record(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
        if kwargs["input_ids"].shape[1] == 1:
            results.append(len(kwargs["input_ids"]))

    with forward_hook(tiny.model.base_model, record):
        yield results


def ids(results: Sequence[Any]) -> list[tuple[int, ...]]:
    return [result.token_ids for result in results]


@torch.inference_mode()
def generate_with_transformers(tiny: LoadedModel, request: Request) -> tuple[int, ...]:
    """The response of transformers' generate to the request, alone in its batch."""
    inputs = kv_cache.encode(tiny, [request])
    width = inputs["input_ids"].shape[1]
    banned = hf.placeholder_ids(tiny.processor.tokenizer)

    def add_noise(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        draw = request.seed, input_ids.shape[1] - width, request.temperature
        return hf.noisy_logits(scores, [draw], banned)

    output = tiny.model.generate(
        **inputs,
        max_new_tokens=request.max_new_tokens,
        do_sample=False,
        eos_token_id=list(hf.eos_token_ids(tiny)),
        logits_processor=[add_noise],
    )
    return hf.to_completion(tiny, output[0, width:].tolist(), request.max_new_tokens).token_ids


def test_responses_equal_those_of_transformers_generate(
    tiny: LoadedModel, requests: list[Request]
) -> None:
    assert ids(generate(tiny, requests, 8)) == [
        generate_with_transformers(tiny, request) for request in requests
    ]


def test_a_freed_slot_takes_the_next_request_at_once(
    tiny: LoadedModel, shapes_samples: list[Sample]
) -> None:
    """Three long and many short responses in four slots: the short ones use one slot in turn."""
    view = {"view": "one", "parts": ("Write.",), "temperature": 2.0}
    lengths = [14, 14, 14, *[2] * 12]
    batch = [
        make_request(shapes_samples[0], seed, length, **view) for seed, length in enumerate(lengths)
    ]
    with decoding_steps(tiny) as rows:
        results = list(
            hf.HfEngine(tiny, ModelConfig(batch_size=4)).stream(feed(iter(enumerate(batch))))
        )
    assert len(results) == len(batch)
    needed = sum(len(response.token_ids) - 1 for _, response in results)
    assert sum(rows) == needed  # no row is computed after it has ended
    assert max(rows) == 4
    assert len(rows) <= 15


def test_images_of_draws_that_share_a_view_are_encoded_once(
    tiny: LoadedModel, shapes_samples: list[Sample]
) -> None:
    num_images: list[int] = []

    def record(_: Any, args: Any, kwargs: dict[str, Any]) -> None:
        grid = kwargs["grid_thw"] if "grid_thw" in kwargs else args[1]
        num_images.append(len(grid))

    draws = [
        make_request(sample, 10 * number + draw, view=sample.sample_id)
        for draw in range(5)
        for number, sample in enumerate(shapes_samples[:3])
    ]
    without_view = [make_request(sample, seed) for seed, sample in enumerate(shapes_samples[3:5])]
    with forward_hook(tiny.model.base_model.visual, record):
        shared = ids(generate(tiny, draws + without_view, 4))
    assert sum(num_images) == 3 + 2
    unshared = [make_request(shapes_samples[k % 3], 10 * (k % 3) + k // 3) for k in range(15)]
    assert shared == ids(generate(tiny, unshared + without_view, 4))


def test_out_of_memory_halves_the_batch_and_loses_nothing(
    tiny: LoadedModel, requests: list[Request], caplog: pytest.LogCaptureFixture
) -> None:
    def fail_above_three_rows(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
        if len(kwargs["input_ids"]) > 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")

    expected = ids(generate(tiny, requests, 8))
    with forward_hook(tiny.model.base_model, fail_above_three_rows), decoding_steps(tiny) as rows:
        assert ids(generate(tiny, requests, 16)) == expected
    assert max(rows) == 2  # 16, 8 and 4 prompts do not fit, 2 do
    assert "out of memory with 16 responses at once: going on with 8 at most" in caplog.text
    assert "going on with 2 at most" in caplog.text


def test_one_out_of_memory_error_in_prefill_halves_the_batch_once(
    tiny: LoadedModel, requests: list[Request]
) -> None:
    failures: list[int] = []

    def fail_once(*_: Any) -> None:
        if not failures:
            failures.append(1)
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")

    with forward_hook(tiny.model.base_model, fail_once), decoding_steps(tiny) as rows:
        generate(tiny, requests, 16)
    assert max(rows) == 8


def test_a_row_that_does_not_fit_alone_and_any_other_error_are_raised(
    tiny: LoadedModel, requests: list[Request]
) -> None:
    def always_failing(text: str) -> Callable[..., None]:
        def fail(*_: Any) -> None:
            raise RuntimeError(text)

        return fail

    for text, config in (
        ("DefaultCPUAllocator: not enough memory: you tried", ModelConfig(batch_size=4)),
        ("DefaultCPUAllocator: not enough memory: you tried", ModelConfig(deterministic=True)),
        ("mat1 and mat2 shapes cannot be multiplied", ModelConfig(batch_size=4)),
    ):
        with (
            forward_hook(tiny.model.base_model, always_failing(text)),
            pytest.raises(RuntimeError, match="m"),
        ):
            generate(tiny, requests, config)


def test_the_token_budget_bounds_rows_times_the_longest(
    tiny: LoadedModel, requests: list[Request]
) -> None:
    longest = max(map(hf.token_bound, requests))
    with decoding_steps(tiny) as rows:
        results = generate(tiny, requests, ModelConfig(batch_size=16, batch_tokens=3 * longest))
    assert max(rows) <= max(3, 3 * longest // min(map(hf.token_bound, requests)))
    assert max(rows) < 16
    with decoding_steps(tiny) as single:
        assert ids(generate(tiny, requests, ModelConfig(batch_size=16, batch_tokens=1))) == ids(
            results
        )
    assert max(single) == 1


def test_the_cache_grows_and_shrinks_with_the_rows_within_the_token_budget(
    tiny: LoadedModel, shapes_samples: list[Sample]
) -> None:
    """Many short prompts, then few long ones, then short ones: never many rows of large width."""
    texts = [*["Hi."] * 16, *["word " * 150] * 4, *["Hi."] * 16]
    batch = [
        make_request(shapes_samples[0], seed, 3 + seed % 7, parts=(text,), temperature=2.0)
        for seed, text in enumerate(texts)
    ]
    budget = 2 * max(map(hf.token_bound, batch))
    cache_shapes: list[tuple[int, int]] = []

    def record(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
        if kwargs["input_ids"].shape[1] == 1:
            _, rows, _, width, _ = kwargs["past_key_values"].key_values[0].shape
            cache_shapes.append((rows, width))

    with forward_hook(tiny.model.base_model, record):
        results = list(
            hf.HfEngine(tiny, ModelConfig(batch_size=16, batch_tokens=budget)).stream(
                feed(iter(enumerate(batch)))
            )
        )
    assert max(rows * width for rows, width in cache_shapes) <= budget * 5 // 4
    assert len(set(cache_shapes)) > 1
    one_by_one = list(
        hf.HfEngine(tiny, ModelConfig(batch_size=1)).stream(feed(iter(enumerate(batch))))
    )
    assert dict(results) == dict(one_by_one)


CHARACTERS = ("𓂀", "☃️", "漢", "क़", "🧑‍🚀", "")
"""A hieroglyph, an emoji, Han, a letter that NFC splits, a joined emoji, a control character."""


@pytest.mark.parametrize("character", CHARACTERS, ids=ascii)
def test_a_bound_on_tokens_holds_for_every_script(
    tiny: LoadedModel, shapes_samples: list[Sample], character: str
) -> None:
    request = make_request(shapes_samples[0], 1, 4, parts=(character * 120,))
    num_tokens = kv_cache.encode(tiny, [request])["input_ids"].shape[1]
    assert hf.token_bound(request) >= num_tokens + 4
    fixed = ModelConfig(deterministic=True)
    assert len(ids(generate(tiny, [request], fixed))) == 1
    overlong = make_request(shapes_samples[0], 1, 4, parts=(character * 2048,))
    (result,) = generate(tiny, [overlong], 1)
    assert isinstance(result, GenerationError)
    assert "the model takes 2048" in result.reason


def test_a_prompt_longer_than_the_models_positions_is_refused_with_its_length(
    tiny: LoadedModel, requests: list[Request]
) -> None:
    long = Request(parts=("What is this? " * 8000,), max_new_tokens=4)
    results = generate(tiny, [requests[0], long, requests[1]], 4)
    assert isinstance(results[1], GenerationError)
    assert "tokens, the model takes 2048" in results[1].reason
    assert ids([results[0], results[2]]) == ids(generate(tiny, requests[:2], 4))


@contextmanager
def recorded_scores(
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[dict[tuple[int, int], torch.Tensor]]:
    """A dict that collects the scores of every (seed, position)."""
    results: dict[tuple[int, int], torch.Tensor] = {}
    sample = hf.ContinuousBatch.sample

    def recording(self: Any, scores_BV: torch.Tensor, rows: Sequence[Any]) -> list[int]:
        for i, row in enumerate(rows):
            if row is not None:
                results[row.request.seed, len(row.ids)] = scores_BV[i].clone()
        return sample(self, scores_BV, rows)

    with monkeypatch.context() as patched:
        patched.setattr(hf.ContinuousBatch, "sample", recording)
        yield results


def count_differing(first: dict[Any, torch.Tensor], second: dict[Any, torch.Tensor]) -> int:
    common_keys = first.keys() & second.keys()
    assert len(common_keys) > 50
    return sum(not torch.equal(first[key], second[key]) for key in common_keys)


def test_in_deterministic_mode_no_bit_depends_on_the_other_requests(
    tiny: LoadedModel, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All requests or some, in another order, on one or two threads; otherwise roundings differ."""
    settings = [ModelConfig(batch_size=size, deterministic=True) for size in (64, 3)]
    orders = [requests, requests[::-1][: len(requests) * 2 // 3]]
    results = []
    before = torch.get_num_threads()
    for config, batch, threads in zip(settings, orders, (1, 2), strict=True):
        torch.set_num_threads(threads)
        with recorded_scores(monkeypatch) as fixed:
            generate(tiny, batch, config)
        with recorded_scores(monkeypatch) as unfixed:
            generate(tiny, batch, config.batch_size)
        assert torch.get_num_threads() == threads
        results.append((fixed, unfixed))
    torch.set_num_threads(before)
    (fixed, unfixed), (fixed_2, unfixed_2) = results
    assert count_differing(fixed, fixed_2) == 0
    assert count_differing(unfixed, unfixed_2) > 0
    for key in unfixed.keys() & unfixed_2.keys():
        torch.testing.assert_close(unfixed[key], unfixed_2[key], atol=1e-3, rtol=1e-3)


def test_deterministic_needs_the_engine_in_this_process() -> None:
    config = ModelConfig(deterministic=True, url="http://127.0.0.1:1/v1", engine="http")
    assert "deterministic" in dict(config.check())
