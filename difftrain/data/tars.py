"""Pictures inside an uncompressed .tar that nobody has unpacked, found by their whole path.

A tar is read through once, header by header; where each file lies is kept in a temporary table on
disk, so that a tar of hundreds of thousands of pictures costs no memory. Not here: zips (find.py).
"""

import sqlite3
import tarfile
from functools import lru_cache
from pathlib import PurePosixPath
from typing import IO

from difftrain import images
from difftrain.data.quarantine import EmptyDatasetError
from difftrain.data.store import Folder, Store, shortened, too_large
from difftrain.images import ImageError

SUFFIX = ".tar"


class Packed:
    """The files inside the tars of one folder."""

    def __init__(self, folder: Folder) -> None:
        self._held = sqlite3.connect("")  # a file of its own, deleted when closed
        self._held.execute(
            "CREATE TABLE file (name TEXT PRIMARY KEY, tar INTEGER, start INTEGER, size INTEGER)"
            " WITHOUT ROWID"
        )
        self._opened: list[IO[bytes]] = []
        for name in folder.names():
            if name.endswith(SUFFIX):
                self._enter(folder, name)

    def _enter(self, folder: Folder, name: str) -> None:
        file, number = folder.open(name), len(self._opened)
        self._opened.append(file)
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for each in archive:
                    # tarfile keeps every header otherwise
                    archive.members = []  # pyright: ignore[reportAttributeAccessIssue]
                    if each.isreg() and not each.issparse():
                        row = (plain(each.name), number, each.offset_data, each.size)
                        self._held.execute("INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?)", row)
        except tarfile.TarError as error:
            raise EmptyDatasetError(
                f"{name} is no readable tar ({error}); fetch it again"
            ) from error

    def read(self, name: str) -> bytes | None:
        """A file's bytes, None where no tar has it. Raises ImageError for one that is too large."""
        asked = "SELECT tar, start, size FROM file WHERE name = ?"
        found = self._held.execute(asked, (plain(name),)).fetchone()
        if found is None:
            return None
        number, start, size = found
        if size > images.MAX_FILE_BYTES:
            raise too_large(name)
        self._opened[number].seek(start)
        return self._opened[number].read(size)


def plain(name: str) -> str:
    """A path without ./ and / before it."""
    return str(PurePosixPath("/", name)).lstrip("/")


@lru_cache(maxsize=2)
def packed(folder: Folder) -> Packed:
    """The tars of a folder, read through once. Raises EmptyDatasetError for one that is damaged."""
    return Packed(folder)


def inside(store: Store, root: str, name: str) -> bytes:
    """A picture below the folder `root`, which lies there loose or in a tar. Raises ImageError."""
    below = plain(name).removeprefix(f"{root}/")
    for path in (f"{root}/{below}", below):
        if store.holds(path):
            return store.picture(path)
    if isinstance(store, Folder):
        content = packed(Folder(store.root)).read(f"{root}/{below}")
        if content is not None:
            return content
    elif tars := [each for each in store.names() if each.endswith(SUFFIX)]:
        raise ImageError(
            f"missing file: {shortened(below)} is in {tars[0]}, which cannot be looked into from "
            "afar; download the dataset and name its folder: data.path=FOLDER"
        )
    raise ImageError(
        f"missing file: {shortened(below)} (looked in {store.root}/{root} and its tar)"
    )
