"""Loads the items of a benchmark, in the columns of the harness (VLMEvalKit), and checks them.

Rows come from a Hugging Face data set (hub or folder) or from the harness's TSV file. Texts are
held in memory; an image cell holds a function that reads the image when it is needed. A folder
has what `save_to_disk` wrote, or parquet files named after their split, as in a clone of the
hub's data set. MMMU may have a folder per subject.
"""

import ast
import base64
import binascii
import csv
import hashlib
import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import datasets
from datasets.exceptions import DatasetsError
from PIL import Image

from difftrain import images
from difftrain.config.evaluate import OFFICIAL, EvaluateConfig, ItemSource
from difftrain.data.prompts import LETTERS
from difftrain.data.quarantine import EmptyDatasetError
from difftrain.evaluate import BENCHMARKS, benchmark_named
from difftrain.evaluate.benchmarks.mmmu import IMAGE_TAG
from difftrain.evaluate.harness import NAN_TEXTS, Benchmark, Item, configured_rules
from difftrain.images import ImageError, PixelBudget
from difftrain.pipeline.parquet import SchemaError
from difftrain.shapes import benchmarks as shapes_benchmarks

NUM_SHAPES_ITEMS = 300  # of each built-in shapes/ benchmark, if evaluate.limit is null
MAX_SHORT_CELL = 64  # characters; longer image cells are base64, others a path or a row's index
SPLITS = ("train", "test", "testmini", "dev", "validation", "val", "image", "non_image")
"""Names of the splits of these benchmarks' data sets."""
NO_PROBLEMS = (
    "no problem_index, so the five versions of a problem count as independent items: the intervals "
    "are too narrow, and evaluate.limit takes single items, not whole problems"
)
"""What a table of MathVerse without the column problem_index means; VLMEvalKit needs none."""
Row = dict[str, Any]  # column -> value


class BenchmarkNotFound(EmptyDatasetError):
    """A data set could not be downloaded; the message says how to evaluate without network."""


@dataclass(frozen=True, slots=True)
class BenchmarkItem:
    """One item: the name of its benchmark, and its row in the harness's columns."""

    benchmark: str
    row: Item

    @property
    def key(self) -> tuple[str, str]:
        """Benchmark and item id, which together are unique."""
        return self.benchmark, benchmark_named(self.benchmark).item_id(self.row)


def load_items(config: EvaluateConfig) -> list[BenchmarkItem]:
    """All items of the requested benchmarks, in order. Raises what `official_items` raises."""
    items = []
    for name in config.benchmarks:
        if name in OFFICIAL:
            rows = official_items(name, config)
        else:
            rows = built_in_items(name, config.limit or NUM_SHAPES_ITEMS)
        items += [BenchmarkItem(name, row) for row in rows]
    return items


def built_in_items(name: str, count: int) -> list[Row]:
    """The first `count` items of a shapes/ benchmark; of WeMath, whose score counts problems, only
    whole problems: at most `count` items, but at least one problem."""
    rows = shapes_benchmarks.items(name, count)
    if not name.endswith("WeMath"):
        return rows
    last, problem = rows[-1]["ID"], benchmark_named(name).problem
    while problem(shapes_benchmarks.items(name, count + 1)[-1]) == last:
        count += 1
    whole = [row for row in rows if row["ID"] != last]
    is_complete = count == len(rows)
    return rows if is_complete else whole or shapes_benchmarks.items(name, count)


def official_items(name: str, config: EvaluateConfig) -> list[Row]:
    """The items of an official benchmark; with `config.limit`, only so many, evenly spaced.

    Raises SchemaError if a column is missing, the number of items is not the official one, an item
    occurs twice, or an item cannot be graded. Raises BenchmarkNotFound if the download fails.
    """
    benchmark = BENCHMARKS[name]
    source, location = config.source_of(name)
    if source is ItemSource.tsv:
        rows = _tsv_rows(benchmark, Path(location))
    else:
        rows = _dataset_rows(benchmark, source, location)
    if name == "MMMU":  # the harness's TSV file also holds the dev split
        rows = [row for row in rows if row.get("split") in (None, "validation")]
    if name == "MathVerse" and any(benchmark.problem(row) is None for row in rows):
        warnings.warn(f"{name}: {location}: {NO_PROBLEMS}", stacklevel=2)
    rows = [_fill_missing_images(row) for row in rows]
    if not config.harness_overrides.kept_texts:
        # pandas, with which the harness reads its files, turns an option or hint "None" into NaN.
        keys = (*LETTERS, "hint")
        rows = [row | {key: None for key in keys if row.get(key) in NAN_TEXTS} for row in rows]
    if len(rows) != benchmark.num_items and not (config.allow_count_mismatch and rows):
        raise SchemaError(
            f"{name}: {len(rows)} items in {location}, but the benchmark has {benchmark.num_items}"
            "; evaluate.allow_count_mismatch=true accepts another number of items"
        )
    for number, row in enumerate(rows):
        _check_gradable(benchmark, row, number, config)
    indices = [str(row["index"]) for row in rows if row.get("index") is not None]
    for ids in ([benchmark.item_id(row) for row in rows], indices):
        if len(set(ids)) < len(ids):
            duplicate = next(item_id for item_id in ids if ids.count(item_id) > 1)
            raise SchemaError(f"{name}: item {duplicate} is in {location} twice")
    return limited(benchmark, rows, config.limit)


def _check_gradable(benchmark: Benchmark, row: Row, number: int, config: EvaluateConfig) -> None:
    rules = configured_rules(config)
    try:
        for function in (benchmark.item_id, benchmark.category, benchmark.prompt):
            function(row)
        for reply in ("yes", "0"):  # these make a scorer read every column it may need
            benchmark.grade(reply, row, lambda *_, reply=reply: reply, rules)  # judge: same reply
    except (ValueError, LookupError, TypeError, SyntaxError, AttributeError) as error:
        item = row.get("id") or row.get("index") or f"number {number}"
        raise SchemaError(f"{benchmark.name}: item {item} cannot be graded: {error}") from error


def evenly_spaced(rows: list[Any], limit: int | None) -> list[Any]:
    """`limit` rows at equal distances, so that every part of the file is represented."""
    if limit is None or limit >= len(rows):
        return rows
    return [rows[i * len(rows) // limit] for i in range(limit)]


def limited(benchmark: Benchmark, rows: list[Row], limit: int | None) -> list[Row]:
    """`limit` rows: those of evenly spaced problems, if the benchmark's items name their problem.

    Then only the last problem may lack items.
    """
    by_problem: dict[str | None, list[Row]] = defaultdict(list)
    for row in rows:
        by_problem[benchmark.problem(row)].append(row)
    if limit is None or limit >= len(rows) or None in by_problem:
        return evenly_spaced(rows, limit)
    number = -(-limit * len(by_problem) // len(rows))
    while True:
        problems = evenly_spaced(list(by_problem), number)
        kept = [row for problem in problems for row in by_problem[problem]]
        if len(kept) >= limit:  # at the latest if all problems are kept
            return kept[:limit]
        number += 1


def _fill_missing_images(row: Row) -> Row:
    """The row, with an ImageError for each image that it requires but lacks."""
    cells = row["image"] if isinstance(row["image"], list) else [row["image"]]
    texts = [str(row[name]) for name in ("question", *LETTERS) if row.get(name) is not None]
    required = {int(tag) for text in texts for tag in IMAGE_TAG.findall(text)} or {1}  # if no tag
    cells = [*cells, *[None] * (max(required) - len(cells))]
    for number in required:
        if cells[number - 1] is None:
            cells[number - 1] = ImageError(f"no image: there is no image {number}")
    return row | {"image": cells}


def describe_source(name: str, config: EvaluateConfig) -> str:
    """Where a benchmark's items came from, for scores.md."""
    if name not in OFFICIAL:
        return "drawn (shapes)"
    source, location = config.source_of(name)
    if source is not ItemSource.tsv:
        return f"{source.value} {location}"
    digest = _md5(Path(location), Path(location).stat().st_mtime_ns)
    newest, *older = BENCHMARKS[name].tsv_md5s
    versions = {newest: "the harness's", **dict.fromkeys(older, "an older one")}
    text = f"tsv {location} (md5 {digest}: {versions.get(digest, 'other')})"
    with Path(location).open("rb") as file:
        columns = file.readline().decode().strip().split("\t")
    has_problems = name != "MathVerse" or "problem_index" in columns
    return text if has_problems else f"{text}; {NO_PROBLEMS}"


def _dataset_cell(
    table: datasets.Dataset, row: int, column: str, root: Path | None, index: int | None = None
) -> Any:
    """The image in a cell, or image `index` of a list in it. Raises ImageError if there is none."""
    cell = table[row][column]
    if cell is None:
        raise ImageError("no image: the cell is empty")
    if index is not None:
        return _base64_texts(cell)[index]
    has_only_path = isinstance(cell, dict) and not cell.get("bytes") and cell.get("path")
    return str(root / cell["path"]) if has_only_path and root else cell  # relative to root


def _tsv_cell(path: Path, start: int, length: int, column: int, index: int) -> str:
    """Image `index` (base64) of a cell in the TSV row at byte `start`. Raises ImageError."""
    with path.open("rb") as file:
        file.seek(start)
        lines = BytesIO(file.read(length))  # BytesIO ends lines only at \n, as _tsv_rows does
    # Empty rows may come first: in _tsv_rows, csv.DictReader skips them before a row.
    cells = next(filter(None, csv.reader(_lines(lines, [0]), delimiter="\t")), [])  # [0]: unused
    texts = _base64_texts(cells[column]) if len(cells) > column else []
    if index >= len(texts):
        raise ImageError(f"no image: {path} has changed since it was read")
    return texts[index]


def image_identity(value: Any) -> bytes:
    """A hash of the image file's bytes; for a missing image, the error message."""
    try:
        return images.file_hash(image_bytes(value))
    except ImageError as error:
        return str(error).encode()


def image_bytes(value: Any) -> bytes:
    """The bytes of an image file, from any form that an image cell can have. Raises ImageError."""
    if isinstance(value, ImageError):
        raise ImageError(*value.args)
    if isinstance(value, partial):
        value = value()
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str) and value:
        is_long = len(value) > MAX_SHORT_CELL
        # A text below 1024 characters may be a path. For a longer one, is_file may raise an error.
        is_base64 = is_long and not (len(value) < 1024 and Path(value).is_file())
        try:
            return base64.b64decode(value) if is_base64 else Path(value).read_bytes()
        except binascii.Error as error:
            raise ImageError(f"broken image: not valid base64 ({error})") from error
        except OSError as error:
            raise ImageError(f"no image: {value} cannot be read ({error.strerror})") from error
    if isinstance(value, bytes) and value:
        return value
    raise ImageError("no image: the cell is empty")


def _base64_texts(cell: str) -> list[str]:
    """The base64 texts in a cell that holds one or a list. Raises ImageError if it is damaged."""
    if not cell.startswith("["):
        return [cell]
    try:
        return [str(text) for text in ast.literal_eval(cell)]
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        problem = f"the cell begins as a list of images but is damaged ({type(error).__name__})"
        raise ImageError(f"broken image: {problem}") from error


def _count_images(cell: str, where: str) -> int:
    """How many images a text cell holds. Raises SchemaError if it is a damaged list."""
    try:
        return len(_base64_texts(cell))
    except ImageError as error:
        raise SchemaError(f"{where}: {error}") from error


def decode_image(value: Any, budget: PixelBudget) -> Image.Image:
    """The image as RGB, resized to the pixel budget. Raises ImageError.

    Transparency is dropped without a white background, as in the harness. The new size is the one
    that the model's processor would choose, so that the processor does not resize it again.
    """
    if isinstance(value, Image.Image):
        images.check_size(value.size)
        image = value
    else:
        image = images.open_image(image_bytes(value))
    try:
        image = image.convert("RGB")
    except images.DECODE_ERRORS as error:
        raise ImageError(f"broken image: damaged or cut short ({error})") from error
    return images.resize_to_budget(image, budget)


def first_line(error: BaseException) -> str:
    """The first line of the error's message; its type's name if there is no message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _from_hub(benchmark: Benchmark, location: str) -> datasets.Dataset:
    """The split of the hub's data set ID or ID@REVISION. Raises BenchmarkNotFound, SchemaError."""
    name, split = benchmark.name, benchmark.hub_split
    hub_id, _, revision = location.partition("@")
    try:
        parts = [
            datasets.load_dataset(hub_id, config, split=split, revision=revision or None)
            for config in benchmark.hub_configs or (None,)
        ]
        return datasets.concatenate_datasets(parts)
    except ValueError as error:
        problem = f"the split {split!r} of {hub_id} is missing or has an unexpected form ({error})"
        raise SchemaError(f"{name}: {problem}") from error
    except OSError as error:
        raise BenchmarkNotFound(
            f"{name}: could not download {location} from the hub, split {split} "
            f"({first_line(error)}); without network, copy the data set to DIR/{name}/ and set "
            "evaluate.source=folder evaluate.path=DIR, or put the reference harness's TSV into DIR "
            "and set evaluate.source=tsv evaluate.path=DIR"
        ) from error


def _from_folder(benchmark: Benchmark, folder: Path) -> datasets.Dataset:
    """The benchmark's split of a data set in a folder. Raises SchemaError if it has none."""
    name, split = benchmark.name, benchmark.hub_split
    folders = [folder / config for config in benchmark.hub_configs]
    if not folders or not all(path.is_dir() for path in folders):
        folders = [folder]
    saved = []
    for path in folders:
        if (path / "dataset_dict.json").is_file():
            splits = datasets.DatasetDict.load_from_disk(str(path))
            if split not in splits:
                names = ", ".join(map(str, splits))
                raise SchemaError(f"{name}: {path} has no split {split!r}, only {names}")
            saved.append(splits[split])
        elif (path / "state.json").is_file():
            saved.append(datasets.Dataset.load_from_disk(str(path)))
    if saved:
        return datasets.concatenate_datasets(saved)
    files = [str(path) for path in folders for path in _parquet_files(path, split)]
    if not files:
        expected = "expected: what save_to_disk writes, or parquet files named after their split"
        raise SchemaError(f"{name}: {folder} holds no split {split!r} ({expected})")
    try:
        return datasets.load_dataset("parquet", data_files=files, split="train")  # its only split
    except (DatasetsError, ValueError) as error:
        reason = first_line(error.__cause__ or error)
        raise SchemaError(f"{name}: {folder} holds no readable parquet ({reason})") from error


def _parquet_files(folder: Path, split: str) -> list[Path]:
    """The parquet files of a split, or all files if none is named after a split."""
    by_split: dict[str, list[Path]] = defaultdict(list)  # "": files not named after a split
    for path in sorted(folder.rglob("*.parquet")):
        names = (path.stem.split("-")[0], path.parent.name)
        by_split[next((name for name in names if name in SPLITS), "")].append(path)
    return by_split[""] if by_split.keys() == {""} else by_split[split]


def _dataset_rows(benchmark: Benchmark, source: ItemSource, location: str) -> list[Row]:
    """A data set's rows in the harness's columns; an image cell is a function that reads it."""
    name, root = benchmark.name, None
    if source is ItemSource.hub:
        table = _from_hub(benchmark, location)
    else:
        root = Path(location)
        table = _from_folder(benchmark, root)
    present = table.column_names
    is_harness_form = set(benchmark.tsv_columns) <= set(present)
    missing = [column for column in benchmark.hub_columns if column not in present]
    if missing and not is_harness_form:
        problem = f"{location} has no column {', '.join(missing)}; it has {', '.join(present)}"
        raise SchemaError(f"{name}: {problem}")
    columns = ("image",) if is_harness_form else benchmark.hub_image_columns
    columns = [column for column in columns if column in present]
    for column in columns:
        if isinstance(table.features[column], datasets.Image):
            table = table.cast_column(column, datasets.Image(decode=False))
    tables = {column: table.select_columns([column]) for column in columns}
    rows: list[Row] = []
    for number, row in enumerate(table):
        assert isinstance(row, dict)  # for the type checker
        for column in columns:
            cell, image = row[column], partial(_dataset_cell, tables[column], number, column, root)
            if isinstance(cell, str) and cell.startswith("["):
                count = _count_images(cell, f"{name}: {root or 'the data set'}: row {number}")
                row[column] = [partial(image, index) for index in range(count)]
            elif cell is not None:
                row[column] = image
        try:
            rows.append(row if is_harness_form else benchmark.to_harness(row, number))
        except (ValueError, KeyError, TypeError) as error:
            problem = f"row {number} does not have the official form: {error}"
            raise SchemaError(f"{name}: {problem}") from error
    return rows if is_harness_form else benchmark.complete_rows(rows)


@cache
def _md5(path: Path, changed_ns: int) -> str:
    """A file's md5, cached until the file changes (`changed_ns`). The harness checks it too."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _lines(file: BinaryIO, bytes_read: list[int]) -> Iterator[str]:
    """The file's lines as text. `bytes_read[0]` is increased by the bytes of every line."""
    for line in file:
        bytes_read[0] += len(line)
        yield line.decode("utf-8")


def _tsv_rows(benchmark: Benchmark, path: Path) -> list[Row]:
    """The rows of the harness's TSV file that have an image, with functions that read the images.

    An image is read at the byte where its row begins, which one pass over the file determines.
    Warns if the file's md5 is not a published one. Raises SchemaError.
    """
    where = f"{benchmark.name}: {path}"
    if not path.is_file():
        raise SchemaError(f"{where} is not a file")
    digest = _md5(path, path.stat().st_mtime_ns)
    if digest not in benchmark.tsv_md5s:
        message = f"{where} has md5 {digest}, the harness's file has {benchmark.tsv_md5s[0]}"
        warnings.warn(message, stacklevel=2)
    csv.field_size_limit(2**31 - 1)  # the default is too small for images
    rows: list[Row] = []
    images_by_index: dict[str, list[partial[str]]] = {}
    try:
        with path.open("rb") as file:
            bytes_read = [0]
            reader = csv.DictReader(_lines(file, bytes_read), delimiter="\t", restval="")
            # The first name may begin with a byte order mark.
            reader.fieldnames = [name.removeprefix("\ufeff") for name in reader.fieldnames or ()]
            if missing := [name for name in benchmark.tsv_columns if name not in reader.fieldnames]:
                listed = ", ".join(reader.fieldnames)
                raise SchemaError(f"{where} has no column {', '.join(missing)}; it has {listed}")
            column, end = reader.fieldnames.index("image"), bytes_read[0]
            for number, cells in enumerate(reader, 1):
                start, end = end, bytes_read[0]
                if None in cells:  # csv.DictReader's key of the cells without a column
                    num_columns = len(reader.fieldnames)
                    num_cells = num_columns + len(cells[None])
                    reason = f"row {number} has {num_cells} cells for {num_columns} columns"
                    raise SchemaError(f"{where} is no valid TSV: {reason}")
                row: Row = {name: cell or None for name, cell in cells.items()}
                if row["image"] is None:
                    continue
                if len(row["image"]) > MAX_SHORT_CELL:
                    row["image"] = images_by_index[str(row["index"])] = [
                        partial(_tsv_cell, path, start, end - start, column, index)
                        for index in range(_count_images(row["image"], f"{where}: row {number}"))
                    ]
                rows.append(row)
    except (csv.Error, UnicodeDecodeError) as error:
        raise SchemaError(f"{where} is no valid TSV: {error}") from error
    for row in rows:
        if isinstance(row["image"], str):
            if row["image"] not in images_by_index:
                reason = f"row {row['index']} uses the image of row {row['image']}, which has none"
                raise SchemaError(f"{where}: {reason}")
            row["image"] = images_by_index[row["image"]]
    return rows
