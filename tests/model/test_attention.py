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
RESPONSES = [(5, 6, 7), (8,), tuple(range(20, 31))]


def noise(height: int, width: int) -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))


def inputs(
    tiny: LoadedModel, images_per_row: list[list[Image.Image]]
) -> tuple[dict, attention.TokenSpans]:
    """Teacher-forced inputs of questions of different length, with their spans."""
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
    return [[noise(112, 112)], [noise(56, 84), noise(112, 56)], [noise(84, 112)]]


def masses(tiny: LoadedModel, images_per_row: list[list[Image.Image]]) -> list:
    tensors, spans = inputs(tiny, images_per_row)
    return attention.masses(tiny.model, tensors, spans.image_BS, spans.text_BS, spans.response_BS)


@torch.inference_mode()
def eager_masses(tiny: LoadedModel, images_per_row: list[list[Image.Image]]) -> list:
    tensors, spans = inputs(tiny, images_per_row)
    tiny.model.set_attn_implementation("eager")
    try:
        layers = tiny.model(**tensors, output_attentions=True, use_cache=False).attentions
    finally:
        tiny.model.set_attn_implementation("sdpa")
    rows = []
    for row in range(len(RESPONSES)):
        table = torch.stack([layer[row].mean(0)[spans.response_BS[row]] for layer in layers])
        rows.append((table @ spans.image_BS[row].float(), table @ spans.text_BS[row].float()))
    return rows


def test_masses_equal_eager_attention_on_a_padded_batch(
    tiny: LoadedModel, images_per_row: list[list[Image.Image]]
) -> None:
    expected_rows = eager_masses(tiny, images_per_row)
    for row, expected_row in zip(masses(tiny, images_per_row), expected_rows, strict=True):
        for table, expected in zip(row, expected_row, strict=True):
            assert table.shape == expected.shape
            assert table.dtype == torch.float32
            torch.testing.assert_close(table, expected, atol=1e-4, rtol=0)


def test_masses_have_one_row_per_layer_and_one_column_per_response_token(
    tiny: LoadedModel, images_per_row: list[list[Image.Image]]
) -> None:
    tables = masses(tiny, images_per_row)
    assert [image.shape for image, _ in tables] == [(4, 3), (4, 1), (4, 11)]
    for image, text in tables:
        assert ((image + text) <= 1 + 1e-5).all()
        assert (image > 0).all()
        assert (text > 0).all()


def test_a_black_image_changes_the_masses(
    tiny: LoadedModel, images_per_row: list[list[Image.Image]]
) -> None:
    black = [[Image.new("RGB", image.size) for image in row] for row in images_per_row]
    for (image, _), (black_image, _) in zip(
        masses(tiny, images_per_row), masses(tiny, black), strict=True
    ):
        assert (image - black_image).abs().max() > 1e-4


def test_a_row_has_the_same_masses_alone_and_in_a_batch(
    tiny: LoadedModel, images_per_row: list[list[Image.Image]]
) -> None:
    tensors, spans = inputs(tiny, images_per_row)
    is_token = tensors["attention_mask"][0].bool()
    alone = {
        "input_ids": tensors["input_ids"][:1, is_token],
        "attention_mask": tensors["attention_mask"][:1, is_token],
        "mm_token_type_ids": tensors["mm_token_type_ids"][:1, is_token],
        "pixel_values": tensors["pixel_values"][: int(tensors["image_grid_thw"][0].prod())],
        "image_grid_thw": tensors["image_grid_thw"][:1],
    }
    unpadded = [span[:1, is_token] for span in (spans.image_BS, spans.text_BS, spans.response_BS)]
    (image, text), *_ = attention.masses(tiny.model, alone, *unpadded)
    batch_image, batch_text = masses(tiny, images_per_row)[0]
    torch.testing.assert_close(image, batch_image, atol=1e-4, rtol=0)
    torch.testing.assert_close(text, batch_text, atol=1e-4, rtol=0)


def test_the_models_attention_setting_is_restored_even_after_an_error(
    tiny: LoadedModel, images_per_row: list[list[Image.Image]]
) -> None:
    config = tiny.model.get_decoder().config
    before = config._attn_implementation
    tensors, spans = inputs(tiny, images_per_row)
    with pytest.raises(ValueError, match="image indicator"):
        attention.masses(
            tiny.model, tensors, spans.image_BS[:, 1:], spans.text_BS, spans.response_BS
        )
    broken = {**tensors, "pixel_values": tensors["pixel_values"][1:]}
    with pytest.raises((RuntimeError, ValueError)):
        attention.masses(tiny.model, broken, spans.image_BS, spans.text_BS, spans.response_BS)
    assert config._attn_implementation == before


def test_every_position_is_padding_text_image_or_response(
    tiny: LoadedModel, images_per_row: list[list[Image.Image]]
) -> None:
    tensors, spans = inputs(tiny, images_per_row)
    padding = tensors["attention_mask"] == 0
    parts = torch.stack([padding, spans.image_BS, spans.text_BS, spans.response_BS]).int()
    assert (parts.sum(0) == 1).all()
    assert spans.image_BS.sum(1).tolist() == [16, 6 + 8, 12]


def test_before_image_keeps_only_the_text_before_the_first_image(
    tiny: LoadedModel, images_per_row: list[list[Image.Image]]
) -> None:
    tensors, spans = inputs(tiny, images_per_row)
    lengths = [len(response) for response in RESPONSES]
    before = attention.token_spans(tensors, lengths, tiny.image_token, TextSpan.before_image)
    for row, first_image in enumerate(spans.image_BS.int().argmax(1)):
        assert not before.text_BS[row, first_image:].any()
        assert (before.text_BS[row, :first_image] == spans.text_BS[row, :first_image]).all()
