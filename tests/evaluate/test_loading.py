"""Benchmark items are loaded and checked: from parquet, save_to_disk folders and TSV files."""

import ast
import pickle
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from difftrain import evaluate
from difftrain.config.evaluate import OFFICIAL, TSV_FILES, EvaluateConfig, ItemSource
from difftrain.data.quarantine import EmptyDatasetError
from difftrain.evaluate import loading
from difftrain.evaluate.benchmarks import wemath
from difftrain.evaluate.benchmarks.mmstar import split_options
from difftrain.images import ImageError, PixelBudget
from difftrain.pipeline.parquet import SchemaError

Row = dict[str, Any]
BUDGET = PixelBudget(784, 10**6)  # pixels of a decoded image; the minimum is 28 x 28
OFFICIAL_COUNTS = {
    "MathVista": 1000,
    "MMVet": 218,
    "OCRBench": 1000,
    "HallusionBench": 951,
    "MMMU": 900,
    "MMStar": 1500,
    "MathVerse": 3940,
    "WeMath": 1740,
    "LogicVista": 447,
}


def config(root: Path, name: str, source: ItemSource, **settings: Any) -> EvaluateConfig:
    return EvaluateConfig(benchmarks=[name], source=source, path=str(root), **settings)


def read_items(root: Path, name: str, source: ItemSource, **settings: Any) -> list[Row]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # these TSV files do not have the published md5
        return loading.official_items(name, config(root, name, source, **settings))


def with_image_bytes(rows: list[Row]) -> list[Row]:
    """Items with the bytes of their images, ready for a TSV."""
    return [
        {**row, "image": [loading.image_bytes(value) for value in row["image"]]} for row in rows
    ]


@pytest.mark.parametrize("form", ["parquet", "disk"])
@pytest.mark.parametrize("name", OFFICIAL)
def test_a_folder_of_official_size_gives_every_item_once(
    name: str, form: str, tmp_path: Path, hub_rows: Callable, write_folder: Callable
) -> None:
    write_folder(tmp_path, name, hub_rows(name), form)
    rows = read_items(tmp_path, name, ItemSource.folder)
    assert len(rows) == OFFICIAL_COUNTS[name]
    ids = {evaluate.benchmark_named(name).item_id(row) for row in rows}
    assert len(ids) == OFFICIAL_COUNTS[name]
    for item in rows[:: OFFICIAL_COUNTS[name] // 20]:  # about 20 items, to save time
        parts = evaluate.build_prompt(name, item)
        images = [part["value"] for part in parts if part["type"] == "image"]
        assert images
        for value in images:
            assert isinstance(value, partial)  # a function that reads the image when it is called
            assert loading.decode_image(value, BUDGET).mode == "RGB"


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_harnesss_tsv_and_the_hubs_data_set_give_equal_items(
    name: str, tmp_path: Path, hub_rows: Callable, write_folder: Callable, write_tsv: Callable
) -> None:
    write_folder(tmp_path, name, hub_rows(name))
    expected = with_image_bytes(read_items(tmp_path, name, ItemSource.folder))
    write_tsv(tmp_path / TSV_FILES[name], expected)
    items = with_image_bytes(read_items(tmp_path, name, ItemSource.tsv))
    assert len(items) == len(expected)
    for a, b in zip(items, expected, strict=True):  # from the TSV file, from the folder
        assert a["image"] == b["image"]
        assert evaluate.build_prompt(name, a) == evaluate.build_prompt(name, b)
        benchmark = evaluate.benchmark_named(name)
        assert benchmark.item_id(a) == benchmark.item_id(b)
        assert benchmark.category(a) == benchmark.category(b)
        for prediction in ("a hen", "B", "yes", "7"):
            assert evaluate.grade_prediction(name, prediction, a) == evaluate.grade_prediction(
                name, prediction, b
            )


@pytest.mark.parametrize("source", [ItemSource.folder, ItemSource.tsv])
@pytest.mark.parametrize("name", OFFICIAL)
def test_a_wrong_number_of_items_is_an_error_with_both_numbers(
    name: str,
    source: ItemSource,
    tmp_path: Path,
    hub_rows: Callable,
    write_folder: Callable,
    write_tsv: Callable,
) -> None:
    rows = hub_rows(name)[:60]
    write_folder(tmp_path, name, rows)
    items = read_items(tmp_path, name, ItemSource.folder, allow_count_mismatch=True)
    write_tsv(tmp_path / TSV_FILES[name], with_image_bytes(items))
    message = f"{name}: 60 items in .*, but the benchmark has {OFFICIAL_COUNTS[name]}"
    with pytest.raises(SchemaError, match=message):
        read_items(tmp_path, name, source)
    assert len(read_items(tmp_path, name, source, allow_count_mismatch=True)) == 60


@pytest.mark.parametrize("name", OFFICIAL)
def test_missing_columns_are_an_error_that_names_them(
    name: str, tmp_path: Path, hub_rows: Callable, write_folder: Callable, write_tsv: Callable
) -> None:
    rows = hub_rows(name)[:3]
    gold = "gt_answer" if name == "HallusionBench" else "answer"
    incomplete_rows = [{c: cell for c, cell in row.items() if c != gold} for row in rows]
    write_folder(tmp_path, name, incomplete_rows)
    with pytest.raises(SchemaError, match=f"{name}: .* has no column {gold}; it has "):
        read_items(tmp_path, name, ItemSource.folder)
    write_tsv(tmp_path / TSV_FILES[name], [{"index": 1, "question": "x", "image": [b"x" * 99]}])
    with pytest.raises(SchemaError, match=f"{name}: .* has no column .*answer.*; it has index, qu"):
        read_items(tmp_path, name, ItemSource.tsv)


def test_a_duplicate_item_is_an_error(
    tmp_path: Path, hub_rows: Callable, write_folder: Callable
) -> None:
    rows = [*hub_rows("MMVet")[:217], hub_rows("MMVet")[5]]  # 218 rows, the right number
    write_folder(tmp_path, "MMVet", rows)
    with pytest.raises(SchemaError, match=r"MMVet: item v1_5 is in .* twice"):
        read_items(tmp_path, "MMVet", ItemSource.folder)


def test_a_folder_without_the_split_is_an_error(tmp_path: Path, hub_rows: Callable) -> None:
    rows = datasets.Dataset.from_list([{"x": 1}])
    (tmp_path / "MMVet").mkdir()
    rows.to_parquet(str(tmp_path / "MMVet" / "train-00000-of-00001.parquet"))
    with pytest.raises(SchemaError, match=r"MMVet: .* holds no split 'test'"):
        read_items(tmp_path, "MMVet", ItemSource.folder)
    datasets.DatasetDict({"train": rows}).save_to_disk(str(tmp_path / "OCRBench"))
    with pytest.raises(SchemaError, match=r"OCRBench: .* has no split 'test', only train"):
        read_items(tmp_path, "OCRBench", ItemSource.folder)


def test_a_single_parquet_file_without_a_split_in_its_name_is_loaded(
    tmp_path: Path, hub_rows: Callable, write_folder: Callable
) -> None:
    folder = write_folder(tmp_path, "MMStar", hub_rows("MMStar")[:4])
    (written,) = folder.rglob("*.parquet")
    written.rename(folder / "mmstar.parquet")
    written.parent.rmdir()
    assert len(read_items(tmp_path, "MMStar", ItemSource.folder, allow_count_mismatch=True)) == 4


def test_a_damaged_parquet_file_is_an_error_that_names_it(
    tmp_path: Path, hub_rows: Callable, write_folder: Callable
) -> None:
    folder = write_folder(tmp_path, "MMStar", hub_rows("MMStar")[:4])
    (written,) = folder.rglob("*.parquet")
    written.write_bytes(written.read_bytes()[:-20])
    with pytest.raises(SchemaError, match=r"MMStar: .*MMStar holds no readable parquet"):
        read_items(tmp_path, "MMStar", ItemSource.folder, allow_count_mismatch=True)


def test_a_parquet_error_without_a_message_is_reported_by_its_type(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hub_rows: Callable, write_folder: Callable
) -> None:
    def raise_without_message(*_: Any, **__: Any) -> None:
        raise ValueError

    write_folder(tmp_path, "MMStar", hub_rows("MMStar")[:4])
    monkeypatch.setattr(datasets, "load_dataset", raise_without_message)
    with pytest.raises(SchemaError, match=r"holds no readable parquet \(ValueError\)"):
        read_items(tmp_path, "MMStar", ItemSource.folder, allow_count_mismatch=True)


def test_without_network_the_message_says_how_to_use_a_local_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(loading.BenchmarkNotFound) as caught:
        loading.official_items("MMStar", EvaluateConfig(benchmarks=["MMStar"]))
    message = str(caught.value)
    assert "MMStar: could not download Lin-Chen/MMStar from the hub, split val" in message
    assert isinstance(caught.value, EmptyDatasetError)  # launchers end with code 2
    assert "evaluate.source=folder evaluate.path=DIR" in message


def tsv_item(index: str, image: Any, **columns: Any) -> Row:
    return {
        "index": index,
        "image": image,
        "question": "What?",
        **dict.fromkeys("ABCD", "x"),
        "answer": "A",
        "category": "math",
        **columns,
    }


def png(color: str) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (30, 30), color).save(buffer, format="PNG")
    return buffer.getvalue()


def test_a_tsv_row_may_have_several_images_or_refer_to_another_rows_image(
    tmp_path: Path, write_tsv: Callable
) -> None:
    rows = [
        tsv_item("0", [png("red")]),
        tsv_item("1", "0"),
        tsv_item("2", [png("blue"), png("green")], question='two\nlines, a\ttab and a "quote"'),
        tsv_item("3", None),  # left out
    ]
    path = write_tsv(tmp_path / "MMStar.tsv", rows)
    items = read_items(tmp_path, "MMStar", ItemSource.tsv, allow_count_mismatch=True)
    assert [item["index"] for item in items] == ["0", "1", "2"]
    assert items[2]["question"] == 'two\nlines, a\ttab and a "quote"'
    images = [[loading.image_bytes(value) for value in item["image"]] for item in items]
    assert images == [[png("red")], [png("red")], [png("blue"), png("green")]]
    assert (
        len(pickle.dumps(items)) < path.stat().st_size * 5
    )  # an item holds functions that read its images, not the decoded images


@pytest.mark.parametrize("character", ["\u2028", "\u0085", "\x0b", "\x0c", "\x1c"])
def test_unusual_line_separators_inside_a_cell_do_not_end_the_row(
    character: str, tmp_path: Path, write_tsv: Callable
) -> None:
    row = tsv_item("0", [png("red")], question=f"Wh{character}at?")
    write_tsv(tmp_path / "MMStar.tsv", [{name: row[name] for name in sorted(row, reverse=True)}])
    (item,) = read_items(tmp_path, "MMStar", ItemSource.tsv, allow_count_mismatch=True)
    assert item["question"] == f"Wh{character}at?"
    assert [loading.image_bytes(value) for value in item["image"]] == [png("red")]


def test_a_reference_to_an_image_that_no_row_has_is_an_error(
    tmp_path: Path, write_tsv: Callable
) -> None:
    write_tsv(tmp_path / "MMStar.tsv", [tsv_item("0", [png("red")]), tsv_item("1", "7")])
    with pytest.raises(SchemaError, match="row 1 uses the image of row 7, which has none"):
        read_items(tmp_path, "MMStar", ItemSource.tsv)


def test_a_file_whose_md5_differs_from_the_published_one_is_a_warning(
    tmp_path: Path, write_tsv: Callable
) -> None:
    write_tsv(tmp_path / "MMStar.tsv", [tsv_item("0", [png("red")])])
    evaluate_config = config(tmp_path, "MMStar", ItemSource.tsv, allow_count_mismatch=True)
    # The md5 of the published MMStar.tsv begins with e1ecd2140.
    with pytest.warns(
        UserWarning, match=r"MMStar: .* has md5 .*, the harness's file has e1ecd2140"
    ):
        loading.official_items("MMStar", evaluate_config)
    # The line in scores.md ends with `(md5 DIGEST: other)`: not the file of any harness version.
    assert "other)" in loading.describe_source("MMStar", evaluate_config)


def test_a_file_that_is_no_valid_tsv_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "MMStar.tsv").write_bytes(b"index\timage\xff\n")
    with pytest.raises(SchemaError, match=r"MMStar: .* is no valid TSV"):
        read_items(tmp_path, "MMStar", ItemSource.tsv)


def test_an_option_such_as_none_is_left_out_unless_the_override_kept_texts_is_set(
    tmp_path: Path, write_tsv: Callable
) -> None:
    """The reference harness reads such texts as missing values. By default difftrain does too."""
    write_tsv(tmp_path / "MMStar.tsv", [tsv_item("0", [png("red")], C="None", D="nan", B="N/A")])
    (item,) = read_items(tmp_path, "MMStar", ItemSource.tsv, allow_count_mismatch=True)
    # Only option A remains. The last part of a prompt is its text.
    assert "A. x\nPlease" in evaluate.build_prompt("MMStar", item)[-1]["value"]
    evaluate_config = config(tmp_path, "MMStar", ItemSource.tsv, allow_count_mismatch=True)
    evaluate_config.harness_overrides.kept_texts = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (item,) = loading.official_items("MMStar", evaluate_config)
    assert "B. N/A\nC. None\nD. nan\n" in evaluate.build_prompt("MMStar", item)[-1]["value"]


def test_a_limit_selects_items_evenly_from_the_whole_file() -> None:
    assert loading.evenly_spaced(list(range(10)), 4) == [0, 2, 5, 7]  # 0, 2.5, 5, 7.5 rounded down
    assert loading.evenly_spaced([1, 2], 5) == loading.evenly_spaced([1, 2], None) == [1, 2]


def test_rows_of_the_split_dev_of_mmmu_are_left_out(
    tmp_path: Path, hub_rows: Callable, write_folder: Callable, write_tsv: Callable
) -> None:
    write_folder(tmp_path, "MMMU", hub_rows("MMMU")[:30])
    rows = with_image_bytes(
        read_items(tmp_path, "MMMU", ItemSource.folder, allow_count_mismatch=True)
    )
    dev = [{**row, "index": f"d{row['index']}", "id": "d" + row["id"]} for row in rows[:5]]
    dev = [{**row, "split": "dev"} for row in dev]
    write_tsv(tmp_path / TSV_FILES["MMMU"], [*dev, *rows])
    items = read_items(tmp_path, "MMMU", ItemSource.tsv, allow_count_mismatch=True)
    assert Counter(row["split"] for row in items) == {"validation": 30}


def test_only_for_mmmu_rows_are_filtered_by_their_split_column(
    tmp_path: Path, hub_rows: Callable, write_folder: Callable, write_tsv: Callable
) -> None:
    write_folder(tmp_path, "MathVista", hub_rows("MathVista")[:3])
    rows = with_image_bytes(
        read_items(tmp_path, "MathVista", ItemSource.folder, allow_count_mismatch=True)
    )
    with_split = [{**row, "split": "testmini"} for row in rows]
    write_tsv(tmp_path / TSV_FILES["MathVista"], with_split)
    assert len(read_items(tmp_path, "MathVista", ItemSource.tsv, allow_count_mismatch=True)) == 3


# Cells of a column of images. A cell of more than 64 characters holds images as base64, a shorter
# one the index of a row with the image.
DAMAGED_LISTS = {
    "no text": "[" + "A" * 70 + "]",
    "cut short": "['" + "A" * 70,
    "deep nesting": "[" * 3000,
    "an invalid dictionary key": "[{[]: '" + "A" * 70 + "'}]",
}


@pytest.mark.parametrize("source", [ItemSource.tsv, ItemSource.folder])
@pytest.mark.parametrize("case", DAMAGED_LISTS)
def test_a_damaged_list_of_images_is_an_error_that_names_the_row(
    case: str, source: ItemSource, tmp_path: Path, write_tsv: Callable
) -> None:
    rows = [tsv_item("7", "A" * 80), tsv_item("8", DAMAGED_LISTS[case])]
    if source is ItemSource.tsv:
        write_tsv(tmp_path / "MMStar.tsv", rows)
        where = r"MMStar\.tsv: row 2"  # counted from 1
    else:
        (tmp_path / "MMStar").mkdir()
        path = tmp_path / "MMStar" / "val-00000-of-00001.parquet"
        datasets.Dataset.from_list(rows).to_parquet(str(path))
        where = "MMStar: row 1"  # counted from 0
    with pytest.raises(SchemaError, match=f"MMStar: .*{where}: .* begins as a list of images"):
        read_items(tmp_path, "MMStar", source, allow_count_mismatch=True)


@pytest.mark.parametrize(
    ("question", "parts"),  # parts: the question alone, and the options' texts joined with |
    [
        ("What?\nOptions: A: a cat., B: x, y, C: nan, D: D", ("What?", "a cat.|x, y|nan|D")),
        ("Why?\nOptions: A: yes, B: no", ("Why?", "yes|no")),
        ("Hint: h\nQuestion: q\nChoices:\n(A) 9\n(B) 1 2", ("Hint: h\nQuestion: q", "9|1 2")),
        ("Hint: h\nQuestion: q\n(A) 9\n(B) 8", ("Hint: h\nQuestion: q", "9|8")),
    ],
)
def test_mmstar_questions_are_split_from_their_options(
    question: str, parts: tuple[str, str]
) -> None:
    question_alone, options = split_options(question)
    assert (question_alone, "|".join(options.values())) == parts
    assert list(options) == list("ABCD"[: len(options)])


def test_an_mmstar_question_without_options_is_an_error() -> None:
    with pytest.raises(ValueError, match="holds no options"):
        split_options("What is it?")


def test_mathvista_rows_get_the_letter_of_their_answer_which_must_be_a_choice(
    tmp_path: Path, hub_rows: Callable, write_folder: Callable
) -> None:
    rows = [dict(row) for row in hub_rows("MathVista")[:3]]
    write_folder(tmp_path / "good", "MathVista", rows)
    (item, *_) = read_items(
        tmp_path / "good", "MathVista", ItemSource.folder, allow_count_mismatch=True
    )
    assert (item["answer"], item["answer_option"]) == ("a hen", "B")
    assert ast.literal_eval(item["choices"]) == ["a cat", "a hen", "a dog"]
    rows[1]["answer"] = "a cow"
    write_folder(tmp_path / "bad", "MathVista", rows)
    with pytest.raises(SchemaError, match=r"MathVista: row 1 .* not one of the choices"):
        read_items(tmp_path / "bad", "MathVista", ItemSource.folder, allow_count_mismatch=True)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("MMMU", {"answer": None}, "the item has none of answer"),
        ("MathVista", {"choices": None}, "the item has none of choices"),
        ("MathVista", {"choices": "['a cat', 'a"}, "unterminated string"),
        # The index ends with the numbers of the set, the figure and the question; one is absent.
        ("HallusionBench", {"index": "hub_VD_video_0_1"}, "hub_VD_video_0_1 is too short"),
        ("MMStar", dict.fromkeys("ABCD"), "has no option columns"),
        ("OCRBench", {"answer": None}, "the item has none of answer"),
    ],
)
def test_an_item_that_cannot_be_graded_is_an_error_when_it_is_loaded(
    name: str,
    changes: Row,
    message: str,
    tmp_path: Path,
    hub_rows: Callable,
    write_folder: Callable,
    write_tsv: Callable,
) -> None:
    write_folder(tmp_path, name, hub_rows(name)[:3])
    rows = with_image_bytes(
        read_items(tmp_path, name, ItemSource.folder, allow_count_mismatch=True)
    )
    write_tsv(tmp_path / TSV_FILES[name], rows)
    assert len(read_items(tmp_path, name, ItemSource.tsv, allow_count_mismatch=True)) == 3
    write_tsv(tmp_path / TSV_FILES[name], [rows[0], rows[1] | changes, rows[2]])
    with pytest.raises(SchemaError, match=f"{name}: item .* cannot be graded: .*{message}"):
        read_items(tmp_path, name, ItemSource.tsv, allow_count_mismatch=True)


def test_a_missing_image_is_an_error_only_when_it_is_needed(
    tmp_path: Path, hub_rows: Callable, write_folder: Callable
) -> None:
    rows = [dict(row) for row in hub_rows("MMMU")[:2]]
    rows[1] |= {"question": "<image 1> <image 3>", "image_2": None}
    write_folder(tmp_path, "MMMU", rows)
    good, bad = read_items(tmp_path, "MMMU", ItemSource.folder, allow_count_mismatch=True)
    assert all(loading.image_identity(value) for value in good["image"])
    # Its images are image 1, which it has, and image 3, which it has not.
    images = [part for part in evaluate.build_prompt("MMMU", bad) if part["type"] == "image"]
    with pytest.raises(ImageError, match="there is no image 3"):
        loading.decode_image(images[1]["value"], BUDGET)


def test_a_transparent_image_loses_its_transparency_as_in_the_reference_harness() -> None:
    image = Image.new("RGBA", (28, 28), (10, 20, 30, 0))
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    assert loading.decode_image(buffer.getvalue(), BUDGET).getpixel((3, 3)) == (
        10,
        20,
        30,
    )


def test_small_images_are_enlarged_once_to_the_lower_limit() -> None:
    image = loading.decode_image(png("red"), PixelBudget(280 * 280, 10**7))
    assert image.size == (280, 280)


@pytest.mark.parametrize("value", [b"", None, b"no image", "x" * 80, "nowhere.png"])
def test_a_value_that_is_no_image_is_an_image_error(value: Any) -> None:
    with pytest.raises(ImageError):
        loading.decode_image(value, BUDGET)


def test_the_size_limit_of_image_files_holds_for_decoded_images_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("difftrain.images.MAX_PIXELS", 30 * 40)
    assert loading.decode_image(Image.new("RGB", (30, 40)), BUDGET).mode == "RGB"
    with pytest.raises(ImageError, match="image too large: 41 x 30"):
        loading.decode_image(Image.new("RGB", (41, 30)), BUDGET)


def test_mathverse_s_limit_keeps_the_five_versions_of_evenly_spaced_problems(
    hub_rows: Callable,
) -> None:
    """Every fifth of the 3940 rows has the same version."""
    benchmark = evaluate.benchmark_named("MathVerse")
    rows = loading.limited(benchmark, hub_rows("MathVerse"), 788)
    versions = Counter(row["problem_version"] for row in rows)
    assert len(rows) == 788
    assert max(versions.values()) - min(versions.values()) <= 1
    problems = [int(row["problem_index"]) for row in rows]
    assert (min(problems), len(set(problems))) == (1, 158)
    assert max(problems) > 780


def test_wemath_s_limit_keeps_whole_problems_of_both_kinds(hub_rows: Callable) -> None:
    benchmark, all_rows = evaluate.benchmark_named("WeMath"), hub_rows("WeMath")
    for limit in (1, 10, 100, 1739):
        rows = loading.limited(benchmark, all_rows, limit)
        items = Counter(row["ID"] for row in rows)
        assert len(rows) == limit
        incomplete = [group for group, count in items.items() if count <= int(group[0])]
        assert len(incomplete) <= 1  # the last one
    rows = loading.limited(benchmark, all_rows, 100)
    kinds = Counter(group[0] for group in {row["ID"] for row in rows})
    assert kinds["2"] > kinds["3"] >= 8  # 360 and 165 in the data set
    assert loading.limited(benchmark, all_rows, 5000) == all_rows


@pytest.mark.parametrize(
    ("limit", "num_items"), [(1, 3), (3, 3), (5, 3), (9, 6), (10, 10), (60, 60)]
)
def test_the_built_in_wemath_has_whole_problems_only(limit: int, num_items: int) -> None:
    """Its problems have 3, 3 and 4 items, in turn; at least one problem is drawn."""
    config = EvaluateConfig(benchmarks=["shapes/WeMath"], limit=limit)
    items = Counter(item.row["ID"] for item in loading.load_items(config))
    assert items.total() == num_items
    assert all(count == int(group[0]) + 1 for group, count in items.items())


def test_a_mathverse_table_without_problems_says_what_that_means(
    tmp_path: Path, hub_rows: Callable, write_folder: Callable, write_tsv: Callable
) -> None:
    write_folder(tmp_path, "MathVerse", hub_rows("MathVerse")[:10])
    settings = {"allow_count_mismatch": True}
    items = with_image_bytes(read_items(tmp_path, "MathVerse", ItemSource.folder, **settings))
    path = tmp_path / TSV_FILES["MathVerse"]
    for has_problems in (True, False):
        columns = [{**item} for item in items]
        for row in columns if not has_problems else ():
            del row["problem_index"]
        write_tsv(path, columns)
        tsv = config(tmp_path, "MathVerse", ItemSource.tsv, **settings)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loading.official_items("MathVerse", tsv)
        messages = [str(warning.message) for warning in caught]
        assert any(loading.NO_PROBLEMS in text for text in messages) is not has_problems
        source = loading.describe_source("MathVerse", tsv)
        assert (loading.NO_PROBLEMS in source) is not has_problems


def test_vision_only_gets_the_question_of_another_version_for_the_judge(
    tmp_path: Path, hub_rows: Callable, write_folder: Callable
) -> None:
    write_folder(tmp_path, "MathVerse", hub_rows("MathVerse")[:15])
    rows = read_items(tmp_path, "MathVerse", ItemSource.folder, allow_count_mismatch=True)
    by_version = {row["problem_version"]: row for row in rows if row["problem_index"] == "3"}
    question = by_version["Vision Dominant"]["question_for_eval"]
    assert question == by_version["Vision Only"]["question_for_eval"]
    assert question not in by_version["Vision Only"]["question"]


def test_an_index_that_occurs_twice_is_an_error_even_in_two_problems(
    tmp_path: Path, hub_rows: Callable, write_folder: Callable
) -> None:
    rows = [dict(row) for row in hub_rows("MathVerse")[:10]]
    rows[7]["sample_index"] = rows[0]["sample_index"]
    write_folder(tmp_path, "MathVerse", rows)
    with pytest.raises(SchemaError, match=r"MathVerse: item 1 is in .* twice"):
        read_items(tmp_path, "MathVerse", ItemSource.folder, allow_count_mismatch=True)


def test_a_mathverse_item_without_readable_metadata_is_an_error(
    tmp_path: Path, hub_rows: Callable, write_folder: Callable, write_tsv: Callable
) -> None:
    write_folder(tmp_path, "MathVerse", hub_rows("MathVerse")[:5])
    settings = {"allow_count_mismatch": True}
    items = with_image_bytes(read_items(tmp_path, "MathVerse", ItemSource.folder, **settings))
    for metadata in ("{'subject': 'Functions'}", "[1]", "{'subject':"):
        items[3]["metadata"] = metadata
        write_tsv(tmp_path / TSV_FILES["MathVerse"], items)
        with pytest.raises(SchemaError, match="MathVerse: item 4 cannot be graded"):
            read_items(tmp_path, "MathVerse", ItemSource.tsv, **settings)


def test_wemath_s_options_are_split_at_a_letter_with_a_period() -> None:
    text = "A. 12 cm; B. 24 cm;C. 36; or 40 cm ; D. No correct answer"
    assert wemath.split_options(text) == {
        "A": "12 cm",
        "B": "24 cm",
        "C": "36; or 40 cm",
        "D": "No correct answer",
    }
    for broken in ("", "12 cm; 24 cm", "A. 1; C. 2"):
        with pytest.raises(ValueError, match="must be like"):
            wemath.split_options(broken)
