"""Where a source's files lie: a local folder, or a dataset on the hub that is read over the wire.

Both give names, open files and picture bytes, so that nothing else asks which of them it is.
Not here: what the files hold (containers.py).
"""

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any, TypeVar

import httpx
from huggingface_hub import HfApi, HfFileSystem

from difftrain import images
from difftrain.config.data import DataConfig
from difftrain.data.quarantine import EmptyDatasetError
from difftrain.images import ImageError
from difftrain.pipeline import manifest

COMMIT_DIGITS = 40
PIECE = 1 << 20
"""Bytes of a hub file that are held."""
T = TypeVar("T")


class Unreachable(EmptyDatasetError):
    """The hub did not answer, or not with this dataset; the message names the alternative."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A local folder, or one file of it."""

    root: Path
    only: str | None = None

    def names(self) -> list[str]:
        """Files below the folder, hidden ones left out, as relative names in order."""
        if self.only:
            return [self.only]
        found = []
        for folder, inner, files in os.walk(self.root):
            inner[:] = [name for name in inner if not name.startswith(".")]
            below = Path(folder).relative_to(self.root)
            found += [(below / name).as_posix() for name in files if not name.startswith(".")]
        return sorted(found)

    def open(self, name: str) -> IO[bytes]:
        """A file to read from. Raises OSError."""
        return (self.root / name).open("rb")

    def picture(self, name: str) -> bytes:
        """A picture file's bytes; absolute names and ~ are allowed. Raises ImageError."""
        try:
            path = self.root / Path(name).expanduser()
            if not path.is_file():
                raise ImageError(f"missing file: {shortened(name)} (looked in {self.root})")
            if path.stat().st_size > images.MAX_FILE_BYTES:
                raise too_large(name)
            return path.read_bytes()
        except ImageError:
            raise
        except (OSError, ValueError, RuntimeError) as error:
            # ValueError: a null byte in the name; RuntimeError: a ~user that does not exist.
            raise ImageError(f"missing file: {shortened(name)} cannot be read ({error})") from error

    def holds(self, name: str) -> bool:
        """Whether there is such a file below the folder."""
        return (self.root / name).is_file()

    def size(self, name: str) -> int | None:
        """A picture file's bytes in number, or None where there is no such file."""
        try:
            return (self.root / Path(name).expanduser()).stat().st_size
        except (OSError, ValueError, RuntimeError):
            return None

    def identity(self, names: list[str]) -> dict[str, str]:
        """Fingerprints of these files' contents."""
        return {name: manifest.file_fingerprint(self.root / name) for name in names}


@dataclass(frozen=True, slots=True)
class Hub:
    """A dataset on the hub at one revision; files are read in pieces, never downloaded whole."""

    repository: str
    revision: str | None = None

    @property
    def root(self) -> str:
        """The dataset's folder in the hub's file system."""
        at = f"@{self.revision}" if self.revision else ""
        return f"datasets/{self.repository}{at}"

    def asked(self, question: Callable[[], T]) -> T:
        """The hub's answer. Raises Unreachable."""
        try:
            return question()
        except (OSError, ValueError, httpx.HTTPError) as error:
            raise Unreachable(
                f"data.path={self.repository}: the hub did not give it "
                f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else '-'}). "
                "Without network, copy the dataset here and name its folder: data.path=FOLDER"
            ) from error

    def names(self) -> list[str]:
        """Files of the dataset, as relative names in order. Raises Unreachable."""
        return list(listed(self))

    def open(self, name: str) -> IO[bytes]:
        """A file to read from, in pieces. Raises Unreachable."""
        opened: Any = self.asked(lambda: HfFileSystem().open(f"{self.root}/{name}", "rb"))
        # fsspec's own readline takes no limit, which a file of one endless line would need.
        return io.BufferedReader(opened, PIECE)

    def picture(self, name: str) -> bytes:
        """A picture file's bytes. Raises ImageError where the dataset has none of that name."""
        if not self.holds(name):
            raise ImageError(f"missing file: {shortened(name)} (looked in {self.root})")
        with self.open(name) as file:
            content = file.read(images.MAX_FILE_BYTES + 1)
        if len(content) > images.MAX_FILE_BYTES:
            raise too_large(name)
        return content

    def holds(self, name: str) -> bool:
        """Whether the dataset has such a file."""
        return name in listed(self)

    def size(self, name: str) -> int | None:
        """Unknown: a revision names the contents."""
        return None

    def identity(self, names: list[str]) -> dict[str, str]:
        """The commit that is read. Raises Unreachable, but not for a revision that is a commit."""
        if self.revision and len(self.revision) == COMMIT_DIGITS:
            return {self.repository: self.revision}
        found = self.asked(
            lambda: HfApi().dataset_info(self.repository, revision=self.revision, timeout=20).sha
        )
        return {self.repository: str(found)}


Store = Folder | Hub


def of(config: DataConfig) -> Store:
    """Where the settings' path points to."""
    assert config.path is not None, "DataConfig.check asks for a path"
    if config.on_hub:
        return Hub(config.path, config.revision)
    path = Path(config.path).expanduser()
    return Folder(path) if path.is_dir() else Folder(path.parent, path.name)


@cache
def listed(hub: Hub) -> dict[str, None]:
    """The names of a hub dataset's files, in order; asked for once."""
    found: Any = hub.asked(lambda: HfFileSystem().find(hub.root))
    return dict.fromkeys(sorted(str(name).removeprefix(f"{hub.root}/") for name in found))


def too_large(name: str) -> ImageError:
    """The refusal of a file that no image under the pixel cap needs."""
    return ImageError(
        f"image too large: {shortened(name)} is over {images.MAX_FILE_BYTES >> 20} MiB"
    )


def shortened(name: str) -> str:
    """A name that fits in one line of a report."""
    return name if len(name) <= 120 else f"{name[:117]}..."
