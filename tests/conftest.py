"""Fixtures that many tests share: the shipped tiny model, drawn samples, image files."""

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

MIN_PIXELS, MAX_PIXELS = 3136, 12544


@pytest.fixture(scope="session")
def tiny() -> LoadedModel:
    """The shipped tiny model, loaded like any other model."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(2)
    return load(ModelConfig(name="tiny", dtype=Dtype.float32), MIN_PIXELS, MAX_PIXELS)


@pytest.fixture(scope="session")
def shapes_samples() -> list[Sample]:
    """The first two dozen samples of the default pool."""
    return list(pool.samples(pool.Split.pool, 24))


@pytest.fixture(scope="session")
def encode() -> Encode:
    """A function that returns an image as the bytes of an image file."""

    def encoded(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
        buffer = BytesIO()
        image.save(buffer, format=file_format, **options)
        return buffer.getvalue()

    return encoded


@pytest.fixture(scope="session")
def red_square() -> Image.Image:
    """800 x 600 white, red from (200, 150) to (400, 450)."""
    image = Image.new("RGB", (800, 600), "white")
    ImageDraw.Draw(image).rectangle((200, 150, 399, 449), fill=(255, 0, 0))
    return image
