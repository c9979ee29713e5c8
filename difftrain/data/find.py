"""Which files of a store hold rows, and where a picture lies that is known under a foreign prefix.

Not here: reading a file (store.py, containers.py).
"""

import zipfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import PurePosixPath

from difftrain import images
from difftrain.data.quarantine import EmptyDatasetError
from difftrain.data.store import Folder, Store, shortened, too_large
from difftrain.images import ImageError

SPLITS = {"train", "test", "validation", "valid", "val", "dev"}
NO_ROWS = {"dataset_info.json", "dataset_infos.json", "state.json"}
"""Files about a data set that lie beside it."""


def data_files(store: Store, split: str, suffixes: Sequence[str]) -> list[str]:
    """The files that rows are read from: of the wanted split where their names tell splits."""
    if isinstance(store, Folder) and store.only:
        return [store.only]
    names = [name for name in store.names() if name.endswith(tuple(suffixes))]
    told = {name: split_of(name) for name in names}
    names = [name for name in names if told[name] in (None, split)]
    return [name for name in names if PurePosixPath(name).name not in NO_ROWS]


def split_of(name: str) -> str | None:
    """The split that a file's folders or its name's first word tell; None where they do not."""
    path = PurePosixPath(name)
    words = [*path.parts[:-1], path.name.replace("-", "_").replace(".", "_").split("_")[0]]
    return next((word for word in words if word in SPLITS), None)


@lru_cache(maxsize=2)
def packed(store: Store) -> dict[str, list[tuple[zipfile.ZipFile, str]]]:
    """Members of the store's .zip files by their last name; archives stay open."""
    found: dict[str, list[tuple[zipfile.ZipFile, str]]] = {}
    inside = Folder(store.root) if isinstance(store, Folder) else store
    for name in inside.names():
        if name.endswith(".zip"):
            try:
                archive = zipfile.ZipFile(inside.open(name))
            except zipfile.BadZipFile as error:
                raise EmptyDatasetError(
                    f"{name} is no readable zip ({error}); fetch it again"
                ) from error
            for member in archive.namelist():
                found.setdefault(PurePosixPath(member).name, []).append((archive, member))
    return found


def anywhere(store: Store, name: str) -> bytes:
    """A picture that the data set knows under a foreign prefix: by the longest tail of its name.

    Looked for in the folder first, then inside its .zip files. Raises ImageError.
    """
    parts = PurePosixPath(name).parts
    for start in range(len(parts)):
        tail = PurePosixPath(*parts[start:])
        if not tail.is_absolute() and ".." not in tail.parts and store.holds(str(tail)):
            return store.picture(str(tail))
    held = packed(store).get(parts[-1], []) if parts else []
    if not held:
        raise ImageError(f"missing file: {shortened(name)} (looked in {store.root} and its zips)")
    archive, member = max(held, key=lambda each: tail_in_common(each[1], name))
    if archive.getinfo(member).file_size > images.MAX_FILE_BYTES:
        raise too_large(name)
    try:
        return archive.read(member)
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError) as error:
        raise ImageError(f"broken image: {shortened(member)} in its zip ({error})") from error


def tail_in_common(one: str, other: str) -> int:
    """How many last parts two names share."""
    both = (reversed(PurePosixPath(each).parts) for each in (one, other))
    shared = 0
    for mine, theirs in zip(*both, strict=False):
        if mine != theirs:
            break
        shared += 1
    return shared
