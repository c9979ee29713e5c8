"""The hf engine's continuous batching: slots, shared prompts, memory limits, determinism.

A slot is a row of the batch; when its response ends, it takes the next request. Requests with the
same `view` have the same prompt, which is encoded once.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
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
    """A request for a sample's question; `rest` are further arguments of Request."""
    image = Image.open(BytesIO(sample.images[0])).convert("RGB")
    text = prompts.user_text(sample.question, sample.options)
    rest = {"temperature": 0.9, "parts": (image, text), **rest}
    return Request(seed=seed, max_new_tokens=max_new_tokens, **rest)


@pytest.fixture
def requests(shapes_samples: list[Sample]) -> list[Request]:
    """24 requests with different token limits; every fourth has no image."""
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
def rows_per_decoding_step(tiny: LoadedModel) -> Iterator[list[int]]:
    """A list that collects the number of rows of each decoding step."""
    results: list[int] = []

    def record(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
        if kwargs["input_ids"].shape[1] == 1:  # one new token per row, so no prefill
            results.append(len(kwargs["input_ids"]))

    with forward_hook(tiny.model.base_model, record):
        yield results


def token_ids(results: Sequence[Any]) -> list[tuple[int, ...]]:
    return [result.token_ids for result in results]


@torch.inference_mode()
def generate_with_transformers(tiny: LoadedModel, request: Request) -> tuple[int, ...]:
    """The response of transformers' generate to the request, alone in its batch."""
    inputs = kv_cache.encode(tiny, [request])
    width = inputs["input_ids"].shape[1]
    banned = list(tiny.banned.values())

    def add_noise(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        position = input_ids.shape[1] - width
        return hf.noisy_logits(scores, [(request.seed, position, request.temperature)], banned)

    output = tiny.model.generate(
        **inputs,
        max_new_tokens=request.max_new_tokens,
        do_sample=False,
        eos_token_id=list(hf.eos_token_ids(tiny)),
        logits_processor=[add_noise],
    )
    return hf.to_completion(tiny, output[0, width:].tolist(), request.max_new_tokens).token_ids


def test_responses_equal_those_of_the_generate_function_of_transformers(
    tiny: LoadedModel, requests: list[Request]
) -> None:
    assert token_ids(generate(tiny, requests, 8)) == [
        generate_with_transformers(tiny, request) for request in requests
    ]


def test_a_freed_slot_takes_the_next_request_at_once(
    tiny: LoadedModel, shapes_samples: list[Sample]
) -> None:
    """Of four slots, three hold long responses, and the fourth holds twelve short ones in turn."""
    view = {"view": "one", "parts": ("Write.",), "temperature": 2.0}
    lengths = [14, 14, 14, *[2] * 12]
    batch = [
        make_request(shapes_samples[0], seed, length, **view) for seed, length in enumerate(lengths)
    ]
    with rows_per_decoding_step(tiny) as rows:
        results = list(
            hf.HfEngine(tiny, ModelConfig(batch_size=4)).stream(feed(iter(enumerate(batch))))
        )
    assert len(results) == len(batch)
    needed = sum(len(response.token_ids) - 1 for _, response in results)
    assert sum(rows) == needed  # no row is computed after it has ended
    assert max(rows) == 4
    assert len(rows) <= 15  # not much more than the 13 decoding steps of a long response


def test_images_of_requests_with_the_same_view_are_encoded_once(
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
        shared = token_ids(generate(tiny, draws + without_view, 4))
    assert sum(num_images) == 3 + 2  # one per view, and one per request without a view
    unshared = [replace(request, view=None) for request in draws]
    assert shared == token_ids(generate(tiny, unshared + without_view, 4))


def test_an_out_of_memory_error_halves_the_batch_and_loses_no_response(
    tiny: LoadedModel, requests: list[Request], caplog: pytest.LogCaptureFixture
) -> None:
    def fail_above_three_rows(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
        if len(kwargs["input_ids"]) > 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")

    expected = token_ids(generate(tiny, requests, 8))
    with (
        forward_hook(tiny.model.base_model, fail_above_three_rows),
        rows_per_decoding_step(tiny) as rows,
    ):
        assert token_ids(generate(tiny, requests, 16)) == expected
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

    with forward_hook(tiny.model.base_model, fail_once), rows_per_decoding_step(tiny) as rows:
        generate(tiny, requests, 16)
    assert max(rows) == 8


def test_errors_that_a_smaller_batch_cannot_mend_are_raised(
    tiny: LoadedModel, requests: list[Request]
) -> None:
    def hook_that_raises(message: str) -> Callable[..., None]:
        def fail(*_: Any) -> None:
            raise RuntimeError(message)

        return fail

    out_of_memory = "DefaultCPUAllocator: not enough memory: you tried"
    for message, config in (
        (out_of_memory, ModelConfig(batch_size=4)),
        (out_of_memory, ModelConfig(deterministic=True)),
        ("mat1 and mat2 shapes cannot be multiplied", ModelConfig(batch_size=4)),
    ):
        with (
            forward_hook(tiny.model.base_model, hook_that_raises(message)),
            pytest.raises(RuntimeError, match=message),
        ):
            generate(tiny, requests, config)


def test_batch_tokens_limits_the_number_of_rows_times_their_largest_width(
    tiny: LoadedModel, requests: list[Request]
) -> None:
    """`batch_tokens` is large enough for three rows of the largest width, then for one row only."""
    widths = [hf.token_bound(request) for request in requests]
    batch_tokens = 3 * max(widths)
    with rows_per_decoding_step(tiny) as rows:
        results = generate(tiny, requests, ModelConfig(batch_size=16, batch_tokens=batch_tokens))
    assert max(rows) <= batch_tokens // min(widths)
    assert max(rows) < 16
    with rows_per_decoding_step(tiny) as rows_one_by_one:
        assert token_ids(
            generate(tiny, requests, ModelConfig(batch_size=16, batch_tokens=1))
        ) == token_ids(results)
    assert max(rows_one_by_one) == 1


def test_the_cache_grows_and_shrinks_with_the_rows_within_the_token_budget(
    tiny: LoadedModel, shapes_samples: list[Sample]
) -> None:
    """Short prompts, then a few long ones, then short ones: at no time many rows of large width."""
    texts = [*["Hi."] * 16, *["word " * 150] * 4, *["Hi."] * 16]
    batch = [
        make_request(shapes_samples[0], seed, 3 + seed % 7, parts=(text,), temperature=2.0)
        for seed, text in enumerate(texts)
    ]
    budget = 2 * max(map(hf.token_bound, batch))
    cache_shapes: list[tuple[int, int]] = []

    def record(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
        if kwargs["input_ids"].shape[1] == 1:
            # Axes: keys and values, rows, key heads, positions, size of a head.
            _, rows, _, width, _ = kwargs["past_key_values"].key_values[0].shape
            cache_shapes.append((rows, width))

    with forward_hook(tiny.model.base_model, record):
        results = list(
            hf.HfEngine(tiny, ModelConfig(batch_size=16, batch_tokens=budget)).stream(
                feed(iter(enumerate(batch)))
            )
        )
    assert max(rows * width for rows, width in cache_shapes) <= budget * 5 // 4  # with spare room
    assert len(set(cache_shapes)) > 1
    one_by_one = list(
        hf.HfEngine(tiny, ModelConfig(batch_size=1)).stream(feed(iter(enumerate(batch))))
    )
    assert dict(results) == dict(one_by_one)


# A hieroglyph, an emoji, Han, a letter that NFC splits, a joined emoji, a control character.
CHARACTERS = ("𓂀", "☃️", "漢", "क़", "🧑‍🚀", "")


@pytest.mark.parametrize("character", CHARACTERS, ids=ascii)
def test_token_bound_is_at_least_the_number_of_tokens_in_every_script(
    tiny: LoadedModel, shapes_samples: list[Sample], character: str
) -> None:
    request = make_request(shapes_samples[0], 1, 4, parts=(character * 120,))
    num_tokens = kv_cache.encode(tiny, [request])["input_ids"].shape[1]
    assert hf.token_bound(request) >= num_tokens + 4
    deterministic = ModelConfig(deterministic=True)  # its slots have the width of the bound
    assert len(token_ids(generate(tiny, [request], deterministic))) == 1
    overlong = make_request(shapes_samples[0], 1, 4, parts=(character * 2048,))
    (result,) = generate(tiny, [overlong], 1)
    assert isinstance(result, GenerationError)
    assert "the model takes 2048" in result.reason  # max_position_embeddings of the tiny model


def test_a_prompt_longer_than_the_models_positions_is_refused_with_its_length(
    tiny: LoadedModel, requests: list[Request]
) -> None:
    overlong = Request(parts=("What is this? " * 8000,), max_new_tokens=4)
    results = generate(tiny, [requests[0], overlong, requests[1]], 4)
    assert isinstance(results[1], GenerationError)
    assert "tokens, the model takes 2048" in results[1].reason
    assert token_ids([results[0], results[2]]) == token_ids(generate(tiny, requests[:2], 4))


@contextmanager
def recorded_logits(
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[dict[tuple[int, int], torch.Tensor]]:
    """A dict that collects the logits of every (seed, position in the response).

    logits_BV has B rows of the batch and V tokens of the vocabulary.
    """
    results: dict[tuple[int, int], torch.Tensor] = {}
    sample = hf.ContinuousBatch.sample

    def record_and_sample(self: Any, logits_BV: torch.Tensor, rows: Sequence[Any]) -> list[int]:
        for i, row in enumerate(rows):
            if row is not None:
                results[row.request.seed, len(row.ids)] = logits_BV[i].clone()
        return sample(self, logits_BV, rows)

    with monkeypatch.context() as patched:
        patched.setattr(hf.ContinuousBatch, "sample", record_and_sample)
        yield results


def count_differing(first: dict[Any, torch.Tensor], second: dict[Any, torch.Tensor]) -> int:
    """At how many common (seed, position) pairs the logits are not bit-identical."""
    common_keys = first.keys() & second.keys()
    assert len(common_keys) > 50  # else the comparison says little
    return sum(not torch.equal(first[key], second[key]) for key in common_keys)


def test_in_deterministic_mode_no_bit_depends_on_the_other_requests(
    tiny: LoadedModel, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without deterministic mode, the same two runs round differently (`unfixed`)."""
    # Run 1: all requests, one thread. Run 2: two thirds of them in reverse order, two threads.
    configs = [ModelConfig(batch_size=size, deterministic=True) for size in (64, 3)]
    batches = [requests, requests[::-1][: len(requests) * 2 // 3]]
    results = []
    before = torch.get_num_threads()
    for config, batch, threads in zip(configs, batches, (1, 2), strict=True):
        torch.set_num_threads(threads)
        with recorded_logits(monkeypatch) as fixed:
            generate(tiny, batch, config)
        with recorded_logits(monkeypatch) as unfixed:
            generate(tiny, batch, config.batch_size)
        assert torch.get_num_threads() == threads
        results.append((fixed, unfixed))
    torch.set_num_threads(before)
    (fixed, unfixed), (fixed_2, unfixed_2) = results
    assert count_differing(fixed, fixed_2) == 0
    assert count_differing(unfixed, unfixed_2) > 0
    for key in unfixed.keys() & unfixed_2.keys():
        torch.testing.assert_close(unfixed[key], unfixed_2[key], atol=1e-3, rtol=1e-3)


def test_deterministic_mode_with_the_http_engine_is_a_settings_error() -> None:
    config = ModelConfig(deterministic=True, url="http://127.0.0.1:1/v1", engine="http")
    assert "deterministic" in dict(config.check())
