"""Opens the files of a source, a local folder or a hub dataset, and reads the images of its rows.

Nothing else is read from the internet; image URLs are refused. readers.py reads the rows in the
files, and difftrain/images.py decodes images.
"""

import base64
import io
import os
import re
import sqlite3
import tarfile
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import unquote

import httpx
from huggingface_hub import HfApi, HfFileSystem
from PIL import Image

from difftrain.config.data import DataConfig
from difftrain.data.quarantine import EmptyDatasetError
from difftrain.images import MAX_FILE_BYTES, ImageError, to_png
from difftrain.pipeline import manifest

SPLITS = {"train", "test", "validation", "valid", "val", "dev"}
BASE64 = re.compile(r"[A-Za-z0-9+/=\s]+")
# How the base64 of a PNG, JPEG, GIF, WebP, TIFF or BMP file starts.
BASE64_STARTS = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR", "SUkqA", "TU0AK", "Qk")
PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16")
MIN_BASE64 = 48  # characters; no image file is as small as 36 bytes


class HubUnavailable(EmptyDatasetError):
    """The hub did not answer or refused, so no row can be read. The message says what to do."""


@contextmanager
def hub_request(failure: str, advice: str) -> Iterator[None]:
    """Turn a hub error inside the block into HubUnavailable("FAILURE (ERROR). ADVICE")."""
    try:
        yield
    except (OSError, ValueError, httpx.HTTPError) as error:
        message = str(error).splitlines()[0] if str(error) else "-"
        raise HubUnavailable(f"{failure} ({type(error).__name__}: {message}). {advice}") from error


@dataclass(frozen=True, slots=True)
class Folder:
    """A local folder."""

    root: Path

    def names(self) -> list[str]:
        """The sorted relative paths of all files below the folder, except hidden ones."""
        names = []
        for folder, subfolders, files in os.walk(self.root):
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            relative = Path(folder).relative_to(self.root)
            names += [(relative / name).as_posix() for name in files if not name.startswith(".")]
        return sorted(names)

    def open(self, name: str) -> IO[bytes]:
        return (self.root / name).open("rb")

    def open_archive(self, name: str) -> IO[bytes]:
        """Open a zip, whose members are read in any order."""
        return self.open(name)

    def has_file(self, name: str) -> bool:
        return (self.root / name).is_file()

    def read_image(self, name: str) -> bytes:
        """An image file's bytes; absolute names and ~ are allowed. Raises ImageError."""
        try:
            path = self.root / os.path.expanduser(name)
            if not path.is_file():
                raise _missing_file_error(name, self.root)
            _require_size(path.stat().st_size, name)
            return path.read_bytes()
        except OSError as error:
            raise ImageError(f"missing file: {_shorten(name)} cannot be read ({error})") from error

    def file_size(self, name: str) -> int | None:
        """The size of an image file in bytes, or None if there is no such file."""
        try:
            return (self.root / os.path.expanduser(name)).stat().st_size
        except (OSError, ValueError):  # ValueError: a null byte in the name
            return None

    def fingerprints(self, names: list[str]) -> dict[str, str]:
        return {name: manifest.file_fingerprint(self.root / name) for name in names}


@dataclass(frozen=True, slots=True)
class Hub:
    """A hub dataset. Rows and single images are read in pieces, without downloads; zips with images
    are downloaded once, into the hub client's cache. Every method may raise HubUnavailable."""

    repository: str
    revision: str | None = None

    @property
    def root(self) -> str:  # path in the hub's file system
        return f"datasets/{self.repository}{f'@{self.revision}' if self.revision else ''}"

    def request(self) -> AbstractContextManager[None]:
        return hub_request(
            f"data.path={self.repository}: this dataset cannot be read from the hub",
            "Without network, copy the dataset here and name its folder: data.path=FOLDER",
        )

    def names(self) -> list[str]:
        return list(hub_files(self))

    def open(self, name: str) -> IO[bytes]:
        with self.request():
            file: Any = HfFileSystem().open(f"{self.root}/{name}", "rb")
        # fsspec's readline has no size limit, so a file without line breaks would fill memory.
        return io.BufferedReader(file, 1 << 20)

    def open_archive(self, name: str) -> IO[bytes]:
        """Open a zip after downloading it: reading thousands of members in pieces takes longer."""
        with self.request():
            return Path(
                HfApi().hf_hub_download(
                    self.repository, name, repo_type="dataset", revision=self.revision
                )
            ).open("rb")

    def has_file(self, name: str) -> bool:
        return name in hub_files(self)

    def read_image(self, name: str) -> bytes:
        """An image file's bytes. Raises ImageError if the dataset has no such file."""
        if not self.has_file(name):
            raise _missing_file_error(name, self.root)
        with self.open(name) as file:
            content = file.read(MAX_FILE_BYTES + 1)
        _require_size(len(content), name)
        return content

    def fingerprints(self, names: list[str]) -> dict[str, str]:
        """{repository: commit}. Requests the commit from the hub unless `revision` is a commit."""
        commit = self.revision
        if commit is None or len(commit) != 40:  # a full commit hash has 40 digits
            with self.request():
                info = HfApi().dataset_info(self.repository, revision=commit, timeout=20)
            commit = str(info.sha)
        return {self.repository: commit}


Storage = Folder | Hub


@cache
def hub_files(hub: Hub) -> dict[str, None]:
    """The sorted file names of a hub dataset, as an ordered set; requested only once."""
    with hub.request():
        paths: Any = HfFileSystem().find(hub.root)
    return dict.fromkeys(sorted(str(path).removeprefix(f"{hub.root}/") for path in paths))


def storage_of(config: DataConfig) -> Storage:
    """The hub dataset or folder of data.path; if that is a file, the folder of the file."""
    assert config.path is not None, "DataConfig.check requires a path"
    if config.on_hub:
        return Hub(config.path, config.revision)
    path = Path(config.path).expanduser()
    return Folder(path if path.is_dir() else path.parent)


def split_of(name: str) -> str | None:
    """The split in a file's folders or in the first word of its name, or None."""
    path = PurePosixPath(name)
    words = [*path.parts[:-1], path.name.replace("-", "_").replace(".", "_").split("_")[0]]
    return next((word for word in words if word in SPLITS), None)


def resolve_reference(reference: Any) -> bytes | str:
    """The bytes of an image that is stored in its row, else the path of its file.

    A reference is a path, a file: or data: URI, base64, bytes, {"bytes", "path"} or a PIL image.
    Raises ImageError.
    """
    if isinstance(reference, Image.Image):
        is_png_mode = reference.mode in PNG_MODES
        return to_png(reference if is_png_mode else reference.convert("RGB"))
    if isinstance(reference, dict):
        inline = reference.get("bytes")
        if isinstance(inline, str):
            return _decode_base64(inline.removeprefix("data:").rpartition("base64,")[2])
        reference = inline if isinstance(inline, bytes) else reference.get("path")
    if isinstance(reference, bytes):
        return reference
    if not isinstance(reference, str) or not reference:
        raise ImageError('no image: an entry must be a path, a data: URI or {"bytes", "path"}')
    if reference.startswith("data:"):
        head, comma, body = reference.partition(",")
        if not comma or not head.endswith(";base64"):
            raise ImageError("broken image: a data: URI must be data:image/...;base64,...")
        return _decode_base64(body)
    if reference.startswith(("http://", "https://")):
        raise ImageError(f"missing file: images are not downloaded: {_shorten(reference)}")
    if is_base64_image(reference):
        return _decode_base64(reference)
    if reference.startswith("file://"):
        return unquote(reference.removeprefix("file://"))
    return reference


def is_base64_image(text: str) -> bool:
    """Whether a text is an image file in base64 and not a path."""
    # 20 slashes in a row mean a path. In base64 they would be 15 bytes 0xFF, which images lack.
    starts_as_image = len(text) >= MIN_BASE64 and text.startswith(BASE64_STARTS)
    return starts_as_image and "/" * 20 not in text and bool(BASE64.fullmatch(text))


def _decode_base64(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError as error:
        raise ImageError(f"broken image: not base64 ({error})") from error


def read_by_tail(storage: Storage, name: str) -> bytes:
    """The image whose path ends like `name`, a path on another machine; the best match if several.

    Zips are searched last. Raises ImageError, or EmptyDatasetError for a damaged zip.
    """
    parts = PurePosixPath(name).parts
    tails = [parts[start:] for start in range(len(parts))]  # the whole path first
    for tail in tails:
        path = "/".join(tail)
        if not path.startswith("/") and ".." not in tail and storage.has_file(path):
            return storage.read_image(path)
    members = _zip_members(storage).get(parts[-1], []) if parts else []
    if not members:
        raise _missing_file_error(name, f"{storage.root} and its zips")
    matches = ((tail, pair) for tail in tails for pair in members)  # pair: archive, member
    archive, member = next(
        pair for tail, pair in matches if PurePosixPath(pair[1]).parts[-len(tail) :] == tail
    )
    _require_size(archive.getinfo(member).file_size, name)
    try:
        return archive.read(member)
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError) as error:
        raise ImageError(f"broken image: {_shorten(member)} inside a zip ({error})") from error


@lru_cache(maxsize=2)
def _zip_members(storage: Storage) -> dict[str, list[tuple[zipfile.ZipFile, str]]]:
    """File name -> its (archive, member) pairs in the storage's zips, which stay open."""
    members = defaultdict[str, list[tuple[zipfile.ZipFile, str]]](list)
    for name in [name for name in storage.names() if name.endswith(".zip")]:
        try:
            archive = zipfile.ZipFile(storage.open_archive(name))
        except zipfile.BadZipFile as error:
            message = f"{name} is not a readable zip ({error}); download it again"
            raise EmptyDatasetError(message) from error
        for member in archive.namelist():
            members[PurePosixPath(member).name].append((archive, member))
    return members


def read_below(folder: str, storage: Storage, name: str) -> bytes:
    """Image FOLDER/NAME, maybe in a tar. Raises ImageError, or EmptyDatasetError for a bad tar."""
    relative = _strip_root(name).removeprefix(f"{folder}/")
    for path in (f"{folder}/{relative}", relative):
        if storage.has_file(path):
            return storage.read_image(path)
    if isinstance(storage, Folder):
        database, tars = _tar_index(storage)
        query = "SELECT tar, start, size FROM file WHERE name = ?"
        if row := database.execute(query, (f"{folder}/{relative}",)).fetchone():
            tar, start, size = row
            _require_size(size, relative)
            tars[tar].seek(start)
            return tars[tar].read(size)
    elif tars := [path for path in storage.names() if path.endswith(".tar")]:
        raise ImageError(
            f"missing file: {_shorten(relative)} is in {tars[0]}, which can only be read from "
            "a local copy; download the dataset and set data.path=FOLDER"
        )
    raise _missing_file_error(relative, f"{storage.root}/{folder} and its tar")


@lru_cache(maxsize=2)
def _tar_index(folder: Folder) -> tuple[sqlite3.Connection, list[IO[bytes]]]:
    """A database of the files in a folder's tars (name, tar, start, size), and the open tars.

    Each tar's headers are read once. The database is on disk, because a tar may have hundreds of
    thousands of images.
    """
    database, tars = sqlite3.connect(""), list[IO[bytes]]()  # a temporary file, deleted when closed
    database.execute("CREATE TABLE file (name PRIMARY KEY, tar, start, size) WITHOUT ROWID")
    for name in [name for name in folder.names() if name.endswith(".tar")]:
        tars.append(folder.open(name))
        try:
            with tarfile.open(fileobj=tars[-1], mode="r:") as archive:
                for member in archive:
                    # Otherwise tarfile keeps every header in memory. Its type stub lacks `members`.
                    archive.members = []  # pyright: ignore[reportAttributeAccessIssue]
                    if member.isreg() and not member.issparse():
                        name_in_tar, start = _strip_root(member.name), member.offset_data
                        row = (name_in_tar, len(tars) - 1, start, member.size)
                        database.execute("INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?)", row)
        except tarfile.TarError as error:
            message = f"{name} is not a readable tar ({error}); download it again"
            raise EmptyDatasetError(message) from error
    return database, tars


def _strip_root(name: str) -> str:
    """A path without leading ./ and /."""
    return str(PurePosixPath("/", name)).lstrip("/")


def _require_size(num_bytes: int, name: str) -> None:
    if num_bytes > MAX_FILE_BYTES:
        raise ImageError(f"image too large: {_shorten(name)} is over {MAX_FILE_BYTES >> 20} MiB")


def _missing_file_error(name: str, searched: Any) -> ImageError:
    return ImageError(f"missing file: {_shorten(name)} (looked in {searched})")


def _shorten(name: str) -> str:
    return name if len(name) <= 120 else f"{name[:117]}..."
