"""Attention maps give every image token the weight that eager attention gives it.

Axes: L layers, T response tokens, I image tokens, P groups of response tokens, S positions.
"""

import numpy as np
import pytest
import torch
from PIL import Image

from difftrain.config.difficulty import TextSpan
from difftrain.model import attention, attention_map
from difftrain.model.attention_map import image_token_map
from difftrain.model.engines import kv_cache
from difftrain.model.engines.types import Request
from difftrain.model.loading import LoadedModel
from difftrain.probe.attention_pass import append_responses

RESPONSE = tuple(range(20, 33))  # arbitrary token ids
GROUPS = [list(range(13)), [4, 5, 9]]


@pytest.fixture
def prompt(tiny: LoadedModel) -> tuple[dict, attention.TokenSpans]:
    """A prompt with two images and RESPONSE: the model's inputs, and which tokens are what."""
    rng = np.random.default_rng(5)
    images = [
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
        for size in ((112, 112), (56, 84))
    ]
    request = Request(parts=(*images, "Count the red shapes."), max_new_tokens=8)
    pad_id = tiny.processor.tokenizer.pad_token_id
    inputs = append_responses(kv_cache.encode(tiny, [request]), [RESPONSE], pad_id)
    spans = attention.token_spans(inputs, [len(RESPONSE)], tiny.image_token, TextSpan.prompt)
    return inputs, spans


@torch.inference_mode()
def test_maps_equal_the_attention_matrices_of_eager_attention(
    tiny: LoadedModel, prompt: tuple[dict, attention.TokenSpans]
) -> None:
    inputs, spans = prompt
    tiny.model.set_attn_implementation("eager")
    try:
        layers = tiny.model(**inputs, output_attentions=True, use_cache=False).attentions
    finally:
        tiny.model.set_attn_implementation("sdpa")
    weight_LTI = torch.stack(
        [layer[0].mean(0)[spans.response_BS[0]][:, spans.image_BS[0]] for layer in layers]
    )
    result = image_token_map(tiny.model, inputs, spans, GROUPS)
    expected_PLI = torch.stack([weight_LTI[:, group].mean(1) for group in GROUPS])
    torch.testing.assert_close(result.image_PLI, expected_PLI, atol=1e-5, rtol=0)


@pytest.mark.parametrize("max_cells", [attention_map.MAX_CELLS, 1000])
def test_the_sums_of_maps_equal_the_masses_also_in_chunks(
    tiny: LoadedModel,
    prompt: tuple[dict, attention.TokenSpans],
    max_cells: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attention_map, "MAX_CELLS", max_cells)
    inputs, spans = prompt
    arguments = spans.image_BS, spans.text_BS, spans.response_BS
    ((image_LT, text_LT),) = attention.masses(tiny.model, inputs, *arguments)
    result = image_token_map(tiny.model, inputs, spans, GROUPS)
    torch.testing.assert_close(result.image_LT, image_LT, atol=1e-4, rtol=0)
    torch.testing.assert_close(result.text_LT, text_LT, atol=1e-4, rtol=0)
    for map_LI, group in zip(result.image_PLI, GROUPS, strict=True):
        mean_L = image_LT[:, group].mean(1)
        torch.testing.assert_close(map_LI.sum(1), mean_L, atol=1e-4, rtol=0)


def test_a_batch_padding_and_an_empty_group_are_refused(
    tiny: LoadedModel, prompt: tuple[dict, attention.TokenSpans]
) -> None:
    inputs, spans = prompt
    with pytest.raises(ValueError, match="no response token"):
        image_token_map(tiny.model, inputs, spans, [[]])
    padded = inputs | {"attention_mask": inputs["attention_mask"].clone()}
    padded["attention_mask"][0, 0] = 0
    with pytest.raises(ValueError, match="without padding"):
        image_token_map(tiny.model, padded, spans, GROUPS)


def test_the_attention_setting_of_the_model_is_restored(
    tiny: LoadedModel, prompt: tuple[dict, attention.TokenSpans]
) -> None:
    before = tiny.model.get_decoder().config._attn_implementation
    image_token_map(tiny.model, *prompt, GROUPS)
    assert tiny.model.get_decoder().config._attn_implementation == before
