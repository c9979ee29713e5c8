"""The images of the probe's requests, prepared in this process or in workers."""

import multiprocessing
import os
import signal
from base64 import b64decode
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from difftrain import images
from difftrain.model.engines.types import DataUrl
from difftrain.probe import masks, views
from difftrain.probe.views import ViewPool, ViewSpec
from difftrain.records import Sample


@pytest.fixture
def spec(shapes_samples: list[Sample]) -> ViewSpec:
    """A masked view of a sample with two images."""
    pngs = shapes_samples[0].images[0], shapes_samples[1].images[0]
    return ViewSpec(pngs, percent=40, mask_seeds=(7, 8))


def test_a_view_has_the_masks_of_its_seeds(spec: ViewSpec) -> None:
    for png, seed, image in zip(spec.pngs, spec.mask_seeds, views.prepare(spec), strict=True):
        assert isinstance(image, Image.Image)
        pixels = np.asarray(images.from_png(png))
        assert (np.asarray(image) == masks.mask(pixels, 40, seed)).all()


@pytest.mark.parametrize("png_level", [0, 1, 9])
def test_a_server_gets_the_pixels_unchanged_at_every_level(spec: ViewSpec, png_level: int) -> None:
    encoded = views.prepare(replace(spec, png_level=png_level))
    for image, url in zip(views.prepare(spec), encoded, strict=True):
        assert isinstance(image, Image.Image)
        assert isinstance(url, DataUrl)
        assert url.size == image.size
        png = b64decode(url.url.removeprefix("data:image/png;base64,"))
        assert images.from_png(png).tobytes() == image.tobytes()


def test_the_number_of_workers_changes_no_image(spec: ViewSpec) -> None:
    pool = ViewPool(2)
    specs = {(f"sample {i}", i): replace(spec, mask_seeds=(i, i + 1)) for i in range(6)}
    try:
        for key, masked in specs.items():
            assert pool.is_new(key)
            pool.submit(key, masked)
            assert not pool.is_new(key)
        for key, masked in specs.items():
            assert pool.take(key) == views.prepare(masked)
    finally:
        pool.close()


def test_without_workers_nothing_is_prepared_ahead() -> None:
    pool = ViewPool(0)
    assert not pool.is_new(("sample", 1))
    assert pool.is_ready(("sample", 1))
    assert pool.num_ahead == 0
    assert pool.take(("sample", 1)) is None


def test_if_a_worker_dies_the_probe_prepares_the_images_itself(
    spec: ViewSpec, caplog: pytest.LogCaptureFixture
) -> None:
    others = multiprocessing.active_children()
    pool = ViewPool(1)
    key = ("sample", 1)
    pool.submit(key, spec)
    assert pool.take(key) == views.prepare(spec)
    (process,) = (child for child in multiprocessing.active_children() if child not in others)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    pool.submit(key, spec)
    assert pool.take(key) is None
    assert "a process that prepares images died" in caplog.text
    assert not pool.is_new(key)
