"""The data stage writes every row to a part or to quarantine.jsonl, and then manifest.json."""

import json

import pytest

from difftrain.config.data import DataConfig, Source
from difftrain.data import build
from difftrain.data.build import RejectStats, render_quarantine
from difftrain.data.quarantine import EmptyDatasetError, RejectedRow
from difftrain.pipeline import manifest, parquet
from difftrain.records import Sample

GOOD = {"image_paths": ["images/red.png"], "prompt": "How many?", "ground_truth": "1"}
MISSING_IMAGE = {**GOOD, "image_paths": ["images/none.png"]}


def read_quarantine(folder):
    """The rejected rows in a data stage's folder."""
    lines = (folder / "quarantine.jsonl").read_text().splitlines()
    return [RejectedRow(**json.loads(line)) for line in lines]


def jsonl_config(path):
    return DataConfig(source=Source.jsonl, path=str(path))


def test_every_row_becomes_a_sample_or_is_quarantined(write_rows, tmp_path):
    other_answer = {**GOOD, "ground_truth": "2"}
    path = write_rows(GOOD, MISSING_IMAGE, "nonsense", GOOD, other_answer)
    counts = build.build_dataset(jsonl_config(path), tmp_path / "data")["counts"]
    assert (counts["rows"], counts["samples"], counts["quarantined"]) == (5, 2, 3)
    samples = parquet.read_finished(tmp_path / "data", Sample, made_by="a test")
    assert [row.source for row in samples] == ["my.jsonl:1", "my.jsonl:5"]
    rejected = read_quarantine(tmp_path / "data")
    assert [row.source for row in rejected] == ["my.jsonl:2", "my.jsonl:3", "my.jsonl:4"]


def test_the_manifest_counts_the_reasons_and_names_the_file(write_rows, tmp_path):
    path = write_rows(GOOD, MISSING_IMAGE, MISSING_IMAGE, "nonsense")
    build.build_dataset(jsonl_config(path), tmp_path / "data")
    stage_manifest = manifest.read_manifest(tmp_path / "data")
    assert stage_manifest is not None
    assert stage_manifest["counts"] == {
        "rows": 4,
        "samples": 1,
        "quarantined": 3,
        "reasons": {"missing file": 2, "not JSON": 1},
        "tasks": {"unknown": 1},
        "other_tasks": 0,
        "duplicates": {"exact": 0, "near": 0},
        "images": {
            "count": 1,
            "resized": 1,
            "tokens": 609,  # 800 x 600 resized to 812 x 588 pixels: 29 x 21 tokens
            "max_tokens": 609,
            "budget_pixels": [3136, 1_254_400],
            "budget_tokens": [4, 1600],
        },
    }
    assert stage_manifest["inputs"].keys() == {"my.jsonl", "images"}
    assert stage_manifest["inputs"]["my.jsonl"] == manifest.file_fingerprint(path)
    assert stage_manifest["settings"]["source"] == "jsonl"


def test_the_shapes_source_writes_an_empty_quarantine(tmp_path):
    # shapes, the default source, generates samples.
    counts = build.build_dataset(DataConfig(num_samples=12, limit=9), tmp_path)["counts"]
    assert (counts["rows"], counts["samples"], counts["quarantined"]) == (9, 9, 0)
    assert (tmp_path / "quarantine.jsonl").read_text() == ""
    assert read_quarantine(tmp_path) == []


def test_parts_of_an_interrupted_run_do_not_mix_with_the_new_rows(tmp_path):
    # Both runs read the default source, which generates samples.
    build.build_dataset(DataConfig(num_samples=12, world_seed=1), tmp_path)
    # An interrupted run can leave a part whose number the new run does not overwrite.
    (tmp_path / "part-00000.parquet").rename(tmp_path / "part-00007.parquet")
    (tmp_path / "manifest.json").unlink()
    build.build_dataset(DataConfig(num_samples=8), tmp_path)
    assert len(parquet.read_rows(tmp_path, Sample)) == 8


def test_a_source_without_usable_rows_is_an_error_that_counts_the_reasons(write_rows, tmp_path):
    path = write_rows(MISSING_IMAGE, "nonsense", MISSING_IMAGE)
    with pytest.raises(EmptyDatasetError) as caught:
        build.build_dataset(jsonl_config(path), tmp_path / "data")
    message = str(caught.value)
    assert message.startswith(f"none of the 3 rows of {path} can be used: 2 missing file, 1 not")
    assert "first: my.jsonl:1: missing file: images/none.png" in message
    assert manifest.read_manifest(tmp_path / "data") is None
    assert len(read_quarantine(tmp_path / "data")) == 3


def test_an_empty_file_says_that_it_holds_no_rows(write_rows, tmp_path):
    path = write_rows()
    with pytest.raises(EmptyDatasetError, match=r"my\.jsonl holds no rows"):
        build.build_dataset(jsonl_config(path), tmp_path / "data")


def test_rejected_rows_are_counted_by_short_reason():
    stats = RejectStats()
    stats.add(RejectedRow("a:1", "missing file: x.png"))
    stats.add(RejectedRow("a:2", "duplicate: like a:1"))
    stats.add(RejectedRow("a:3", "missing file: y.png"))
    assert stats.sorted_counts() == {"missing file": 2, "duplicate": 1}
    assert str(stats) == "2 missing file, 1 duplicate"


def test_only_three_rejected_rows_per_reason_stay_in_memory():
    stats = RejectStats()
    for number in range(5000):
        stats.add(RejectedRow(f"a:{number}", f"missing file: {number}.png"))
    assert stats.counts.total() == 5000
    assert sum(map(len, stats.examples.values())) == 3
    assert "| missing file | 5000 | 100.0% |" in render_quarantine(5000, stats)
    assert render_quarantine(5000, stats).count("\n* `a:") == 3


def test_an_error_while_rows_are_read_leaves_no_incomplete_quarantine_file(tmp_path):
    def write_and_fail():
        with manifest.atomic_file(tmp_path / "quarantine.jsonl") as file:
            file.write("a rejected row")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_and_fail()
    assert list(tmp_path.iterdir()) == []
