"""Fixtures that many tests share: the tiny model, generated samples, image files."""

import os
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw

from difftrain.config.model import Dtype, ModelConfig
from difftrain.model.loading import LoadedModel, load
from difftrain.records import Sample
from difftrain.shapes import pool

Encode = Callable[..., bytes]

MIN_PIXELS, MAX_PIXELS = 56 * 56, 112 * 112  # 4 to 16 image tokens


@pytest.fixture(scope="session")
def tiny() -> LoadedModel:
    """The tiny model that comes with difftrain, loaded like any other model."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(2)
    return load(ModelConfig(name="tiny", dtype=Dtype.float32), MIN_PIXELS, MAX_PIXELS)


@pytest.fixture(scope="session")
def shapes_samples() -> list[Sample]:
    """The first 24 generated samples (drawings of colored shapes) of the training pool."""
    return list(pool.samples(pool.Split.pool, 24))


@pytest.fixture(scope="session")
def encode() -> Encode:
    """A function from an image to the bytes of an image file."""

    def encoded(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
        buffer = BytesIO()
        image.save(buffer, format=file_format, **options)
        return buffer.getvalue()

    return encoded


@pytest.fixture(scope="session")
def red_square() -> Image.Image:
    """A white image of 800 x 600 pixels with a red rectangle from (200, 150) to (400, 450)."""
    image = Image.new("RGB", (800, 600), "white")
    ImageDraw.Draw(image).rectangle((200, 150, 399, 449), fill=(255, 0, 0))
    return image
