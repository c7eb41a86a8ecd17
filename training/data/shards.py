"""Tar shards: the position of each image, and reading one without unpacking.

Write the indices of a folder's shards: python -m training.data.shards FOLDER

The index beside a shard (core-000.tar -> core-000.tar.index.npy) replaces a scan of all headers. It
is memory-mapped, and valid only for a tar of the size and modification time that it records.
"""

from __future__ import annotations

import atexit
import functools
import io
import logging
import os
import sys
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pathencoder.errors import ConfigError, ImageError
from pathencoder.files import whole_file
from pathencoder.walk import walk
from training.data.tar import Members, members_of

__all__ = [
    "Members",
    "Place",
    "close_files",
    "index_path",
    "index_start",
    "indexed",
    "members_of",
    "ranges_of",
    "read",
    "write_index",
]

log = logging.getLogger(__name__)

# Version of the index. In version 1 the first row was a range, and other files were counted too.
_FORMAT = 2
_HEAD = 2  # rows before the ranges: (format, images), (size, mtime in ns) of the tar
_ROW = 16  # bytes
_MOST_INDICES = 32_768  # in memory maps, of which Linux allows 65,530 in a process
_MOST_FILES = 4096  # open shards


@dataclass(frozen=True)
class Place:
    """Where the bytes of a tile are: a file and a range in it (size -1: the whole file)."""

    file: Path
    offset: int = 0
    size: int = -1


def index_path(shard: Path) -> Path:
    """The file that holds a shard's index."""
    return shard.with_name(f"{shard.name}.index.npy")


def ranges_of(shard: Path) -> np.ndarray:
    """The ranges of the images in a shard.

    Args:
        shard: A tar.

    Returns:
        int64 [images, 2], offset and size, in tar order: memory-mapped from the index beside the
        shard, or read from the headers where there is no valid index.

    Raises:
        FileNotFoundError: The shard does not exist.
    """
    status = shard.stat()
    return _ranges(shard, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=_MOST_INDICES)
def _ranges(shard: Path, size: int, changed: int) -> np.ndarray:
    """Cached by size and modification time, so that a replaced tar is read again."""
    if indexed(shard) is None:
        return members_of(shard).ranges
    index: np.ndarray = np.load(index_path(shard), mmap_mode="r", allow_pickle=False)
    return index[_HEAD:]


def indexed(shard: Path) -> int | None:
    """How many images a shard has by its index; None without a valid index.

    Raises:
        FileNotFoundError: The shard does not exist.
    """
    file = index_path(shard)
    if not file.is_file():
        return None
    size = file.stat().st_size
    images = max(0, (size - len(index_start(shard, 0))) // _ROW)
    start = index_start(shard, images)
    with file.open("rb") as stream:
        if size == len(start) + _ROW * images and stream.read(len(start)) == start:
            return images
    log.warning(
        "%s is damaged, or of another tar than %s is now, and is not used. Write it again: python"
        " -m training.data.shards %s",
        file.name,
        shard,
        shard.parent,
    )
    return None


def index_start(shard: Path, images: int) -> bytes:
    """The first bytes of the index of a shard with this number of images, before the ranges.

    They are compared, not parsed: mapping an index takes three times as long, and NumPy evaluates
    headers as Python literals.

    Raises:
        FileNotFoundError: The shard does not exist.
    """
    status, out = shard.stat(), io.BytesIO()
    np.lib.format.write_array_header_1_0(
        out, {"descr": "<i8", "fortran_order": False, "shape": (_HEAD + images, 2)}
    )
    out.write(
        np.array([[_FORMAT, images], [status.st_size, status.st_mtime_ns]], dtype="<i8").tobytes()
    )
    return out.getvalue()


def write_index(shard: Path) -> Path:
    """Write the index of a shard beside it.

    Raises:
        ConfigError: The shard is damaged: its index would hide that.
        StoreError: The index cannot be written.
    """
    before = shard.stat()
    found = members_of(shard)
    start = index_start(shard, len(found.names))
    if shard.stat().st_mtime_ns != before.st_mtime_ns:
        raise ConfigError(
            f"shard {shard} changed while its index was made: try again when it is complete"
        )
    if found.damage:
        raise ConfigError(f"shard {shard} {found.damage}: no index is written for it")
    with whole_file(index_path(shard)) as temporary:
        temporary.write_bytes(start + found.ranges.astype("<i8").tobytes())
    return index_path(shard)


def read(place: Place) -> bytes:
    """The bytes of a tile.

    Raises:
        ImageError: The file ends before they do.
    """
    if place.size < 0:
        return place.file.read_bytes()
    data = _FILES.read(place)
    if len(data) < place.size:
        raise ImageError(
            f"{place.file} is cut short: {len(data)} of {place.size} bytes at {place.offset}"
        )
    return data


class _OpenFiles:
    """The most recently read shards, one handle each, shared by the decoding threads."""

    def __init__(self, most: int) -> None:
        self._most, self._lock = most, threading.Lock()
        self._files: OrderedDict[Path, BinaryIO] = OrderedDict()

    def read(self, place: Place) -> bytes:
        with self._lock:
            file = self._files.pop(place.file, None) or place.file.open("rb")
            self._files[place.file] = file
            if len(self._files) > self._most:
                self._files.popitem(last=False)[1].close()
            end = os.fstat(file.fileno()).st_size
            file.seek(min(place.offset, end))
            # a damaged index may state any size: allocate no more than the file holds
            return file.read(min(place.size, end - file.tell()))

    def close(self) -> None:
        with self._lock:
            while self._files:
                self._files.popitem()[1].close()

    def forget(self) -> None:
        """Drop the handles in a forked process: their positions are shared with the parent."""
        self._lock, self._files = threading.Lock(), OrderedDict()


def _most_open() -> int:
    """How many shards stay open: a quarter of the open files that this process may have."""
    if sys.platform == "win32":
        return 64
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_FILES if limit < 0 else max(64, min(limit // 4, _MOST_FILES))


_FILES = _OpenFiles(most=_most_open())
atexit.register(_FILES.close)
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_FILES.forget)


def close_files() -> None:
    """Close all shards, so that a replaced file is read, not the old one."""
    _FILES.close()


def main(arguments: list[str]) -> int:
    """Write the indices of a folder's shards.

    Returns:
        Exit status: 0; 1 without any shard, 2 for wrong usage, 3 with damaged shards.
    """
    if arguments in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print(__doc__, file=sys.stderr)
        return 2
    shards = [file for file in walk(arguments[0]).files if file.suffix == ".tar"]
    if not shards:
        print(f"no .tar below {arguments[0]}")
        return 1
    status = 0
    for shard in shards:
        try:
            write_index(shard)
        except ConfigError as error:
            print(error)
            status = 3
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
