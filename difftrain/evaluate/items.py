"""From a benchmark's name to its items in the harness's columns, counted and checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from difftrain.config.evaluate import OFFICIAL, EvaluateConfig, ItemSource
from difftrain.data.prompts import LETTERS
from difftrain.evaluate import BENCHMARKS, benchmark_named, loading
from difftrain.evaluate.benchmarks.mmmu import IMAGE_TAG
from difftrain.evaluate.item_images import MissingImage
from difftrain.evaluate.loading import Row
from difftrain.evaluate.types import NOT_TEXTS, Item, configured_rules
from difftrain.pipeline.parquet import SchemaError
from difftrain.shapes import benchmarks as miniatures

T = TypeVar("T")

MINIATURE_ITEMS = 300
"""Items of a miniature when evaluate.limit is null."""
EVALUATED_SPLIT = "validation"
"""Of MMMU; the harness's file holds its dev split too, which is reported apart there. What other
benchmarks write into `split` leaves no row out."""


@dataclass(frozen=True, slots=True)
class BenchmarkItem:
    """One item of a benchmark."""

    benchmark: str
    item: Item

    @property
    def key(self) -> tuple[str, str]:
        """Benchmark and item id: unique among all item results of a checkpoint."""
        return self.benchmark, benchmark_named(self.benchmark).item_id(self.item)


def load_items(config: EvaluateConfig) -> list[BenchmarkItem]:
    """All items of the requested benchmarks, in order; images of official ones are not read yet.

    Raises what `official_items` raises.
    """
    return [
        BenchmarkItem(name, item)
        for name in config.benchmarks
        for item in (
            official_items(name, config)
            if name in OFFICIAL
            else miniatures.items(name.removeprefix("shapes/"), config.limit or MINIATURE_ITEMS)
        )
    ]


def official_items(name: str, config: EvaluateConfig) -> list[Row]:
    """The items of an official benchmark, at most `config.limit`, spread evenly.

    Raises SchemaError naming the benchmark and its missing columns, its expected and actual number
    of items, a duplicate item or one that cannot be graded; BenchmarkNotFound without network.
    """
    official = BENCHMARKS[name].official
    source, place = config.place(name)
    if source is ItemSource.tsv:
        rows = loading.load_tsv_rows(name, official, Path(place))
    else:
        rows = loading.load_dataset_rows(name, official, source, place)
    if name == "MMMU":
        rows = [row for row in rows if row.get("split") in (None, EVALUATED_SPLIT)]
    rows = [with_images(row) for row in rows]
    if not config.harness_overrides.kept_texts:
        rows = [without_lost_texts(row) for row in rows]
    if len(rows) != official.count and not (config.allow_count_mismatch and rows):
        raise SchemaError(
            f"{name}: {len(rows)} items in {place}, but the benchmark has {official.count}; "
            "evaluate.allow_count_mismatch=true accepts another number of items"
        )
    for number, row in enumerate(rows):
        check_gradable(name, row, number, config)
    ids = [BENCHMARKS[name].item_id(row) for row in rows]
    if len(set(ids)) < len(ids):
        duplicate = next(item_id for item_id in ids if ids.count(item_id) > 1)
        raise SchemaError(f"{name}: item {duplicate} is in {place} twice")
    return evenly_spaced(rows, config.limit)


def check_gradable(name: str, row: Row, number: int, config: EvaluateConfig) -> None:
    """Raises SchemaError if the item's prompt or grade cannot be made, which would crash later.

    It is graded on two predictions that reach every cell that a scorer reads.
    """
    benchmark, rules = BENCHMARKS[name], configured_rules(config)
    try:
        for function in (benchmark.item_id, benchmark.category, benchmark.prompt):
            function(row)
        for prediction in ("yes", "0"):
            benchmark.grade(prediction, row, lambda *_, reply=prediction: reply, rules)
    except (ValueError, LookupError, TypeError, SyntaxError, AttributeError) as error:
        item = row.get("id") or row.get("index") or f"number {number}"
        raise SchemaError(f"{name}: item {item} cannot be graded: {error}") from error


def evenly_spaced(rows: list[T], limit: int | None) -> list[T]:
    """`limit` of the rows at equal distances, in order, so that every part of the file is there."""
    if limit is None or limit >= len(rows):
        return rows
    return [rows[i * len(rows) // limit] for i in range(limit)]


def with_images(row: Row) -> Row:
    """The row with something in every place where an image is shown, if only a MissingImage."""
    images = row["image"] if isinstance(row["image"], list) else [row["image"]]
    texts = [str(row[name]) for name in ("question", *LETTERS) if row.get(name) is not None]
    mentioned = {int(number) for text in texts for number in IMAGE_TAG.findall(text)} or {1}
    images = [*images, *[None] * (max(mentioned) - len(images))]
    for number in mentioned:
        if images[number - 1] is None:
            images[number - 1] = MissingImage(f"no image: there is no image {number}")
    return row | {"image": images}


def without_lost_texts(row: Row) -> Row:
    """The row as the reference's tables read it: an option or a hint named None is not there."""
    lost = [name for name in (*LETTERS, "hint") if row.get(name) in NOT_TEXTS]
    return row | dict.fromkeys(lost)


def describe_source(name: str, config: EvaluateConfig) -> str:
    """Where a benchmark's items came from, to be printed beside the score."""
    if name not in OFFICIAL:
        return "drawn (shapes)"
    source, place = config.place(name)
    if source is not ItemSource.tsv:
        return f"{source.value} {place}"
    digest = loading.md5(Path(place), Path(place).stat().st_mtime_ns)
    published: Sequence[str] = BENCHMARKS[name].official.md5
    is_newest, is_older = digest == published[0], digest in published
    verdict = "the harness's" if is_newest else "an older one" if is_older else "other"
    return f"tsv {place} (md5 {digest}: {verdict})"
