"""The report of a large pool stays small, and its figures say what the numbers say."""

from base64 import b64decode
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from random import Random
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from difftrain.images import to_png
from difftrain.pipeline import parquet
from difftrain.records import Sample
from difftrain.report import html, overview
from difftrain.report.build import build_report
from difftrain.report.inputs import RunData, RunInputs, load_run

MakeRun = Callable[..., RunInputs]
POOL_SIZE = 47_000
NUM_TASKS = 8
MAX_BYTES = 5_000_000


def photo(seed: int) -> bytes:
    """A PNG of noise, which no format stores in few bytes: 1.5 MB."""
    pixels = np.random.default_rng(seed).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    return to_png(Image.fromarray(pixels))


@pytest.fixture(scope="module")
def large_run(make_run: MakeRun) -> tuple[RunInputs, RunData]:
    """A run whose examples are large photos, with the scores of 47,000 synthetic samples."""
    inputs = make_run(size=36)
    photos = [photo(seed) for seed in range(2)]
    samples = parquet.read_rows(inputs.data, Sample)
    rows = [replace(row, images=[photos[i % 2]]) for i, row in enumerate(samples)]
    parquet.write_all(inputs.data, rows)
    data, rng = load_run(inputs), Random(1)
    copies = data.samples.iloc[[rng.randrange(36) for _ in range(POOL_SIZE - 36)]].copy()
    # Examples are the first ids. These come after the 36 real samples, which have images.
    copies["sample_id"] = [f"z{number:05}" for number in range(len(copies))]
    pool = pd.concat([data.samples, copies], ignore_index=True)
    pool["task"] = [f"task {number % NUM_TASKS}" for number in range(len(pool))]
    pool["cmab"] *= np.random.default_rng(2).lognormal(0, 0.3, len(pool))
    counts = {"rows": POOL_SIZE + 2, "samples": POOL_SIZE}
    manifests = dict(data.manifests)
    manifests["data"] = manifests["data"] | {"counts": manifests["data"]["counts"] | counts}
    return inputs, replace(data, samples=pool, manifests=manifests)


def test_the_report_of_47_000_samples_with_photos_is_below_five_megabytes(
    large_run: tuple[RunInputs, RunData],
) -> None:
    inputs, data = large_run
    report = build_report(inputs, data)
    assert report["counts"]["samples"] == POOL_SIZE + 2
    page = html.render_page(inputs, data, report)
    assert page.count('<img src="data:image/jpeg') == 16  # four examples of each stratum
    assert len(page.encode()) < MAX_BYTES


def test_a_large_image_is_shown_smaller_and_a_small_one_as_it_is() -> None:
    url = html.image_url(photo(0))
    content = b64decode(url.removeprefix("data:image/jpeg;base64,"))
    assert Image.open(BytesIO(content)).size == (320, 320)
    small = to_png(Image.new("RGB", (112, 112), "red"))
    assert b64decode(html.image_url(small).removeprefix("data:image/png;base64,")) == small


def texts(draw: Any, *args: object) -> list[str]:
    """The texts in a figure, before it becomes an SVG."""
    figure = draw.__wrapped__(*args)
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_the_figures_name_the_strata_and_their_shares(make_run: MakeRun) -> None:
    inputs = make_run(size=45)
    data = load_run(inputs)
    report = build_report(inputs, data)
    strata = report["counts"]["strata"]
    flow = texts(overview.sample_flow, report)
    shares = {stratum: f"{100 * count / 47:.1f} %" for stratum, count in strata.items()}
    assert {f"{name}  {strata[name]} ({shares[name]})" for name in strata} < {*flow}
    assert {"47 rows", "rejected  2 (4.3 %)", "trained on (grpo)  20"} < {*flow}
    survival = texts(overview.survival_curve, data.samples, inputs.settings)
    assert {f"{name}: {100 * count / 45:.1f} %" for name, count in strata.items()} < {*survival}
    examples = html.examples_by_stratum(inputs, data, 1)
    ladders = texts(overview.failure_ladders, examples, inputs.settings)
    ratio = examples["hard"][0]["failure_ratio"]
    assert f"λ* = {ratio:.1f}" in ladders
    assert "0 of 4" in ladders
    assert examples["hard"][0]["draws"][round(100 * ratio)] == (0, 4)
    times = texts(overview.stage_times, report)
    assert any(text.startswith("7 min") for text in times)  # the probe's 412 seconds


def test_the_page_has_a_dark_and_a_print_style_and_folds_its_settings(
    run_and_report: tuple[RunInputs, dict],
) -> None:
    page = (run_and_report[0].folder / "report.html").read_text()
    assert "@media (prefers-color-scheme: dark)" in page
    assert "@media print" in page
    folded = page.partition("<summary>All settings</summary>")[0].rsplit("<details", 1)[1]
    assert folded.startswith(">")  # closed until it is opened
