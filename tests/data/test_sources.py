"""Rows and images are read from files, folders, zips and the hub; duplicates are reported.

A dhash (difference hash) is 256 bits that hardly change if an image is compressed or resized.
"""

import json
import logging
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from difftrain import images
from difftrain.config.data import DataConfig, Source
from difftrain.data import build, dataset, readers, storage
from difftrain.data.quarantine import EmptyDatasetError, RejectedRow, RowError
from difftrain.data.storage import Folder, Hub, HubUnavailable
from difftrain.images import PixelBudget
from difftrain.pipeline import manifest
from tests.data.small_files import write_jsonl


def read_file(path: Path) -> list[tuple[str, object]]:
    """The (location, row or RowError) pairs of a file."""
    return list(readers.read_rows(Folder(path.parent), [path.name]))


def error_message(row: object) -> str:
    assert isinstance(row, RowError)
    return str(row)


@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_is_read_element_by_element(tmp_path, indent):
    # Brackets, backslashes and two-byte characters inside strings must not end an element.
    rows = [{"n": n, "text": "ä]} \\" * n} for n in range(50)]
    path = tmp_path / "rows.json"
    text = json.dumps(rows, indent=indent, ensure_ascii=False)
    path.write_text(f"\ufeff\n{text}")  # \ufeff is the byte order mark
    assert read_file(path) == [(f"rows.json:{n + 1}", row) for n, row in enumerate(rows)]


def test_an_array_larger_than_a_chunk_is_read_correctly(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "CHUNK_BYTES", 7)
    rows = [{"n": n, "text": "x" * (n % 40)} for n in range(100)]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    assert [row for _, row in read_file(path)] == rows


def test_a_json_file_with_one_object_per_line_is_read_line_by_line(tmp_path):
    path = write_jsonl(tmp_path / "rows.json", [{"a": 1}, {"a": 2}])
    assert [row for _, row in read_file(path)] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("text", "num_good", "reason"),
    [
        ('[{"a": 1}, {"a": ', 1, "not JSON: Expecting value"),
        ('[{"a": 1}, 7]', 1, "not an object: the element is a int"),
        ('[{"a": 1}, {oops}, {"a": 2}]', 1, "not JSON"),
        ('[{"a": "\\ud800"}]', 0, "not JSON"),
        ("[" * 100_000, 0, "not JSON: nested too deeply"),
        ('[{"a": 1}', 1, "not JSON: Expecting value"),
    ],
)
def test_a_damaged_array_gives_its_good_rows_and_then_an_error(tmp_path, text, num_good, reason):
    path = tmp_path / "rows.json"
    path.write_text(text)
    result = [row for _, row in read_file(path)]
    assert result[:num_good] == [{"a": 1}] * num_good
    assert error_message(result[num_good]).startswith(reason)
    assert len(result) == num_good + 1


@pytest.mark.parametrize(
    ("value", "indent"),
    [({"version": 1, "data": [{"a": 1}, {"a": 2}]}, 2), ({"data": [{"a": 1}]}, 0)],
)
def test_the_only_list_of_objects_in_one_object_holds_the_rows(tmp_path, value, indent):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(value, indent=indent))
    assert [row for _, row in read_file(path)] == value["data"]


def test_an_object_in_one_line_with_a_list_under_data_holds_the_rows(tmp_path):
    path = write_jsonl(tmp_path / "rows.json", [{"data": [{"a": 1}]}])
    assert read_file(path) == [("rows.json:1", {"a": 1})]


@pytest.mark.parametrize(
    "value",
    [
        {"a": [{}], "b": [{}]},
        {"question": "?", "options": [1, 2]},
        {"messages": [{"role": "user"}]},
    ],
)
def test_an_object_over_several_lines_without_a_clear_list_of_rows_is_refused(tmp_path, value):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(value, indent=2))
    ((_, row),) = read_file(path)
    assert error_message(row).endswith("write one JSON object per line, or one array of objects")


def test_objects_over_several_lines_one_after_another_are_refused_once(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text("\n".join(json.dumps({"a": 1}, indent=2) for _ in range(3)))
    ((_, row),) = read_file(path)
    assert error_message(row).startswith("not JSON: Extra data")


def test_rows_after_a_damaged_first_line_of_a_json_file_are_read(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text('{"a": \n{"a": 1}\n')
    (_, first), second = read_file(path)
    assert error_message(first).startswith("not JSON")
    assert second == ("rows.json:2", {"a": 1})


def test_rows_after_a_badly_quoted_cell_are_read(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('question,answer\n"Stop" sign?,yes\nWhich?,no\n')
    rows = [row for _, row in read_file(path)]
    assert [row["answer"] for row in rows] == ["yes", "no"]


def test_a_table_with_two_columns_of_one_name_is_refused(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("question,answer,answer\nWhich?,yes,no\n")
    ((_, row),) = read_file(path)
    expected = "ambiguous columns: several are named answer; rename or drop all but one"
    assert error_message(row) == expected


def test_a_row_that_is_too_long_is_rejected_and_the_next_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "MAX_ROW_BYTES", 1000)
    path = write_jsonl(tmp_path / "rows.jsonl", [{"a": "x" * 5000}, {"a": 1}])
    (_, first), second = read_file(path)
    assert error_message(first).startswith("row too long")
    assert second == ("rows.jsonl:2", {"a": 1})


def test_a_broken_parquet_file_gives_one_row_error(tmp_path):
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1 not really")
    ((location, row),) = read_file(path)
    assert location == "rows.parquet:1"
    assert error_message(row).startswith("broken file")


def write_jsonl_rows(path: Path, texts: list[str]) -> None:
    with path.open("w") as file:
        for text in texts:
            file.write(json.dumps({"text": text}) + "\n")


def write_csv_rows(path: Path, texts: list[str]) -> None:
    path.write_text("text\n" + "".join(f"{text}\n" for text in texts))


def write_arrow_rows(path: Path, texts: list[str]) -> None:
    """One batch with all rows, as `save_to_disk` may write it."""
    table = pa.table({"text": texts})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize("write", [write_jsonl_rows, write_csv_rows, write_arrow_rows])
def test_a_file_of_100_megabytes_is_read_in_4_megabytes_of_memory(tmp_path, write):
    suffix = write.__name__.split("_")[1]
    path = tmp_path / f"large.{suffix}"
    write(path, ["x" * 100_000] * 1000)
    assert path.stat().st_size > 100_000_000
    before = pa.total_allocated_bytes()  # by Arrow, which tracemalloc does not see
    tracemalloc.start()
    num_rows, arrow_peak = 0, 0
    for _ in readers.read_rows(Folder(tmp_path), [path.name]):
        num_rows += 1
        arrow_peak = max(arrow_peak, pa.total_allocated_bytes() - before)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert num_rows == 1000
    assert peak + arrow_peak < 4_000_000


@pytest.mark.slow
def test_a_jsonl_of_a_gigabyte_becomes_samples_in_60_megabytes_of_memory(tmp_path, encode):
    (tmp_path / "a.png").write_bytes(encode(drawing((84, 56))))
    path = tmp_path / "my.jsonl"
    with path.open("w") as file:
        for number in range(2_000):
            row = {"image_paths": ["a.png"], "prompt": "How many?", "ground_truth": str(number)}
            file.write(json.dumps({**row, "padding": "x" * 550_000}) + "\n")
    assert path.stat().st_size > 1_000_000_000
    # ru_maxrss is the peak memory of a process in KiB, so the rows are read in a fresh one.
    code = (
        "import resource, sys\n"
        "from difftrain.data import dataset\n"
        "from difftrain.config.data import DataConfig, Source\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "before = peak()\n"
        "rows = dataset.load_samples(DataConfig(source=Source.jsonl, path=sys.argv[1]))\n"
        "print(sum(1 for _ in rows), peak() - before)\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    num_rows, growth_mib = map(int, process.stdout.split())
    assert num_rows == 2_000
    assert growth_mib < 60


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train/train_math_mmmath_3539.parquet", "train"),
        ("data/validation-00000-of-00001.parquet", "validation"),
        ("test.jsonl", "test"),
        ("testing_ground.jsonl", None),
        ("dataset.jsonl", None),
    ],
)
def test_the_split_of_a_file_is_the_name_of_a_folder_or_the_first_word_of_its_name(name, split):
    assert storage.split_of(name) == split


def test_read_by_tail_does_not_leave_the_folder(tmp_path):
    """read_by_tail() finds an image by the end of a path that is from another machine."""
    (tmp_path / "inner").mkdir()
    (tmp_path / "secret.png").write_bytes(b"x")
    with pytest.raises(images.ImageError, match="missing file"):
        storage.read_by_tail(Folder(tmp_path / "inner"), "../secret.png")


def test_the_error_for_a_damaged_zip_names_it(tmp_path):
    (tmp_path / "K12.zip").write_bytes(b"PK nothing")
    with pytest.raises(EmptyDatasetError, match=r"K12\.zip is not a readable zip"):
        storage.read_by_tail(Folder(tmp_path), "K12/a.png")


def test_a_hub_id_is_distinguished_from_a_path():
    assert DataConfig(source=Source.orsta, path="owner/name").on_hub
    assert not DataConfig(source=Source.orsta, path="./owner/name").on_hub
    assert not DataConfig(source=Source.orsta, path="owner/rows.jsonl").on_hub
    assert isinstance(storage.storage_of(DataConfig(source=Source.orsta, path="owner/name")), Hub)
    (problem,) = DataConfig(source=Source.orsta, path="a/b/c").check()
    assert problem == ("path", "there is no such file or folder")
    (problem,) = DataConfig(source=Source.trl).check()
    assert problem[1].startswith("source=trl needs a file, a folder or a hub id")
    (problem,) = DataConfig(source=Source.shapes, revision="main").check()
    assert problem == ("revision", "is allowed only with a hub id (data.path=owner/name)")


def test_the_error_without_network_suggests_a_local_folder(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    config = DataConfig(source=Source.orsta, path="owner/name-of-nothing")
    for read in (dataset.fingerprint, lambda config: list(dataset.load_samples(config))):
        with pytest.raises(HubUnavailable) as caught:
            read(config)
        message = str(caught.value)
        assert "owner/name-of-nothing: this dataset cannot be read from the hub" in message
        assert "data.path=FOLDER" in message


def test_a_full_commit_is_fingerprinted_without_network():
    commit = "0123456789" * 4
    # The fingerprint of a hub dataset is its commit, whatever files are read.
    assert Hub("owner/name", commit).fingerprints(names=[]) == {"owner/name": commit}


def drawing(size=(300, 200), left=60) -> Image.Image:
    """A blue rectangle above a line, drawn on 300 x 200 and scaled; `left`: of the rectangle."""
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    scale = size[0] / 300
    draw.rectangle([left * scale, 40 * scale, (left + 70) * scale, 120 * scale], fill="navy")
    draw.line([10 * scale, 180 * scale, 290 * scale, 150 * scale], fill="black", width=5)
    return image


@pytest.mark.parametrize(
    ("make_other", "is_similar"),
    [
        (lambda encode: encode(drawing(), "JPEG", quality=40), True),
        (lambda encode: encode(drawing().resize((600, 400))), True),
        (lambda encode: encode(ImageEnhance.Brightness(drawing()).enhance(0.9)), True),
        (lambda encode: encode(drawing(left=130)), False),
        (lambda encode: encode(drawing().transpose(Image.Transpose.FLIP_LEFT_RIGHT)), False),
    ],
    ids=["jpeg", "larger", "darker", "moved", "mirrored"],
)
def test_near_duplicates_are_reported_and_not_dropped(tmp_path, encode, make_other, is_similar):
    (tmp_path / "a.png").write_bytes(encode(drawing()))
    (tmp_path / "b.png").write_bytes(make_other(encode))
    row = {"image_paths": ["a.png"], "prompt": "How many boxes?", "ground_truth": "1"}
    rows = [
        row,
        {**row, "image_paths": ["b.png"], "prompt": "How  many BOXES?"},
        {**row, "image_paths": ["b.png"], "prompt": "Another question?"},
    ]
    path = write_jsonl(tmp_path / "my.jsonl", rows)
    folder = tmp_path / "data"
    build.build_dataset(DataConfig(source=Source.jsonl, path=str(path)), folder)
    stage_manifest = manifest.read_manifest(folder)
    assert stage_manifest is not None
    assert stage_manifest["counts"]["samples"] == 3
    assert stage_manifest["counts"]["duplicates"] == {"exact": 0, "near": int(is_similar)}
    reported = [
        json.loads(line) for line in (folder / "near_duplicates.jsonl").read_text().splitlines()
    ]
    pair = {"source": "my.jsonl:2", "similar_to": "my.jsonl:1"}
    assert reported == ([pair] if is_similar else [])


def test_each_row_is_paired_with_the_first_similar_row():
    rng = np.random.default_rng(0)
    # Axes: G groups of equal rows, N rows, I images of a row, 4 x 64 bits of an image's dhash.
    dhash_GI4 = rng.integers(0, 2**63, (3, 2, 4), dtype=np.uint64)
    dhash_NI4 = np.stack([dhash_GI4[n % 3] for n in range(200)])
    dhash_NI4[7, 1, 0] ^= np.uint64(0b111_1111)  # seven bits differ, too many to be similar
    result = dict(dataset.similar_pairs(dhash_NI4))
    assert 7 not in result
    assert all(result[n] == n % 3 for n in range(3, 200) if n != 7)


def test_the_noise_of_jpeg_in_a_single_color_does_not_change_the_dhash(encode):
    # The limits of 1 and a million pixels leave the image as large as it is.
    image = images.decode(
        encode(Image.new("RGB", (84, 84), (250, 251, 252)), "JPEG"), PixelBudget(1, 10**6)
    )
    # A bit is set only if neighboring cells differ by more than the margin.
    assert images.dhash(image.to_pil(), images.DEDUP_MARGIN) == bytes(32)  # 256 bits, all 0


def test_quarantine_md_shows_counts_and_three_examples_of_each_reason(tmp_path, encode):
    (tmp_path / "a.png").write_bytes(encode(drawing()))
    good = {"image_paths": ["a.png"], "prompt": "How many?", "ground_truth": "1"}
    rows = [
        good,
        *[{**good, "image_paths": [f"{n}.png"]} for n in range(5)],
        {**good, "prompt": ""},
    ]
    path = write_jsonl(tmp_path / "my.jsonl", rows)
    build.build_dataset(DataConfig(source=Source.jsonl, path=str(path)), tmp_path / "data")
    text = (tmp_path / "data" / "quarantine.md").read_text()
    assert "6 of 7 rows were rejected." in text
    assert "| missing file | 5 | 71.4% |" in text
    assert "* `my.jsonl:2` missing file: 0.png" in text
    assert text.count("missing file: ") == 3


def test_a_gold_answer_that_no_grader_can_parse_is_rejected_before_its_images_are_read(tmp_path):
    row = {"image_paths": ["none.png"], "prompt": "How many?", "ability": "counting"}
    path = write_jsonl(tmp_path / "my.jsonl", [{**row, "ground_truth": "a few"}])
    (result,) = dataset.load_samples(DataConfig(source=Source.jsonl, path=str(path)))
    assert isinstance(result, RejectedRow)
    assert result.short_reason == "unusable gold answer"


def test_the_log_states_the_budget_in_pixels_and_tokens(tmp_path, encode, caplog, monkeypatch):
    (tmp_path / "a.png").write_bytes(encode(drawing()))
    row = {"image_paths": ["a.png"], "prompt": "How many?", "ground_truth": "1"}
    path = write_jsonl(tmp_path / "my.jsonl", [row, row])
    caplog.set_level("INFO", logger="difftrain")
    monkeypatch.setattr(logging.getLogger("difftrain"), "propagate", True)  # caplog reads the root
    build.build_dataset(DataConfig(source=Source.jsonl, path=str(path)), tmp_path / "data")
    text = caplog.text
    assert "data: 2 rows, 1 samples, 1 quarantined (1 duplicate; see quarantine.jsonl)" in text
    # 300 x 200 is resized to 308 x 196 pixels: 77 tokens of 784.
    assert "1 images, 77 image tokens, at most 77 in one" in text
    assert "(budget 3136 to 1254400 pixels = 4 to 1600 tokens)" in text
    assert "1 rows are exact duplicates" in text
