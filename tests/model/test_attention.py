"""Attention masses (the share of attention on image or text tokens) equal eager attention's.

Axes: B rows of the batch, S positions of prompt and response, L layers, T response tokens.
"""

import numpy as np
import pytest
import torch
from PIL import Image

from difftrain.config.difficulty import TextSpan
from difftrain.model import attention
from difftrain.model.engines import kv_cache
from difftrain.model.engines.types import Request
from difftrain.model.loading import LoadedModel
from difftrain.probe.attention_pass import append_responses

RNG = np.random.default_rng(3)
RESPONSES = [(5, 6, 7), (8,), tuple(range(20, 31))]  # arbitrary token ids: 3, 1 and 11 tokens


def noise_image(height: int, width: int) -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))


def build_inputs(
    tiny: LoadedModel, images_per_row: list[list[Image.Image]]
) -> tuple[dict, attention.TokenSpans]:
    """A left-padded batch of prompts with their RESPONSES, and its token spans.

    The spans say which positions are image, text of the prompt, or response.
    """
    texts = ["How many?", "Count the red shapes and add 3.", "Read the letters. " * 3]
    requests = [
        Request(parts=(*images, text), max_new_tokens=8)
        for images, text in zip(images_per_row, texts, strict=True)
    ]
    pad = tiny.processor.tokenizer.pad_token_id
    tensors = append_responses(kv_cache.encode(tiny, requests), RESPONSES, pad)
    lengths = [len(response) for response in RESPONSES]
    return tensors, attention.token_spans(tensors, lengths, tiny.image_token, TextSpan.prompt)


@pytest.fixture
def images_per_row() -> list[list[Image.Image]]:
    """The images of each prompt: one, two and one."""
    return [
        [noise_image(112, 112)],
        [noise_image(56, 84), noise_image(112, 56)],
        [noise_image(84, 112)],
    ]


def compute_masses(tiny: LoadedModel, images_per_row: list[list[Image.Image]]) -> list:
    """The image and text masses of each row."""
    tensors, spans = build_inputs(tiny, images_per_row)
    return attention.masses(tiny.model, tensors, spans.image_BS, spans.text_BS, spans.response_BS)


@torch.inference_mode()
def eager_masses(tiny: LoadedModel, images_per_row: list[list[Image.Image]]) -> list:
    """The same masses, from the attention matrices that transformers returns."""
    tensors, spans = build_inputs(tiny, images_per_row)
    tiny.model.set_attn_implementation("eager")
    try:
        layers = tiny.model(**tensors, output_attentions=True, use_cache=False).attentions
    finally:
        tiny.model.set_attn_implementation("sdpa")
    rows = []
    for row in range(len(RESPONSES)):
        attention_LTS = torch.stack(
            [layer[row].mean(0)[spans.response_BS[row]] for layer in layers]
        )
        rows.append(
            (
                attention_LTS @ spans.image_BS[row].float(),
                attention_LTS @ spans.text_BS[row].float(),
            )
        )
    return rows


def test_masses_equal_eager_attention_on_a_padded_batch(
    tiny: LoadedModel, images_per_row: list[list[Image.Image]]
) -> None:
    expected_rows = eager_masses(tiny, images_per_row)
    rows = compute_masses(tiny, images_per_row)
    for row, expected_row in zip(rows, expected_rows, strict=True):
        for masses, expected in zip(row, expected_row, strict=True):
            assert masses.shape == expected.shape
            assert masses.dtype == torch.float32
            torch.testing.assert_close(masses, expected, atol=1e-4, rtol=0)


def test_masses_have_one_row_per_layer_and_one_column_per_response_token(
    tiny: LoadedModel, images_per_row: list[list[Image.Image]]
) -> None:
    rows = compute_masses(tiny, images_per_row)
    # The tiny model has 4 layers; the responses have 3, 1 and 11 tokens.
    assert [image.shape for image, _ in rows] == [(4, 3), (4, 1), (4, 11)]
    for image, text in rows:
        assert ((image + text) <= 1 + 1e-5).all()
        assert (image > 0).all()
        assert (text > 0).all()


def test_the_masses_change_if_all_images_are_black(
    tiny: LoadedModel, images_per_row: list[list[Image.Image]]
) -> None:
    black_images = [[Image.new("RGB", image.size) for image in row] for row in images_per_row]
    for (image, _), (black_image, _) in zip(
        compute_masses(tiny, images_per_row), compute_masses(tiny, black_images), strict=True
    ):
        assert (image - black_image).abs().max() > 1e-4


def test_a_row_has_the_same_masses_alone_and_in_a_batch(
    tiny: LoadedModel, images_per_row: list[list[Image.Image]]
) -> None:
    tensors, spans = build_inputs(tiny, images_per_row)
    is_token = tensors["attention_mask"][0].bool()
    first_row = {
        "input_ids": tensors["input_ids"][:1, is_token],
        "attention_mask": tensors["attention_mask"][:1, is_token],
        "mm_token_type_ids": tensors["mm_token_type_ids"][:1, is_token],
        "pixel_values": tensors["pixel_values"][: int(tensors["image_grid_thw"][0].prod())],
        "image_grid_thw": tensors["image_grid_thw"][:1],
    }
    unpadded = [span[:1, is_token] for span in (spans.image_BS, spans.text_BS, spans.response_BS)]
    (image, text), *_ = attention.masses(tiny.model, first_row, *unpadded)
    batch_image, batch_text = compute_masses(tiny, images_per_row)[0]
    torch.testing.assert_close(image, batch_image, atol=1e-4, rtol=0)
    torch.testing.assert_close(text, batch_text, atol=1e-4, rtol=0)


def test_the_models_attention_setting_is_restored_even_after_an_error(
    tiny: LoadedModel, images_per_row: list[list[Image.Image]]
) -> None:
    config = tiny.model.get_decoder().config
    before = config._attn_implementation
    tensors, spans = build_inputs(tiny, images_per_row)
    with pytest.raises(ValueError, match="image indicator"):
        attention.masses(
            tiny.model, tensors, spans.image_BS[:, 1:], spans.text_BS, spans.response_BS
        )
    # One patch fewer than image_grid_thw says: the forward pass fails.
    broken = {**tensors, "pixel_values": tensors["pixel_values"][1:]}
    with pytest.raises((RuntimeError, ValueError)):
        attention.masses(tiny.model, broken, spans.image_BS, spans.text_BS, spans.response_BS)
    assert config._attn_implementation == before


def test_every_position_is_padding_text_image_or_response(
    tiny: LoadedModel, images_per_row: list[list[Image.Image]]
) -> None:
    tensors, spans = build_inputs(tiny, images_per_row)
    padding = tensors["attention_mask"] == 0
    parts = torch.stack([padding, spans.image_BS, spans.text_BS, spans.response_BS]).int()
    assert (parts.sum(0) == 1).all()
    # One token per 28 x 28 pixels: 4 x 4, then 2 x 3 and 4 x 2, then 3 x 4.
    assert spans.image_BS.sum(1).tolist() == [16, 6 + 8, 12]


def test_before_image_keeps_only_the_text_before_the_first_image(
    tiny: LoadedModel, images_per_row: list[list[Image.Image]]
) -> None:
    tensors, spans = build_inputs(tiny, images_per_row)
    lengths = [len(response) for response in RESPONSES]
    before = attention.token_spans(tensors, lengths, tiny.image_token, TextSpan.before_image)
    for row, first_image in enumerate(spans.image_BS.int().argmax(1)):
        assert not before.text_BS[row, first_image:].any()
        assert (before.text_BS[row, :first_image] == spans.text_BS[row, :first_image]).all()
