"""From a benchmark's name to its items in the harness's columns, counted and checked.

Text columns are in memory, pictures stay where they are until they are asked for.
"""

import hashlib
import warnings
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from difftrain.config.evaluate import EvaluateConfig, ItemSource
from difftrain.data.prompts import LETTERS
from difftrain.evaluate import hub, tsv
from difftrain.evaluate.mmmu import TAG
from difftrain.evaluate.official import OFFICIAL, Official
from difftrain.evaluate.pictures import NoPicture
from difftrain.evaluate.rules import NOT_TEXTS, evaluated
from difftrain.evaluate.scoring import benchmark_named
from difftrain.pipeline.parquet import SchemaError

Row = dict[str, Any]
T = TypeVar("T")

EVALUATED_SPLIT = "validation"
"""Of MMMU; the harness's file holds its dev split too, which is reported apart there. What other
benchmarks write into `split` leaves no row out."""


def official_items(name: str, config: EvaluateConfig) -> list[Row]:
    """The items of an official benchmark, at most `config.limit`, spread evenly.

    Raises SchemaError naming the benchmark and its missing columns, its expected and found number
    of items, an item that stands there twice or that cannot be graded; hub.BenchmarkNotFound
    without network.
    """
    kind, place = config.place(name)
    rows = (
        from_tsv(name, Path(place)) if kind is ItemSource.tsv else from_data_set(name, kind, place)
    )
    if name == "MMMU":
        rows = [row for row in rows if row.get("split") in (None, EVALUATED_SPLIT)]
    rows = [with_pictures(row) for row in rows]
    if not config.harness_overrides.kept_texts:
        rows = [without_lost_texts(row) for row in rows]
    expected = OFFICIAL[name].count
    if len(rows) != expected and not (config.allow_count_mismatch and rows):
        raise SchemaError(
            f"{name}: {len(rows)} items in {place}, but the benchmark has {expected}; "
            "evaluate.allow_count_mismatch=true takes another number of them"
        )
    for number, row in enumerate(rows):
        check_gradable(name, row, number, config)
    identities = [benchmark_named(name).item_id(row) for row in rows]
    if len(set(identities)) < len(identities):
        twice = next(each for each in identities if identities.count(each) > 1)
        raise SchemaError(f"{name}: item {twice} stands in {place} twice")
    return spread(rows, config.limit)


def check_gradable(name: str, row: Row, number: int, config: EvaluateConfig) -> None:
    """Raises SchemaError if the item cannot be asked or graded, which hours later would be a crash.

    It is graded twice on words that reach every cell that a scorer reads.
    """
    kind, how = benchmark_named(name), evaluated(config)
    try:
        for read in (kind.item_id, kind.subset, kind.prompt):
            read(row)
        for said in ("yes", "0"):
            kind.grade(said, row, lambda *_, said=said: said, how)
    except (ValueError, LookupError, TypeError, SyntaxError, AttributeError) as error:
        item = row.get("id") or row.get("index") or f"number {number}"
        raise SchemaError(f"{name}: item {item} cannot be graded: {error}") from error


def spread(rows: list[T], limit: int | None) -> list[T]:
    """`limit` of the rows at equal distances, in order, so that every part of the file is there."""
    if limit is None or limit >= len(rows):
        return rows
    return [rows[place * len(rows) // limit] for place in range(limit)]


def with_pictures(row: Row) -> Row:
    """The row with something in every place where a picture is shown, if only a NoPicture."""
    pictures = row["image"] if isinstance(row["image"], list) else [row["image"]]
    words = [str(row[name]) for name in ("question", *LETTERS) if row.get(name) is not None]
    mentioned = {int(number) for text in words for number in TAG.findall(text)} or {1}
    pictures = [*pictures, *[None] * (max(mentioned) - len(pictures))]
    for number in mentioned:
        if pictures[number - 1] is None:
            pictures[number - 1] = NoPicture(f"no image: there is no image {number}")
    return row | {"image": pictures}


def without_lost_texts(row: Row) -> Row:
    """The row as the reference's tables read it: an option or a hint named None is not there."""
    lost = [name for name in (*LETTERS, "hint") if row.get(name) in NOT_TEXTS]
    return row | dict.fromkeys(lost)


def from_tsv(name: str, path: Path) -> list[Row]:
    """The rows of the harness's file; one whose md5 is not the published one is warned about."""
    if not path.is_file():
        raise SchemaError(f"{name}: {path} is not a file")
    found = md5(path, path.stat().st_mtime_ns)
    if found not in OFFICIAL[name].md5:
        newest = OFFICIAL[name].md5[0]
        told = f"{name}: {path} has md5 {found}, the harness's file has {newest}"
        warnings.warn(told, stacklevel=2)
    try:
        return tsv.rows(path, OFFICIAL[name].tsv_columns)
    except SchemaError as error:
        raise SchemaError(f"{name}: {error}") from error


@cache
def md5(path: Path, changed: int) -> str:
    """A file's md5, as the harness checks it; `changed` is its time in nanoseconds."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def from_data_set(name: str, kind: ItemSource, place: str) -> list[Row]:
    """The rows of a data set of the hub's columns, or of the harness's."""
    known = OFFICIAL[name]
    if kind is ItemSource.hub:
        table, root = hub.from_hub(name, place, known.configs, known.split), None
    else:
        root = Path(place)
        table = hub.from_folder(name, root, known.configs, known.split)
    has = table.column_names
    if set(known.tsv_columns) <= set(has):
        return [dict(row) for row in hub.rows(name, table, ("image",), root)]
    if missing := [column for column in known.columns if column not in has]:
        told = f"{place} has no column {', '.join(missing)}; it has {', '.join(has)}"
        raise SchemaError(f"{name}: {told}")
    return list(converted(name, known, hub.rows(name, table, known.pictures, root)))


def converted(name: str, known: Official, rows: Iterable[Row]) -> Iterable[Row]:
    """Hub rows in the harness's columns. Raises SchemaError naming a row that has no such form."""
    for number, row in enumerate(rows):
        try:
            yield known.convert(row, number)
        except (ValueError, KeyError, TypeError) as error:
            raise SchemaError(
                f"{name}: row {number} is not of the official form: {error}"
            ) from error


def origin(name: str, config: EvaluateConfig) -> str:
    """Where a benchmark's items came from, in words that stand beside the score."""
    if name not in OFFICIAL:
        return "drawn (shapes)"
    kind, place = config.place(name)
    if kind is not ItemSource.tsv:
        return f"{kind.value} {place}"
    found = md5(Path(place), Path(place).stat().st_mtime_ns)
    known = OFFICIAL[name].md5
    verdict = (
        "the harness's" if found == known[0] else "an older one" if found in known else "other"
    )
    return f"tsv {place} (md5 {found}: {verdict})"
