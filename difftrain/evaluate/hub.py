"""Benchmarks as Hugging Face data sets, from the hub or from a folder; pictures stay on disk.

A folder holds what `save_to_disk` wrote, or parquet files named after their split (a clone of
the hub's data set), for MMMU in one folder a subject or all together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
from datasets.exceptions import DatasetsError

from difftrain.data.quarantine import EmptyDatasetError
from difftrain.evaluate.pictures import listed
from difftrain.images import ImageError
from difftrain.pipeline.parquet import SchemaError

SPLITS = ("train", "test", "testmini", "dev", "validation", "val", "image", "non_image")
"""Names of splits that data sets of these benchmarks have."""
Row = dict[str, Any]


class BenchmarkNotFound(EmptyDatasetError):
    """A data set is not to be had from the hub; the message says what to do without it."""


@dataclass(frozen=True, slots=True)
class RowPicture:
    """The picture in one cell of a data set that lies on disk."""

    table: datasets.Dataset = field(repr=False)
    row: int
    column: str
    root: Path | None = None
    place: int | None = None
    """Which of a list of pictures that the cell holds as text."""

    def read(self) -> Any:
        """The cell: {bytes, path} or base64. Raises ImageError if it is empty."""
        found = self.table[self.row][self.column]
        if found is None:
            raise ImageError("no image: the cell is empty")
        if self.place is not None:
            return listed(found)[self.place]
        named_only = isinstance(found, dict) and not found.get("bytes") and found.get("path")
        return str(self.root / found["path"]) if named_only and self.root else found


def from_hub(name: str, place: str, configs: Sequence[str], split: str) -> datasets.Dataset:
    """A split of a hub data set, `id` or `id@revision`. Raises BenchmarkNotFound, SchemaError."""
    identity, _, revision = place.partition("@")
    try:
        return datasets.concatenate_datasets(
            [
                datasets.load_dataset(identity, config, split=split, revision=revision or None)
                for config in configs or (None,)
            ]
        )
    except ValueError as error:
        told = f"{name}: {identity} has no split {split!r} of the form expected ({error})"
        raise SchemaError(told) from error
    except OSError as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BenchmarkNotFound(
            f"{name}: {place} is not to be had from the hub, split {split} ({first}); without "
            "network, copy "
            f"the data set to DIR/{name}/ and say evaluate.source=folder evaluate.path=DIR, or put "
            "the reference harness's TSV into DIR and say evaluate.source=tsv evaluate.path=DIR"
        ) from error


def from_folder(name: str, folder: Path, configs: Sequence[str], split: str) -> datasets.Dataset:
    """A split of a data set in a folder. Raises SchemaError if nothing there is one."""
    inside = [folder / config for config in configs]
    places = inside if inside and all(each.is_dir() for each in inside) else [folder]
    if found := [saved(name, place, split) for place in places if is_saved(place)]:
        return datasets.concatenate_datasets(found)
    files = [str(path) for place in places for path in parquet_files(place, split)]
    if not files:
        told = "what save_to_disk writes, or parquet files"
        raise SchemaError(f"{name}: {folder} holds no split {split!r} ({told})")
    try:
        return datasets.load_dataset("parquet", data_files=files, split="train")
    except (DatasetsError, ValueError) as error:
        told = str(error.__cause__ or error).strip().splitlines()[0]
        raise SchemaError(f"{name}: {folder} holds no readable parquet ({told})") from error


def is_saved(folder: Path) -> bool:
    """Whether save_to_disk wrote this folder."""
    return any((folder / each).is_file() for each in ("dataset_dict.json", "state.json"))


def saved(name: str, folder: Path, split: str) -> datasets.Dataset:
    """A split that save_to_disk wrote, alone or among others. Raises SchemaError without it."""
    if not (folder / "dataset_dict.json").is_file():
        return datasets.Dataset.load_from_disk(str(folder))
    several = datasets.DatasetDict.load_from_disk(str(folder))
    if split not in several:
        told = f"{folder} has no split {split!r}, only {', '.join(map(str, several))}"
        raise SchemaError(f"{name}: {told}")
    return several[split]


def parquet_files(folder: Path, split: str) -> list[Path]:
    """The parquet files of a split; where no file is named after a split, all of them."""

    def named(path: Path) -> str | None:
        words = (path.stem.split("-")[0], path.parent.name)
        return next((word for word in words if word in SPLITS), None)

    files = sorted(folder.rglob("*.parquet"))
    if any(named(path) for path in files):
        return [path for path in files if named(path) == split]
    return files


def rows(
    name: str, table: datasets.Dataset, pictures: Sequence[str], root: Path | None
) -> Iterator[Row]:
    """The rows in order, with a RowPicture (None where there is none) in each picture column.

    Raises SchemaError naming a row whose list of pictures is damaged.
    """
    present = [column for column in pictures if column in table.column_names]
    for column in present:
        if isinstance(table.features[column], datasets.Image):
            table = table.cast_column(column, datasets.Image(decode=False))
    alone = {column: table.select_columns([column]) for column in present}
    for number, row in enumerate(table):
        assert isinstance(row, dict)
        for column in present:
            cell, own = row[column], (alone[column], number, column, root)
            if isinstance(cell, str) and cell.startswith("["):
                try:
                    several = range(len(listed(cell)))
                except ImageError as error:
                    told = f"{root or 'the data set'}: row {number}: {error!s}"
                    raise SchemaError(f"{name}: {told}") from error
                row[column] = [RowPicture(*own, place) for place in several]
            else:
                row[column] = None if cell is None else RowPicture(*own)
        yield row
