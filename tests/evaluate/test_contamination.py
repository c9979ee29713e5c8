"""Contamination: training samples with an image or a question of a benchmark are found.

shapes/NAME is a built-in imitation of the benchmark NAME, with generated drawings as images.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from difftrain.config.evaluate import ContaminationPolicy, EvaluateConfig, ItemSource
from difftrain.config.run_config import ConfigError, RunConfig
from difftrain.evaluate import contamination
from difftrain.evaluate.contamination import Overlap, SampleOverlap
from difftrain.evaluate.loading import BenchmarkItem, load_items
from difftrain.images import PixelBudget
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.paths import RunPaths
from difftrain.recipes import benchmarks
from difftrain.records import Measure, Sample, Score, Selection, Stratum, TrainStage
from difftrain.shapes import pool

BUDGET = PixelBudget(3136, 12544)  # minimum and maximum of pixels per image
CONFIG = EvaluateConfig(benchmarks=["shapes/MMStar"], limit=3)
# Questions of fewer than 20 words are not compared.
LONG_QUESTION = f"A train leaves a town at noon and drives {'on and ' * 12}on: when does it arrive?"
ITEM_ROW = load_items(CONFIG)[0].row
UNRELATED = list(pool.samples(pool.Split.pool, 6))  # of the generated training samples


def mmstar_in(folder: Path) -> EvaluateConfig:
    """MMStar with the items in this folder, however few."""
    return EvaluateConfig(
        benchmarks=["MMStar"],
        source=ItemSource.folder,
        path=str(folder),
        allow_count_mismatch=True,
    )


def sample(name: str, **changed: object) -> Sample:
    """An unrelated sample with another id and changed fields."""
    return replace(UNRELATED[0], sample_id=name, **changed)  # type: ignore[arg-type]  (any field)


def jpeg(png: bytes) -> bytes:
    """The image as a JPEG, whose pixels differ a little."""
    buffer = BytesIO()
    Image.open(BytesIO(png)).convert("RGB").save(buffer, "JPEG", quality=98, subsampling=0)
    return buffer.getvalue()


# The first three samples use the image of a benchmark item.
SAME_ITEM = sample("same", images=(ITEM_ROW["image"],), question=ITEM_ROW["question"].upper())
OTHER_QUESTION = sample(
    "other question", images=(UNRELATED[1].images[0], ITEM_ROW["image"]), question="Why?"
)
NEAR_IMAGE = sample("near", images=(jpeg(ITEM_ROW["image"]),), question="Why?")
SAMPLES = [SAME_ITEM, OTHER_QUESTION, NEAR_IMAGE, *UNRELATED]


def compare(folder: Path) -> dict[str, SampleOverlap]:
    """Compare SAMPLES with the benchmarks; returns sample id -> its row in the folder."""
    contamination.compare_with_benchmarks(SAMPLES, folder, CONFIG, BUDGET, World())
    return {row.sample_id: row for row in parquet.read_rows(folder, SampleOverlap)}


@pytest.fixture(scope="module")
def checked_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the finished comparison of SAMPLES."""
    folder = tmp_path_factory.mktemp("contamination")
    compare(folder)
    return folder


def test_an_image_overlaps_by_equal_pixels_and_by_similarity(checked_folder: Path) -> None:
    rows = {row.sample_id: row for row in parquet.read_rows(checked_folder, SampleOverlap)}
    assert rows["same"].kind is Overlap.same_image
    assert rows["same"].same_question
    assert rows["same"].item == "shapes/MMStar/0"
    assert rows["other question"].kind is Overlap.same_image
    assert not rows["other question"].same_question
    assert rows["near"].kind is Overlap.near_image
    assert all(rows[unrelated.sample_id].kind is None for unrelated in UNRELATED)


def test_the_report_lists_which_benchmarks_were_compared_and_which_were_absent(
    checked_folder: Path,
) -> None:
    report = json.loads((checked_folder / "contamination.json").read_text())
    assert report["samples"] == len(SAMPLES)
    # All 300 items of all six built-in benchmarks (shapes/NAME) are checked, not only CONFIG's.
    assert report["checked"]["shapes/MMStar"] == report["checked"]["shapes/MMVet"] == 300
    assert len(report["checked"]) == 6
    assert "MMStar" in report["absent"]
    assert {hit["sample_id"] for hit in report["hits"]} == {"same", "other question", "near"}
    content = manifest.read_manifest(checked_folder)
    assert content is not None
    assert content["counts"] == {"samples": len(SAMPLES), "items": 6 * 300, "hits": 3}


def test_an_equal_long_question_is_an_overlap_and_an_equal_short_one_is_not() -> None:
    items = [replace(load_items(CONFIG)[0], row={**ITEM_ROW, "question": LONG_QUESTION})]
    index = contamination.ItemIndex(items, BUDGET)
    long = sample("long", question=LONG_QUESTION.lower())
    assert index.overlap(long).kind is Overlap.same_question
    short_index = contamination.ItemIndex(load_items(CONFIG), BUDGET)
    assert short_index.overlap(sample("short", question=ITEM_ROW["question"])).kind is None


def test_a_benchmark_image_that_was_resized_for_training_is_the_same_image() -> None:
    large = Image.open(BytesIO(ITEM_ROW["image"])).resize((500, 300))  # above BUDGET's maximum
    buffer = BytesIO()
    large.save(buffer, "PNG")
    items = [replace(load_items(CONFIG)[0], row={**ITEM_ROW, "image": buffer.getvalue()})]
    stored = contamination.images.decode(buffer.getvalue(), BUDGET)
    assert stored.size != (500, 300)
    overlap = contamination.ItemIndex(items, BUDGET).overlap(sample("x", images=(stored.png,)))
    assert overlap.kind is Overlap.same_image


def special_image(kind: str) -> bytes:
    """A file that loaders may read differently: transparent, rotated by EXIF, or 16 bit."""
    noise = np.random.default_rng(0).integers(0, 256, (8, 12), dtype=np.uint8)
    gray = Image.fromarray(noise).resize((120, 80))
    buffer, exif = BytesIO(), Image.Exif()
    if kind == "transparent":
        transparent = Image.new("RGB", gray.size, "black")
        transparent.putalpha(gray)
        transparent.save(buffer, "PNG")
    elif kind == "rotated":
        exif[ExifTags.Base.Orientation] = 6  # rotated by 90 degrees
        gray.convert("RGB").save(buffer, "JPEG", exif=exif)
    else:
        # 257 * 255 is the largest 16 bit value.
        Image.fromarray(np.asarray(gray).astype(np.uint16) * 257).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["transparent", "rotated", "16 bit"])
def test_a_sample_with_a_transparent_rotated_or_16_bit_benchmark_image_is_found(kind: str) -> None:
    items = [replace(load_items(CONFIG)[0], row={**ITEM_ROW, "image": special_image(kind)})]
    stored = contamination.images.decode(special_image(kind), BUDGET)
    overlap = contamination.ItemIndex(items, BUDGET).overlap(sample("x", images=(stored.png,)))
    assert overlap.kind is Overlap.same_image


def test_an_item_whose_image_cannot_be_decoded_has_no_overlap() -> None:
    items = [replace(load_items(CONFIG)[0], row={**ITEM_ROW, "image": b"not an image"})]
    assert contamination.ItemIndex(items, BUDGET).overlap(SAME_ITEM).kind is None


def test_an_interrupted_comparison_is_resumed_and_a_finished_one_is_not_repeated(
    tmp_path: Path,
) -> None:
    row = SampleOverlap(sample_id="same", kind=None, item=None, items=0, same_question=False)
    parquet.write_part(tmp_path, "r000-00000", [row])  # part 0 of rank 0
    assert len(compare(tmp_path)) == len(SAMPLES)
    parts = parquet.parts(tmp_path)
    assert len(parts) == 2  # the part above, and one for the other samples
    compare(tmp_path)
    assert parquet.parts(tmp_path) == parts


def test_training_on_a_benchmark_item_is_an_error_or_by_setting_a_warning(tmp_path: Path) -> None:
    config = RunConfig(output_dir=str(tmp_path), evaluate=CONFIG)
    config.data.min_pixels, config.data.max_pixels = 3136, 12544
    paths = RunPaths(config)
    parquet.write_all(paths.data, SAMPLES)

    def select(*ids: str) -> None:
        """Select these samples to train the model `tuned`."""
        rows = [Selection(sample_id=name, stage=TrainStage.grpo, reason="a test") for name in ids]
        parquet.write_part(paths.selection("tuned"), "00000", rows)

    select(*(unrelated.sample_id for unrelated in UNRELATED))
    benchmarks.check_contamination(config, paths, World(), ["tuned"])
    select("same", "near", UNRELATED[0].sample_id)
    with pytest.raises(ConfigError) as caught:
        benchmarks.check_contamination(config, paths, World(), ["tuned"])
    message = str(caught.value)
    assert "evaluate.contamination=error: 2 of 3 samples to train on are in benchmarks" in message
    assert "same (same image, same question: shapes/MMStar/0)" in message
    assert "near (near image: shapes/MMStar/0)" in message
    assert "other question" not in message  # this sample is not selected
    assert str(paths.contamination / "contamination.json") in message
    config.evaluate = replace(CONFIG, contamination=ContaminationPolicy.warn)
    # The same folder, so the finished comparison is used again.
    assert RunPaths(config).contamination == paths.contamination
    benchmarks.check_contamination(config, RunPaths(config), World(), ["tuned"])


def test_with_rounds_no_scored_sample_may_be_a_benchmark_item(tmp_path: Path) -> None:
    config = RunConfig(output_dir=str(tmp_path), evaluate=CONFIG, rounds=2)
    config.data.min_pixels, config.data.max_pixels = 3136, 12544
    paths = RunPaths(config)
    parquet.write_all(paths.data, SAMPLES)
    rows = [Selection(sample_id=UNRELATED[0].sample_id, stage=TrainStage.grpo, reason="a test")]
    parquet.write_all(paths.selection("tuned"), rows)
    scores = [
        Score(sample_id=id_, measure=Measure.pism, value=None, stratum=Stratum.easy)
        for id_ in ("same", UNRELATED[0].sample_id)
    ]
    parquet.write_all(paths.score, scores)  # a later round may select any of these
    with pytest.raises(ConfigError, match="1 of 2 samples to train on are in benchmarks"):
        benchmarks.check_contamination(config, paths, World(), ["tuned"])


def test_a_benchmark_on_disk_that_is_not_evaluated_is_compared_too(
    tmp_path: Path, hub_rows: Callable, write_folder: Callable
) -> None:
    write_folder(tmp_path, "MMStar", hub_rows("MMStar")[:2])
    config = mmstar_in(tmp_path)
    before = RunPaths(RunConfig(output_dir=str(tmp_path), evaluate=config))
    contamination_before, results_before = before.contamination, before.evaluation("base")
    rows = hub_rows("MathVista")[:3]
    write_folder(tmp_path, "MathVista", rows)
    items, unreadable = contamination.available_items(config)
    assert not unreadable
    index = contamination.ItemIndex(items, BUDGET)
    assert (index.num_items["MMStar"], index.num_items["MathVista"]) == (2, 3)
    stored = contamination.images.decode(rows[2]["decoded_image"]["bytes"], BUDGET)
    assert index.overlap(sample("x", images=(stored.png,))).kind is Overlap.same_image
    paths = RunPaths(RunConfig(output_dir=str(tmp_path), evaluate=config))
    # The new benchmark must be compared too, but it changes no result of the base model.
    assert paths.contamination != contamination_before
    assert paths.evaluation("base") == results_before


def test_an_unreadable_benchmark_that_is_not_evaluated_is_reported_and_left_out(
    tmp_path: Path, hub_rows: Callable, write_folder: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    write_folder(tmp_path, "MMStar", hub_rows("MMStar")[:2])
    for name in ("MathVista", "OCRBench"):
        write_folder(tmp_path, name, hub_rows(name)[:2])
    (damaged,) = (tmp_path / "MathVista").rglob("*.parquet")
    damaged.write_bytes(damaged.read_bytes()[:-20])  # without its end
    (tmp_path / "MMVet").mkdir()  # empty
    config = mmstar_in(tmp_path)
    contamination.compare_with_benchmarks([UNRELATED[0]], tmp_path / "out", config, BUDGET, World())
    report = json.loads((tmp_path / "out" / "contamination.json").read_text())
    assert report["checked"]["MMStar"] == report["checked"]["OCRBench"] == 2
    assert report["not_checked"].keys() == {"MathVista", "MMVet"}
    assert "no readable parquet" in report["not_checked"]["MathVista"]
    absent = ["HallusionBench", "MMMU", "MathVerse", "WeMath", "LogicVista"]
    assert report["absent"] == absent  # there is no folder of these
    assert "contamination: not checked: MathVista: " in caplog.text


def test_an_incomplete_benchmark_that_is_evaluated_is_an_error_at_the_start(
    tmp_path: Path, hub_rows: Callable, write_folder: Callable
) -> None:
    write_folder(tmp_path, "MMStar", hub_rows("MMStar")[:2])
    config = EvaluateConfig(
        benchmarks=["shapes/MMVet", "MMStar"], source=ItemSource.folder, path=str(tmp_path)
    )
    run = RunConfig(output_dir=str(tmp_path), evaluate=config)
    with pytest.raises(parquet.SchemaError, match=r"MMStar: 2 items in .* has 1500"):
        benchmarks.check_items(run.evaluate, RunPaths(run))
    config.allow_count_mismatch = True
    benchmarks.check_items(run.evaluate, RunPaths(run))


def test_an_unreadable_benchmark_whose_error_has_no_message_is_reported_by_the_errors_type(
    tmp_path: Path, hub_rows: Callable, write_folder: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_mmvet_with_an_error(config: EvaluateConfig) -> list[BenchmarkItem]:
        if config.benchmarks == ["MMVet"]:
            raise OSError  # without a message
        return load_items(config)

    write_folder(tmp_path, "MMStar", hub_rows("MMStar")[:2])
    write_folder(tmp_path, "MMVet", hub_rows("MMVet")[:2])
    config = mmstar_in(tmp_path)
    monkeypatch.setattr(contamination, "load_items", load_mmvet_with_an_error)
    _, unreadable = contamination.available_items(config)
    assert unreadable == {"MMVet": "OSError"}
