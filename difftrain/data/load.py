"""One stream of rows from whichever source the settings name, and that stream's identity."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

from difftrain import images
from difftrain.config.data import DataConfig, Duplicates, Source
from difftrain.data import containers, find, pictures, rows, store
from difftrain.data.duplicates import Seen
from difftrain.data.formats import FORMATS
from difftrain.data.formats.origin import Origin
from difftrain.data.quarantine import EmptyDatasetError, RejectedRow, RowError
from difftrain.images import DecodedImage, ImageError
from difftrain.pipeline import manifest
from difftrain.records import Sample
from difftrain.shapes import pool
from difftrain.shapes.pool import Split

READ = ("source", "limit", "split", "tasks", "duplicates", "box_format", "min_pixels", "max_pixels")
MATTERS = {Source.shapes: ("source", "limit", "num_samples", "world_seed")}
"""Settings that change a source's rows (READ for all but shapes); others leave stages valid."""
SCANNED = 64 << 20
"""Bytes of a jsonl or json up to which the pictures it points to are looked up for its identity."""


@dataclass(slots=True)
class Tally:
    """What a reading counted beside its rows.

    `left_out` are rows of tasks that were not asked for; `copies` repeated rows, dropped or kept;
    `tokens` the image tokens of all pictures, `most_tokens` those of the largest. `found_alike` is
    told of each of the `alike` rows and of the row that it looks like.
    """

    left_out: int = 0
    copies: int = 0
    pictures: int = 0
    resized: int = 0
    tokens: int = 0
    most_tokens: int = 0
    alike: int = 0
    found_alike: Callable[[str, str], None] = lambda one, other: None

    def enter(self, shown: list[DecodedImage]) -> None:
        """Count a sample's pictures."""
        for each in shown:
            self.pictures += 1
            self.resized += each.size != each.original_size
            self.tokens += each.num_tokens
            self.most_tokens = max(self.most_tokens, each.num_tokens)


def samples(config: DataConfig, tally: Tally | None = None) -> Iterator[Sample | RejectedRow]:
    """The first `limit` rows of the source, each a Sample or RejectedRow; read one by one.

    Raises EmptyDatasetError where no file holds rows, Unreachable where the hub does not answer.
    """
    tally = tally or Tally()
    if config.source is Source.shapes:
        drawn = pool.samples(Split.pool, config.num_samples, config.world_seed)
        return islice(drawn, config.limit)
    return told_apart(config, tally)


def files(config: DataConfig) -> tuple[store.Store, list[str]]:
    """The files that rows come from. Raises EmptyDatasetError naming what was looked for."""
    where, form = store.of(config), FORMATS[config.source]
    names = find.data_files(where, config.split, form.suffixes)
    if config.tasks is not None:
        names = [name for name in names if form.task_of_file(name) in (None, *config.tasks)]
    if not names:
        wanted = " or ".join(form.suffixes)
        raise EmptyDatasetError(
            f"{config.path} holds no {wanted} file for source={config.source.value}, "
            f"split={config.split}, tasks={config.tasks or 'all'}"
        )
    return where, names


def told_apart(config: DataConfig, tally: Tally) -> Iterator[Sample | RejectedRow]:
    """Rows of files, with what repeats dropped or given an identity of its own."""
    seen = Seen()
    try:
        for row in islice(read(config, tally), config.limit):
            if isinstance(row, RejectedRow):
                yield row
                continue
            found, shown = row
            first, times = seen.before(found)
            tally.copies += times > 0
            if times and config.duplicates is Duplicates.drop:
                told = f"duplicate: the same pictures, question and answer as {first}"
                yield RejectedRow(found.source, told)
                continue
            tally.enter(shown)
            if times:
                yield replace(found, sample_id=images.copy_id(found.sample_id, times))
            else:
                seen.note(found, shown)
                yield found
        for one, other in seen.alike():
            tally.alike += 1
            tally.found_alike(one, other)
    finally:
        seen.close()


def read(
    config: DataConfig, tally: Tally
) -> Iterator[tuple[Sample, list[DecodedImage]] | RejectedRow]:
    """Every row of the files as Sample with its pictures, or RejectedRow."""
    where, names = files(config)
    form = FORMATS[config.source]
    for place, row in containers.rows(where, names):
        try:
            if isinstance(row, RowError):
                raise row
            asked = form.asked(row, Origin(where, place.rpartition(":")[0]))
            if config.tasks is not None and asked.task not in config.tasks:
                tally.left_out += 1
                continue
            yield rows.sample(asked, place, where, config)
        except (RowError, ImageError) as error:
            yield RejectedRow(place, str(error))


def inputs(config: DataConfig) -> dict[str, str]:
    """Fingerprints of what is read: files by content, a hub dataset by its commit.

    `pictures` covers the sizes of the picture files that rows point to (see picture_sizes).
    """
    if config.source is Source.shapes:
        return {}
    where, names = files(config)
    found = where.identity(names)
    if isinstance(where, store.Folder) and (sizes := picture_sizes(where, names, config)):
        found["pictures"] = sizes
    return found


def picture_sizes(where: store.Folder, names: list[str], config: DataConfig) -> str | None:
    """A digest of name and size of every picture file that small text files point to, or None.

    Sizes are a cheap look at each file, and a replaced picture nearly always has another one. Times
    are left out on purpose: a copied folder must keep its identity, or weeks of probing are lost.
    Larger text files (SCANNED) and parquet, which mostly holds its pictures, are not looked
    through.
    """
    digest, looked_up = hashlib.blake2b(digest_size=6), 0
    form = FORMATS[config.source]
    small = [name for name in names if not name.endswith(".parquet")]
    small = [name for name in small if (where.root / name).stat().st_size <= SCANNED]
    for place, row in islice(containers.rows(where, small), config.limit):
        if isinstance(row, RowError):
            continue
        try:
            asked = form.asked(row, Origin(where, place.rpartition(":")[0]))
        except (RowError, ImageError):
            continue
        for each in asked.pictures:
            if path := pictures.path_of(each):
                digest.update(f"{path}:{where.size(path)}\n".encode())
                looked_up += 1
    for name in where.names() if looked_up else ():
        if name.endswith((".zip", ".tar")):
            digest.update(f"{name}:{where.size(name)}\n".encode())
    return digest.hexdigest() if looked_up else None


def identity(config: DataConfig) -> str:
    """Twelve hex digits that change when the samples would.

    A file keeps its identity when it is moved with its pictures; its name counts, because sources
    carry it. Missed: a picture replaced by one of the very same number of bytes.
    """
    settings = asdict(config)
    kept = {key: settings[key] for key in MATTERS.get(config.source, READ)}
    return manifest.fingerprint([kept, inputs(config)])


def originals(config: DataConfig) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place and content of every row that is an object, as the files hold it; none for shapes."""
    if config.source is Source.shapes:
        return
    for place, row in containers.rows(*files(config)):
        if not isinstance(row, RowError):
            yield place, row
