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
    tiny: LoadedModel, pictures: list[list[Image.Image]]
) -> tuple[dict, attention.TokenSpans]:
    """Teacher-forced inputs of questions of different length, with their spans."""
    words = ["How many?", "Count the red shapes and add 3.", "Read the letters. " * 3]
    requests = [
        Request(parts=(*images, text), max_new_tokens=8)
        for images, text in zip(pictures, words, strict=True)
    ]
    pad = tiny.processor.tokenizer.pad_token_id
    found = append_responses(kv_cache.encode(tiny, requests), RESPONSES, pad)
    lengths = [len(response) for response in RESPONSES]
    marked = attention.token_spans(
        found["input_ids"], found["attention_mask"], lengths, tiny.image_token, TextSpan.prompt
    )
    return found, marked


@pytest.fixture
def pictures() -> list[list[Image.Image]]:
    return [[noise(112, 112)], [noise(56, 84), noise(112, 56)], [noise(84, 112)]]


def masses(tiny: LoadedModel, pictures: list[list[Image.Image]]) -> list:
    found, marked = inputs(tiny, pictures)
    return attention.masses(tiny.model, found, marked.image_BS, marked.text_BS, marked.response_BS)


@torch.inference_mode()
def eager(tiny: LoadedModel, pictures: list[list[Image.Image]]) -> list:
    found, marked = inputs(tiny, pictures)
    tiny.model.set_attn_implementation("eager")
    try:
        layers = tiny.model(**found, output_attentions=True, use_cache=False).attentions
    finally:
        tiny.model.set_attn_implementation("sdpa")
    rows = []
    for row in range(len(RESPONSES)):
        table = torch.stack([layer[row].mean(0)[marked.response_BS[row]] for layer in layers])
        rows.append((table @ marked.image_BS[row].float(), table @ marked.text_BS[row].float()))
    return rows


def test_masses_equal_eager_attention_on_a_padded_batch(
    tiny: LoadedModel, pictures: list[list[Image.Image]]
) -> None:
    for ours, theirs in zip(masses(tiny, pictures), eager(tiny, pictures), strict=True):
        for mine, reference in zip(ours, theirs, strict=True):
            assert mine.shape == reference.shape
            assert mine.dtype == torch.float32
            torch.testing.assert_close(mine, reference, atol=1e-4, rtol=0)


def test_masses_have_a_row_a_layer_and_a_column_a_response_token(
    tiny: LoadedModel, pictures: list[list[Image.Image]]
) -> None:
    found = masses(tiny, pictures)
    assert [image.shape for image, _ in found] == [(4, 3), (4, 1), (4, 11)]
    for image, text in found:
        assert ((image + text) <= 1 + 1e-5).all()
        assert (image > 0).all()
        assert (text > 0).all()


def test_a_black_image_changes_the_masses(
    tiny: LoadedModel, pictures: list[list[Image.Image]]
) -> None:
    black = [[Image.new("RGB", each.size) for each in row] for row in pictures]
    for (image, _), (dark, _) in zip(masses(tiny, pictures), masses(tiny, black), strict=True):
        assert (image - dark).abs().max() > 1e-4


def test_a_row_alone_has_the_masses_it_has_in_a_batch(
    tiny: LoadedModel, pictures: list[list[Image.Image]]
) -> None:
    found, marked = inputs(tiny, pictures)
    keep = found["attention_mask"][0].bool()
    alone = {
        "input_ids": found["input_ids"][:1, keep],
        "attention_mask": found["attention_mask"][:1, keep],
        "mm_token_type_ids": found["mm_token_type_ids"][:1, keep],
        "pixel_values": found["pixel_values"][: int(found["image_grid_thw"][0].prod())],
        "image_grid_thw": found["image_grid_thw"][:1],
    }
    cut = [each[:1, keep] for each in (marked.image_BS, marked.text_BS, marked.response_BS)]
    (image, text), *_ = attention.masses(tiny.model, alone, *cut)
    batch_image, batch_text = masses(tiny, pictures)[0]
    torch.testing.assert_close(image, batch_image, atol=1e-4, rtol=0)
    torch.testing.assert_close(text, batch_text, atol=1e-4, rtol=0)


def test_the_models_attention_setting_is_restored_even_after_an_error(
    tiny: LoadedModel, pictures: list[list[Image.Image]]
) -> None:
    config = tiny.model.get_decoder().config
    before = config._attn_implementation
    found, marked = inputs(tiny, pictures)
    with pytest.raises(ValueError, match="image indicator"):
        attention.masses(
            tiny.model, found, marked.image_BS[:, 1:], marked.text_BS, marked.response_BS
        )
    broken = {**found, "pixel_values": found["pixel_values"][1:]}
    with pytest.raises((RuntimeError, ValueError)):
        attention.masses(tiny.model, broken, marked.image_BS, marked.text_BS, marked.response_BS)
    assert config._attn_implementation == before


def test_every_position_is_padding_text_image_or_response(
    tiny: LoadedModel, pictures: list[list[Image.Image]]
) -> None:
    found, marked = inputs(tiny, pictures)
    padding = found["attention_mask"] == 0
    parts = torch.stack([padding, marked.image_BS, marked.text_BS, marked.response_BS]).int()
    assert (parts.sum(0) == 1).all()
    assert marked.image_BS.sum(1).tolist() == [16, 6 + 8, 12]


def test_the_released_span_keeps_only_text_before_the_first_image(
    tiny: LoadedModel, pictures: list[list[Image.Image]]
) -> None:
    found, whole = inputs(tiny, pictures)
    before = attention.token_spans(
        found["input_ids"],
        found["attention_mask"],
        [len(response) for response in RESPONSES],
        tiny.image_token,
        TextSpan.before_image,
    )
    first = whole.image_BS.int().argmax(1)
    for row, place in enumerate(first):
        assert not before.text_BS[row, place:].any()
        assert (before.text_BS[row, :place] == whole.text_BS[row, :place]).all()
