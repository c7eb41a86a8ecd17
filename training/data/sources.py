"""Where the files of a corpus are."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from pathencoder.errors import ImageError
from pathencoder.walk import walk
from training.data import open_files
from training.data.open_files import Place
from training.data.shards import indexed, ranges_in_index
from training.data.tar import Members, members_of

_CACHE = "PATHENCODER_CACHE"


@dataclass(frozen=True)
class State:
    """What tells one version of a file from another.

    Attributes:
        size: Bytes.
        version: The modification time in ns, or a number made from an object store's ETag.
    """

    size: int
    version: int


class Source(Protocol):
    """The files of a corpus, by their names relative to its root."""

    @property
    def remote(self) -> bool:
        """Whether places are better fetched many at a time."""

    @property
    def shared(self) -> bool:
        """Whether what a process has fetched is near for the others of its machine."""

    def place(self, name: str) -> Path | str:
        """The file of a name, for `Place` and for messages; the root for ""."""

    def states(self, names: Sequence[str]) -> list[State | None]:
        """The state of each file; None where there is none."""

    def shards(self) -> list[str]:
        """All tars, in natural order."""

    def ranges(self, name: str) -> np.ndarray | None:
        """int64 [images, 2] of a shard by the index beside it; None without a valid one."""

    def members(self, name: str) -> Members:
        """The images of a shard by its headers."""

    def read(self, places: Sequence[Place]) -> list[bytes]:
        """The bytes of several places.

        Raises:
            ImageError: A file ends before them.
            OSError: A file cannot be read.
        """

    def fetch(self, places: Sequence[Place]) -> list[bytes | ImageError]:
        """The same, with the error of a place instead of its bytes."""

    def table(self, name: str) -> Path | None:
        """A local file with a table of the root; None where there is none."""

    def index_files(self) -> list[Path]:
        """Where the index of all shards may be kept, the best place first."""


@dataclass(frozen=True)
class Folder:
    """The files of a folder.

    Attributes:
        root: The folder.
    """

    root: Path
    remote: ClassVar[bool] = False
    shared: ClassVar[bool] = True

    def place(self, name: str) -> Path:
        """The path of a file."""
        return self.root / name

    def states(self, names: Sequence[str]) -> list[State | None]:
        """Size and modification time of each file; None where there is none."""
        return [_state(self.root / name) for name in names]

    def shards(self) -> list[str]:
        """All tars in the folder and those below it, in natural order."""
        files = (file for file in walk(self.root).files if file.suffix == ".tar")
        return [file.relative_to(self.root).as_posix() for file in files]

    def ranges(self, name: str) -> np.ndarray | None:
        """The ranges of a shard's images by the index beside it; None without a valid one."""
        images = indexed(self.root / name)
        return None if images is None else ranges_in_index(self.root / name, images)

    def members(self, name: str) -> Members:
        """The images of a shard by its headers."""
        return members_of(self.root / name)

    def read(self, places: Sequence[Place]) -> list[bytes]:
        """The bytes of several places."""
        return [open_files.read(place) for place in places]

    def fetch(self, places: Sequence[Place]) -> list[bytes | ImageError]:
        """The bytes of several places, or the error of each."""
        return [self._one(place) for place in places]

    def _one(self, place: Place) -> bytes | ImageError:
        try:
            return open_files.read(place)
        except ImageError as error:
            return error
        except OSError as error:
            return ImageError(f"{place.file} cannot be read: {error.strerror or error}")

    def table(self, name: str) -> Path | None:
        """The path of a table; None where there is none."""
        file = self.root / name
        return file if file.exists() else None

    def index_files(self) -> list[Path]:
        """Beside the shards; in the user's cache where that is read-only."""
        return [self.root / ".shards.index", cache_folder() / index_name(str(self.root.resolve()))]


def cache_folder() -> Path:
    """The folder for what can be made again: PATHENCODER_CACHE, or in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get(_CACHE) or Path(base) / "pathencoder")


def index_name(root: str) -> str:
    """The name of the index of a corpus in the cache."""
    return f"{hashlib.sha256(root.encode('utf-8', 'surrogateescape')).hexdigest()[:24]}.index"


def _state(file: Path) -> State | None:
    with contextlib.suppress(OSError, ValueError):  # also names that no file system allows
        status = os.stat(file)
        if not stat.S_ISDIR(status.st_mode):
            return State(status.st_size, status.st_mtime_ns)
    return None
