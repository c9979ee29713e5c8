"""The attention pass computes ACE's largest log psi as the formula does on eager attention.

ACE (attention confidence; the paper RAP) measures whether a response depends on one of its own
tokens: psi_j is the product of all response tokens' attention on token j. Axes: B rows of the
batch, S positions, L layers, H heads, T response tokens, C response tokens of one chunk.
"""

import resource

import numpy as np
import pytest
import torch
from PIL import Image

from difftrain.config.difficulty import AceConfig, Heads, Normalize, TextSpan
from difftrain.difficulty import ace
from difftrain.model import attention
from difftrain.model.engines import kv_cache
from difftrain.model.engines.types import Request
from difftrain.model.loading import LoadedModel
from difftrain.probe.attention_pass import append_responses

RNG = np.random.default_rng(5)
RESPONSES = [(5, 6, 7), (8,), tuple(range(20, 31)), tuple(range(40, 60))]  # arbitrary token ids


@pytest.fixture(scope="module")
def batch(tiny: LoadedModel) -> tuple[dict, attention.TokenSpans]:
    """A padded batch of prompts and responses of different length, with their spans."""
    texts = ["How many?", "Count the red shapes and add 3.", "Read the letters. " * 3, "What?"]
    sizes = [(112, 112), (56, 84), (84, 112), (56, 56)]
    requests = [
        Request(
            parts=(Image.fromarray(RNG.integers(0, 256, (*size, 3), dtype=np.uint8)), text),
            max_new_tokens=8,
        )
        for size, text in zip(sizes, texts, strict=True)
    ]
    pad = tiny.processor.tokenizer.pad_token_id
    tensors = append_responses(kv_cache.encode(tiny, requests), RESPONSES, pad)
    lengths = [len(response) for response in RESPONSES]
    return tensors, attention.token_spans(tensors, lengths, tiny.image_token, TextSpan.prompt)


def max_log_psis(tiny: LoadedModel, batch: tuple, config: AceConfig) -> list[float | None]:
    """Each response's largest log psi from the attention pass."""
    inputs, spans = batch
    summaries = attention.summarize(tiny.model, inputs, spans, config)
    return [summary.max_log_psi for summary in summaries]


@torch.inference_mode()
def eager_attention(tiny: LoadedModel, batch: tuple) -> list[np.ndarray]:
    """Each response's attention on itself in the last layer, H x T x T, by eager attention."""
    inputs, spans = batch
    tiny.model.set_attn_implementation("eager")
    try:
        last = tiny.model(**inputs, output_attentions=True, use_cache=False).attentions[-1]
    finally:
        tiny.model.set_attn_implementation("sdpa")
    response_BS = spans.response_BS
    return [last[i][:, row][:, :, row].numpy() for i, row in enumerate(response_BS)]


CONFIGS = [
    AceConfig(),
    AceConfig(heads=Heads.max),
    AceConfig(sigma=1.5, min_rows=3),
    AceConfig(window=2),
    AceConfig(normalize=Normalize.mean_log),
]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("max_cells", [attention.MAX_CELLS, 1])  # 1: a chunk has one row
def test_max_log_psi_in_chunks_equals_the_formula_on_eager_attention(
    tiny: LoadedModel,
    batch: tuple,
    config: AceConfig,
    max_cells: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attention, "MAX_CELLS", max_cells)
    values, attention_per_response = max_log_psis(tiny, batch, config), eager_attention(tiny, batch)
    for value, attention_HTT in zip(values, attention_per_response, strict=True):
        heads_max = config.heads is Heads.max
        attention_TT = attention_HTT.max(0) if heads_max else attention_HTT.mean(0)
        expected = ace.bias(
            attention_TT, config.sigma, config.min_rows, config.window, config.normalize
        )
        assert value == (None if expected is None else pytest.approx(expected, abs=1e-3))


def test_a_response_of_one_token_has_no_max_log_psi(tiny: LoadedModel, batch: tuple) -> None:
    values = max_log_psis(tiny, batch, AceConfig())
    assert values[1] is None  # the response with one token
    assert all(isinstance(values[row], float) for row in (0, 2, 3))  # the other responses


def test_the_masses_are_the_same_with_and_without_max_log_psi(
    tiny: LoadedModel, batch: tuple
) -> None:
    inputs, spans = batch
    indicators = (spans.image_BS, spans.text_BS, spans.response_BS)
    expected_masses = attention.masses(tiny.model, inputs, *indicators)
    for summary, (image, text) in zip(
        attention.summarize(tiny.model, inputs, spans, AceConfig()),
        expected_masses,
        strict=True,
    ):
        assert (summary.image_LT == image).all()
        assert (summary.text_LT == text).all()


def test_without_an_ace_config_max_log_psi_is_none(tiny: LoadedModel, batch: tuple) -> None:
    inputs, spans = batch
    summaries = attention.summarize(tiny.model, inputs, spans)
    assert [summary.max_log_psi for summary in summaries] == [None] * len(RESPONSES)


def test_a_response_of_4096_tokens_fits_into_memory() -> None:
    """28 heads and a prompt of 1,500 tokens: one T x T table for all heads alone is 1.9 GB."""
    heads, key_heads, size, prompt, tokens = 28, 4, 128, 1500, 4096  # as in Qwen2.5-VL-7B
    generator = torch.Generator().manual_seed(1)
    sequence = prompt + tokens
    query = torch.randn(heads, sequence, size, generator=generator, dtype=torch.bfloat16)
    key = torch.randn(key_heads, sequence, size, generator=generator, dtype=torch.bfloat16)
    max_cells = 0
    position = torch.arange(prompt, sequence)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for first, log_HCT in attention.log_attention_rows(query, key, position, size**-0.5):
        max_cells = max(max_cells, log_HCT.numel())
        if first > 200:  # row 200 of 4096: enough chunks to reach the peak memory
            break
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert max_cells <= attention.MAX_CELLS
    assert (after - before) / 1024 < 400  # MiB; MAX_CELLS floats are 32 MiB, with some copies
