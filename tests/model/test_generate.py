"""The hf engine's sampling: seeds, greedy decoding, banned tokens, the end of a response."""

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import chisquare

from difftrain.data import prompts
from difftrain.model.engines import hf
from difftrain.model.engines.types import Request
from difftrain.model.loading import LoadedModel
from difftrain.records import Sample
from tests.model.answering import generate


def make_request(sample: Sample, seed: int, temperature: float = 0.9) -> Request:
    """A request for at most 12 tokens in response to the sample's question."""
    text = prompts.user_text(sample.question, sample.options)
    return Request(
        parts=(Image.open(BytesIO(sample.images[0])).convert("RGB"), text),
        seed=seed,
        temperature=temperature,
        max_new_tokens=12,
    )


def test_a_response_does_not_depend_on_its_batch(
    tiny: LoadedModel, shapes_samples: list[Sample]
) -> None:
    requests = [make_request(sample, seed) for seed, sample in enumerate(shapes_samples[:12])]
    in_one_batch = generate(tiny, requests, 12)
    in_reversed_threes = generate(tiny, requests[::-1], 3)[::-1]
    one_by_one = generate(tiny, requests, 1)
    token_ids = [result.token_ids for result in in_one_batch]
    assert [result.token_ids for result in one_by_one] == token_ids
    assert [result.token_ids for result in in_reversed_threes] == token_ids


def test_equal_seeds_give_equal_responses_and_different_seeds_different_ones(
    tiny: LoadedModel, shapes_samples: list[Sample]
) -> None:
    sample = shapes_samples[0]
    first, repeated = generate(tiny, [make_request(sample, 5), make_request(sample, 5)], 2)
    # At temperature 2, six responses of a model are hardly ever all equal.
    results = generate(tiny, [make_request(sample, seed, 2.0) for seed in range(6)], 6)
    assert first == repeated
    assert len({result.token_ids for result in results}) > 1


def test_torchs_global_random_state_is_not_changed(
    tiny: LoadedModel, shapes_samples: list[Sample]
) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    generate(tiny, [make_request(shapes_samples[0], 5)], 1)
    assert (torch.get_rng_state() == before).all()


def test_a_temperature_of_zero_is_greedy(tiny: LoadedModel, shapes_samples: list[Sample]) -> None:
    sample = shapes_samples[0]
    results = generate(tiny, [make_request(sample, seed, 0.0) for seed in range(3)], 3)
    assert results[0] == results[1] == results[2]


def test_placeholders_are_never_produced(tiny: LoadedModel) -> None:
    banned = list(tiny.banned.values())
    assert len(banned) == 5  # image, video and three around them
    logits = torch.zeros(2, 512)  # two rows; the tiny model has 512 tokens
    logits[:, banned] = 1e4
    sampled_and_greedy = [(1, 1, 1.0), (2, 1, 0.0)]  # (seed, position, temperature) of each row
    results = hf.noisy_logits(logits, sampled_and_greedy, banned)
    assert torch.isneginf(results[:, banned]).all()


def test_a_response_ends_at_the_eos_token_or_at_its_own_limit(tiny: LoadedModel) -> None:
    (eos, *_) = hf.eos_token_ids(tiny)
    ended = hf.to_completion(tiny, [40, 41, eos, 42, 43], max_new_tokens=5)
    assert ended.token_ids == (40, 41, eos)
    assert ended.hit_eos
    cut = hf.to_completion(tiny, [40, 41, 42, eos], max_new_tokens=2)
    assert cut.token_ids == (40, 41)
    assert not cut.hit_eos


def test_the_models_generation_config_has_no_effect(
    tiny: LoadedModel, shapes_samples: list[Sample]
) -> None:
    requests = [make_request(sample, 3, 0.0) for sample in shapes_samples[:4]]
    expected = generate(tiny, requests, 4)
    generation_config = tiny.model.generation_config
    generation_config.repetition_penalty = 5.0
    try:
        assert generate(tiny, requests, 4) == expected
    finally:
        generation_config.repetition_penalty = None


def test_the_argmax_with_gumbel_noise_samples_the_softmax() -> None:
    logits, temperature = torch.tensor([0.0, 1.0, 2.0, -1.0]), 0.7
    seeds = torch.arange(20000)
    noise = hf.gumbel_noise(seeds, position=0, vocab=4)
    samples = (logits / temperature + noise).argmax(1)
    counts = torch.bincount(samples, minlength=4).numpy()
    expected = torch.softmax(logits / temperature, 0).numpy().astype(np.float64)
    assert chisquare(counts, expected / expected.sum() * len(seeds)).pvalue > 0.001


def test_noise_is_finite_and_differs_by_seed_position_and_token() -> None:
    seeds = torch.tensor([0, 1, 2**32 - 1])
    vocab = 5000
    first, second = (hf.gumbel_noise(seeds, position, vocab) for position in (0, 1))
    assert torch.isfinite(first).all()
    assert (first != second).float().mean() > 0.99
    assert len(first.flatten().unique()) > 0.99 * first.numel()
    # Six rows: three seeds at two positions. 0.08 is over 5 standard deviations, 1 / sqrt(5000).
    correlation = np.corrcoef(np.vstack([first.numpy(), second.numpy()]))
    assert np.abs(correlation - np.eye(6)).max() < 0.08


def test_a_prompt_with_a_placeholder_but_no_image_is_an_error(tiny: LoadedModel) -> None:
    request = Request(parts=("what is <|image_pad|> here?",), max_new_tokens=4)
    with pytest.raises(ValueError, match=r"placeholder|image|token"):
        generate(tiny, [request], 1)
