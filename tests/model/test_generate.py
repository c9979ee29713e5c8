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
    together = generate(tiny, requests, 12)
    in_threes = generate(tiny, requests[::-1], 3)[::-1]
    alone = generate(tiny, requests, 1)
    assert [a.token_ids for a in together] == [a.token_ids for a in alone]
    assert [a.token_ids for a in together] == [a.token_ids for a in in_threes]


def test_the_same_seed_gives_the_same_response_and_another_seed_another(
    tiny: LoadedModel, shapes_samples: list[Sample]
) -> None:
    sample = shapes_samples[0]
    first, repeated = generate(tiny, [make_request(sample, 5), make_request(sample, 5)], 2)
    others = generate(tiny, [make_request(sample, seed, 2.0) for seed in range(6)], 6)
    assert first == repeated
    assert len({other.token_ids for other in others}) > 1


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
    banned = hf.placeholder_ids(tiny.processor.tokenizer)
    assert len(banned) == len(hf.PLACEHOLDERS)
    scores = torch.zeros(2, 512)
    scores[:, banned] = 1e4
    results = hf.noisy_logits(scores, [(1, 1, 1.0), (2, 1, 0.0)], banned)
    assert torch.isneginf(results[:, banned]).all()


def test_a_response_ends_at_the_eos_token_or_at_its_own_limit(tiny: LoadedModel) -> None:
    (end, *_) = hf.eos_token_ids(tiny)
    cut = hf.to_completion(tiny, [40, 41, end, 42, 43], 5)
    assert cut.token_ids == (40, 41, end)
    assert cut.hit_eos
    limited = hf.to_completion(tiny, [40, 41, 42, end], 2)
    assert limited.token_ids == (40, 41)
    assert not limited.hit_eos


def test_the_models_generation_config_has_no_effect(
    tiny: LoadedModel, shapes_samples: list[Sample]
) -> None:
    requests = [make_request(sample, 3, 0.0) for sample in shapes_samples[:4]]
    expected = generate(tiny, requests, 4)
    generation_config = tiny.model.generation_config
    generation_config.repetition_penalty, generation_config.no_repeat_ngram_size = 5.0, 0
    try:
        assert generate(tiny, requests, 4) == expected
    finally:
        generation_config.repetition_penalty = None


def test_the_argmax_with_gumbel_noise_samples_the_softmax() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    seeds = torch.arange(20000)
    samples = (logits / 0.7 + hf.gumbel_noise(seeds, 0, 4)).argmax(1)
    counts = torch.bincount(samples, minlength=4).numpy()
    expected = torch.softmax(logits / 0.7, 0).numpy().astype(np.float64)
    assert chisquare(counts, expected / expected.sum() * len(seeds)).pvalue > 0.001


def test_noise_is_finite_and_differs_by_seed_position_and_token() -> None:
    seeds = torch.tensor([0, 1, 2**32 - 1])
    first, second = hf.gumbel_noise(seeds, 0, 5000), hf.gumbel_noise(seeds, 1, 5000)
    assert torch.isfinite(first).all()
    assert (first != second).float().mean() > 0.99
    assert len(first.flatten().unique()) > 0.99 * first.numel()
    correlation = np.corrcoef(np.vstack([first.numpy(), second.numpy()]))
    assert np.abs(correlation - np.eye(6)).max() < 0.08


def test_a_placeholder_without_an_image_is_refused(tiny: LoadedModel) -> None:
    request = Request(parts=("what is <|image_pad|> here?",), max_new_tokens=4)
    with pytest.raises(ValueError, match=r"placeholder|image|token"):
        generate(tiny, [request], 1)
