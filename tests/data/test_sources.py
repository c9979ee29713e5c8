"""Where rows and images are: streamed files, folders, zips, the hub; and duplicate rows."""

import json
import logging
import subprocess
import sys
import tracemalloc
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from difftrain import images
from difftrain.config.data import DataConfig, Source
from difftrain.data import build, dataset, readers, storage
from difftrain.data.quarantine import EmptyDatasetError, RejectedRow, RowError
from difftrain.data.storage import Folder, Hub, HubUnavailable
from difftrain.images import PixelBudget
from difftrain.pipeline import manifest
from tests.data.small_files import lines


def read_file(path: Path) -> list[tuple[str, object]]:
    return list(readers.read_rows(Folder(path.parent), [path.name]))


def message_of(row: object) -> str:
    assert isinstance(row, RowError)
    return str(row)


@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_is_read_element_by_element(tmp_path, indent):
    rows = [{"n": n, "text": "ä]} \\" * n} for n in range(50)]
    path = tmp_path / "rows.json"
    path.write_text("\ufeff\n" + json.dumps(rows, indent=indent, ensure_ascii=False))
    assert read_file(path) == [(f"rows.json:{n + 1}", row) for n, row in enumerate(rows)]


def test_an_array_larger_than_what_is_read_at_once_is_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "CHUNK_BYTES", 7)
    rows = [{"n": n, "text": "x" * (n % 40)} for n in range(100)]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    assert [row for _, row in read_file(path)] == rows


def test_a_json_of_lines_is_read_as_lines(tmp_path):
    path = lines(tmp_path / "rows.json", [{"a": 1}, {"a": 2}])
    assert [row for _, row in read_file(path)] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("text", "good", "reason"),
    [
        ('[{"a": 1}, {"a": ', 1, "not JSON: Expecting value"),
        ('[{"a": 1}, 7]', 1, "not an object: the element is a int"),
        ('[{"a": 1}, {oops}, {"a": 2}]', 1, "not JSON"),
        ('[{"a": "\\ud800"}]', 0, "not JSON"),
        ("[" * 100_000, 0, "not JSON: nested too deeply"),
        ('[{"a": 1}', 1, "not JSON: Expecting value"),
    ],
)
def test_a_damaged_array_gives_what_it_holds_and_says_where_it_stops(tmp_path, text, good, reason):
    path = tmp_path / "rows.json"
    path.write_text(text)
    result = [row for _, row in read_file(path)]
    assert result[:good] == [{"a": 1}] * good
    assert message_of(result[good]).startswith(reason)
    assert len(result) == good + 1


def test_a_row_that_would_fill_the_memory_is_rejected_and_the_next_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "MAX_ROW_BYTES", 1000)
    path = lines(tmp_path / "rows.jsonl", [{"a": "x" * 5000}, {"a": 1}])
    (_, first), second = read_file(path)
    assert message_of(first).startswith("row too long")
    assert second == ("rows.jsonl:2", {"a": 1})


def test_a_file_that_is_no_parquet_is_one_row_that_says_so(tmp_path):
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1 not really")
    ((place, row),) = read_file(path)
    assert (place, message_of(row)[:11]) == ("rows.parquet:1", "broken file")


def test_a_large_jsonl_is_streamed(tmp_path):
    path = tmp_path / "large.jsonl"
    with path.open("w") as file:
        for number in range(1000):
            file.write(json.dumps({"n": number, "padding": "x" * 100_000}) + "\n")
    tracemalloc.start()
    assert sum(1 for _ in readers.read_rows(Folder(tmp_path), [path.name])) == 1000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert path.stat().st_size > 100_000_000
    assert peak < 3_000_000


@pytest.mark.slow
def test_a_gigabyte_of_jsonl_becomes_samples_in_little_memory(tmp_path, encode):
    (tmp_path / "a.png").write_bytes(encode(drawing((84, 56))))
    path = tmp_path / "my.jsonl"
    with path.open("w") as file:
        for number in range(2_000):
            row = {"image_paths": ["a.png"], "prompt": "How many?", "ground_truth": str(number)}
            file.write(json.dumps({**row, "padding": "x" * 550_000}) + "\n")
    assert path.stat().st_size > 1_000_000_000
    code = (
        "import resource, sys\n"
        "from difftrain.data import dataset\n"
        "from difftrain.config.data import DataConfig, Source\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "before = peak()\n"
        "rows = dataset.load_samples(DataConfig(source=Source.jsonl, path=sys.argv[1]))\n"
        "print(sum(1 for _ in rows), peak() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    rows, grown = map(int, done.stdout.split())
    assert rows == 2_000
    assert grown < 60, f"{grown} MiB"


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
def test_a_files_split_is_known_by_its_folders_or_first_word(name, split):
    assert storage.split_of(name) == split


def test_images_above_the_folder_are_not_found_by_their_tail(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "secret.png").write_bytes(b"x")
    with pytest.raises(images.ImageError, match="missing file"):
        storage.read_by_tail(Folder(tmp_path / "inner"), "../secret.png")


def test_a_damaged_zip_stops_the_run_and_is_named(tmp_path):
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


def test_a_hub_id_without_network_names_the_folder_alternative(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    config = DataConfig(source=Source.orsta, path="owner/name-of-nothing")
    for read in (dataset.fingerprint, lambda config: list(dataset.load_samples(config))):
        with pytest.raises(HubUnavailable) as error:
            read(config)
        assert "owner/name-of-nothing: this dataset cannot be read from the hub" in str(error.value)
        assert "data.path=FOLDER" in str(error.value)


def test_a_full_commit_needs_no_network_to_be_known():
    commit = "0123456789" * 4
    assert Hub("owner/name", commit).fingerprints([]) == {"owner/name": commit}


def drawing(size=(300, 200), place=60, ground="white") -> Image.Image:
    image = Image.new("RGB", size, ground)
    draw = ImageDraw.Draw(image)
    scale = size[0] / 300
    draw.rectangle([place * scale, 40 * scale, (place + 70) * scale, 120 * scale], fill="navy")
    draw.line([10 * scale, 180 * scale, 290 * scale, 150 * scale], fill="black", width=5)
    return image


@pytest.mark.parametrize(
    ("other", "alike"),
    [
        (lambda encode: encode(drawing(), "JPEG", quality=40), True),
        (lambda encode: encode(drawing().resize((600, 400))), True),
        (lambda encode: encode(ImageEnhance.Brightness(drawing()).enhance(0.9)), True),
        (lambda encode: encode(drawing(place=130)), False),
        (lambda encode: encode(drawing().transpose(Image.Transpose.FLIP_LEFT_RIGHT)), False),
    ],
    ids=["jpeg", "larger", "darker", "moved", "mirrored"],
)
def test_images_that_only_look_the_same_are_reported_and_kept(tmp_path, encode, other, alike):
    (tmp_path / "a.png").write_bytes(encode(drawing()))
    (tmp_path / "b.png").write_bytes(other(encode))
    row = {"image_paths": ["a.png"], "prompt": "How many boxes?", "ground_truth": "1"}
    rows = [
        row,
        {**row, "image_paths": ["b.png"], "prompt": "How  many BOXES?"},
        {**row, "image_paths": ["b.png"], "prompt": "Another question?"},
    ]
    path = lines(tmp_path / "my.jsonl", rows)
    folder = tmp_path / "data"
    build.build_dataset(DataConfig(source=Source.jsonl, path=str(path)), folder)
    stage_manifest = manifest.read_manifest(folder)
    assert stage_manifest is not None
    assert stage_manifest["counts"]["samples"] == 3
    assert stage_manifest["counts"]["duplicates"] == {"exact": 0, "near": int(alike)}
    reported = [
        json.loads(line) for line in (folder / "near_duplicates.jsonl").read_text().splitlines()
    ]
    assert reported == [{"source": "my.jsonl:2", "similar_to": "my.jsonl:1"}] * alike


def test_each_row_is_similar_to_the_first_of_its_kind_however_many_there_are():
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 2**63, (3, 2, 4), dtype=np.uint64)
    looks = np.stack([kinds[n % 3] for n in range(200)])
    looks[7, 1, 0] ^= np.uint64(0b111_1111)
    result = dict(dataset.similar_pairs(looks))
    assert 7 not in result
    assert all(result[n] == n % 3 for n in range(3, 200) if n != 7)


def test_the_dhash_of_a_flat_image_is_zero_whatever_its_noise(encode):
    image = images.decode(
        encode(Image.new("RGB", (84, 84), (250, 251, 252)), "JPEG"), PixelBudget(1, 10**6)
    )
    assert images.dhash(image.to_pil(), images.DEDUP_MARGIN) == bytes(32)


def test_the_quarantine_can_be_read_by_a_person(tmp_path, encode):
    (tmp_path / "a.png").write_bytes(encode(drawing()))
    good = {"image_paths": ["a.png"], "prompt": "How many?", "ground_truth": "1"}
    rows = [
        good,
        *[{**good, "image_paths": [f"{n}.png"]} for n in range(5)],
        {**good, "prompt": ""},
    ]
    path = lines(tmp_path / "my.jsonl", rows)
    build.build_dataset(DataConfig(source=Source.jsonl, path=str(path)), tmp_path / "data")
    page = (tmp_path / "data" / "quarantine.md").read_text()
    assert "6 of 7 rows were rejected." in page
    assert "| missing file | 5 | 71.4% |" in page
    assert "* `my.jsonl:2` missing file: 0.png" in page
    assert page.count("missing file: ") == 3


def test_gold_answers_that_no_grader_can_parse_are_rejected_before_images_are_read(tmp_path):
    row = {"image_paths": ["none.png"], "prompt": "How many?", "ability": "counting"}
    path = lines(tmp_path / "my.jsonl", [{**row, "ground_truth": "a few"}])
    (result,) = dataset.load_samples(DataConfig(source=Source.jsonl, path=str(path)))
    assert isinstance(result, RejectedRow)
    assert result.short_reason == "unusable gold answer"


def test_the_log_states_the_budget_in_pixels_and_tokens(tmp_path, encode, caplog, monkeypatch):
    (tmp_path / "a.png").write_bytes(encode(drawing()))
    row = {"image_paths": ["a.png"], "prompt": "How many?", "ground_truth": "1"}
    path = lines(tmp_path / "my.jsonl", [row, row])
    caplog.set_level("INFO", logger="difftrain")
    monkeypatch.setattr(logging.getLogger("difftrain"), "propagate", True)
    build.build_dataset(DataConfig(source=Source.jsonl, path=str(path)), tmp_path / "data")
    text = caplog.text
    assert "data: 2 rows, 1 samples, 1 quarantined (1 duplicate; see quarantine.jsonl)" in text
    assert "1 images, 77 image tokens, at most 77 in one" in text
    assert "(budget 3136 to 1254400 pixels = 4 to 1600 tokens)" in text
    assert "1 rows are exact duplicates" in text
    with Image.open(BytesIO((tmp_path / "a.png").read_bytes())) as image:
        assert image.size == (300, 200)
