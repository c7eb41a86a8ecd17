"""Tar shards: where each image lies, and reading one without unpacking. python -m training.data.shards FOLDER writes the indices.

An index beside a shard (core-000.tar -> core-000.tar.index.npy) spares a walk over all headers, and is memory-mapped: it costs no
memory until it is asked. It knows the size and the time of the tar that it was made of, and counts for that tar alone.
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

# of an index; before, the first row was a range, and members that are no images were counted
_FORMAT = 2
_HEAD = 2  # rows before the ranges: (format, images), (size, mtime in ns) of the tar
_ROW = 16  # bytes


@dataclass(frozen=True)
class Place:
    """Where a tile's bytes lie: a file, and the range in it (size -1: the whole file)."""

    file: Path
    offset: int = 0
    size: int = -1


def index_path(shard: Path) -> Path:
    """The file that holds a shard's index."""
    return shard.with_name(f"{shard.name}.index.npy")


def ranges_of(shard: Path) -> np.ndarray:
    """Where the images of a shard lie.

    Args:
        shard: A tar.

    Returns:
        int64 [images, 2], offset and size, in tar order: from the index beside the shard,
        memory-mapped, or from the tar's headers where there is no index or it is of another tar.

    Raises:
        FileNotFoundError: There is no such shard.
    """
    status = shard.stat()
    return _ranges(shard, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _ranges(shard: Path, size: int, changed: int) -> np.ndarray:
    """size, changed: of the tar, so that one that was replaced is read anew."""
    if indexed(shard) is None:
        return members_of(shard).ranges
    index: np.ndarray = np.load(index_path(shard), mmap_mode="r", allow_pickle=False)
    return index[_HEAD:]


def indexed(shard: Path) -> int | None:
    """How many images a shard has by its index; None where it has none that counts.

    Raises FileNotFoundError.
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
        "%s is damaged, or of another tar than %s is now: not used. Write it anew: python -m"
        " training.data.shards %s",
        file.name,
        shard,
        shard.parent,
    )
    return None


def index_start(shard: Path, images: int) -> bytes:
    """The bytes before the ranges in the index of a shard with so many images.

    They are compared, not parsed: a map of an index costs three times as much, and NumPy reads
    headers as Python.

    Raises:
        FileNotFoundError: There is no such shard.
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
            f"shard {shard} changed while its index was made: try again when it is whole"
        )
    if found.damage:
        raise ConfigError(f"shard {shard} {found.damage}: no index is written of it")
    with whole_file(index_path(shard)) as temporary:
        temporary.write_bytes(start + found.ranges.astype("<i8").tobytes())
    return index_path(shard)


def read(place: Place) -> bytes:
    """The bytes of a tile. Raises ImageError when the file ends before they do."""
    if place.size < 0:
        return place.file.read_bytes()
    data = _FILES.read(place)
    if len(data) < place.size:
        raise ImageError(
            f"{place.file} is cut short: {len(data)} of {place.size} bytes at {place.offset}"
        )
    return data


class _OpenFiles:
    """The shards read last, one handle each, shared by the decoding threads."""

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
            return file.read(min(place.size, end - file.tell()))  # memory for no more than there is

    def close(self) -> None:
        with self._lock:
            while self._files:
                self._files.popitem()[1].close()

    def forget(self) -> None:
        """In a forked process: handles of its own from here on, for the position in an inherited one is the parent's too."""
        self._lock, self._files = threading.Lock(), OrderedDict()


_FILES = _OpenFiles(most=64)
atexit.register(_FILES.close)
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_FILES.forget)


def close_files() -> None:
    """Close all shards: one that was replaced since would still be read as it was."""
    _FILES.close()


def main(arguments: list[str]) -> int:
    """Write the indices of a folder's shards.

    Exit status 0, 1 without any shard, 2 for wrong usage, 3 with damaged ones.
    """
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print(__doc__)
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
