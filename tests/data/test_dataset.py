"""Every source gives samples; the fingerprint changes if and only if the samples would change.

DataConfig() without a source has the source shapes, which generates samples. Those of its split
`pool` are for training.
"""

import base64
import os
import shutil
from itertools import islice

import pytest

from difftrain import images
from difftrain.config.data import BoxFormat, DataConfig, Duplicates, Source
from difftrain.data import dataset
from difftrain.data.quarantine import RejectedRow
from difftrain.pipeline import manifest
from difftrain.records import Sample
from difftrain.shapes import pool
from difftrain.shapes.pool import Split

ROW = {"image_paths": ["images/red.png"], "prompt": "How many?", "ground_truth": "1"}


def jsonl_config(path, **settings):
    return DataConfig(source=Source.jsonl, path=str(path), **settings)


def test_source_shapes_yields_the_samples_of_split_pool():
    config = DataConfig(num_samples=12, world_seed=3)
    assert list(dataset.load_samples(config)) == list(pool.samples(Split.pool, 12, 3, config.mix))


def test_shapes_images_fit_the_pixel_budget_without_resizing():
    config = DataConfig()
    budget = images.PixelBudget(config.min_pixels, config.max_pixels)
    for sample in islice(dataset.load_samples(config), 12):
        assert isinstance(sample, Sample)
        decoded = images.decode(sample.images[0], budget)
        assert decoded.size == decoded.original_size


def test_a_limit_reads_only_the_first_rows(write_rows):
    assert len(list(dataset.load_samples(DataConfig(limit=5)))) == 5
    path = write_rows("nonsense", ROW, {**ROW, "ground_truth": "2"})
    types = [type(row) for row in dataset.load_samples(jsonl_config(path, limit=2))]
    assert types == [RejectedRow, Sample]


def test_the_fingerprint_changes_with_the_file_and_not_with_its_folder(write_rows, tmp_path):
    path = write_rows(ROW)
    before = dataset.fingerprint(jsonl_config(path))
    shutil.copytree(tmp_path / "images", tmp_path / "elsewhere" / "images")
    moved = shutil.copy(path, tmp_path / "elsewhere" / path.name)
    assert dataset.fingerprint(jsonl_config(moved)) == before
    path.write_text(path.read_text() + "{}\n")
    assert dataset.fingerprint(jsonl_config(path)) != before


def test_the_inputs_have_a_fingerprint_of_the_files_content(write_rows):
    path = write_rows(ROW)
    assert dataset.inputs(jsonl_config(path))["my.jsonl"] == manifest.file_fingerprint(path)
    assert dataset.inputs(DataConfig()) == {}


def test_the_fingerprint_changes_with_an_images_size_and_not_with_its_date(write_rows, tmp_path):
    path = write_rows(ROW)
    before = dataset.fingerprint(jsonl_config(path))
    image = tmp_path / "images" / "red.png"
    os.utime(image, (1, 1))  # access and modification time, in seconds since 1970
    assert dataset.fingerprint(jsonl_config(path)) == before
    image.write_bytes(image.read_bytes() + b"0")
    changed = dataset.fingerprint(jsonl_config(path))
    assert changed != before
    image.unlink()
    assert dataset.fingerprint(jsonl_config(path)) not in (before, changed)


def test_an_image_stored_in_a_row_adds_no_fingerprint_to_that_of_the_file(write_rows):
    encoded = base64.b64encode(
        (write_rows(ROW).parent / "images" / "red.png").read_bytes()
    ).decode()
    path = write_rows({**ROW, "image_paths": [f"data:image/png;base64,{encoded}"]})
    assert dataset.inputs(jsonl_config(path)).keys() == {"my.jsonl"}


@pytest.mark.parametrize(
    "change",
    [
        {"limit": 3},
        {"duplicates": Duplicates.keep},
        {"tasks": ["math"]},
        {"box_format": BoxFormat.relative},
        {"min_pixels": 784},
        {"max_pixels": 200_704},
    ],
)
def test_the_fingerprint_changes_with_settings_that_change_rows_of_a_file(write_rows, change):
    path = write_rows(ROW)
    assert dataset.fingerprint(jsonl_config(path, **change)) != dataset.fingerprint(
        jsonl_config(path)
    )


@pytest.mark.parametrize("change", [{"limit": 3}, {"num_samples": 20}, {"world_seed": 1}])
def test_the_fingerprint_changes_with_settings_that_change_samples_of_source_shapes(change):
    assert dataset.fingerprint(DataConfig(**change)) != dataset.fingerprint(DataConfig())


def test_the_fingerprint_ignores_settings_that_its_source_does_not_use(write_rows):
    path = write_rows(ROW)
    assert dataset.fingerprint(jsonl_config(path, num_samples=20)) == dataset.fingerprint(
        jsonl_config(path)
    )
    assert dataset.fingerprint(DataConfig(box_format=BoxFormat.relative)) == dataset.fingerprint(
        DataConfig()
    )


def test_pixel_limits_that_would_resize_the_images_of_source_shapes_are_refused():
    # They have 112 x 112 = 12,544 pixels.
    assert [key for key, _ in DataConfig(max_pixels=10_000).check()] == ["max_pixels"]
    assert [key for key, _ in DataConfig(min_pixels=20_000).check()] == ["min_pixels"]
    assert not list(DataConfig().check())
