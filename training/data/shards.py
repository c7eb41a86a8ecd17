"""The index of a tar shard: the position of each image, to read one without unpacking.

Write the indices of a folder's shards: python -m training.data.shards FOLDER

The index beside a shard (core-000.tar -> core-000.tar.index.npy) replaces a scan of all headers. It
is valid only for a tar of the size and modification time that it records.
"""

from __future__ import annotations

import io
import logging
import sys
from pathlib import Path

import numpy as np

from pathencoder.errors import ConfigError
from pathencoder.files import whole_file
from pathencoder.walk import walk
from training.data.tar import members_of

log = logging.getLogger(__name__)

# Version of the index. In version 1 the first row was a range, and other files were counted too.
_FORMAT = 2
_HEAD = 2  # rows before the ranges: (format, images), (size, mtime in ns) of the tar
_ROW = 16  # bytes
INDEX_SUFFIX = ".index.npy"


def index_path(shard: Path) -> Path:
    """The file that holds a shard's index."""
    return shard.with_name(f"{shard.name}{INDEX_SUFFIX}")


def ranges_of(shard: Path) -> np.ndarray:
    """The ranges of the images in a shard.

    Args:
        shard: A tar.

    Returns:
        int64 [images, 2], offset and size, in tar order, read from the index beside the shard, or
        from the headers where there is no valid index.

    Raises:
        FileNotFoundError: The shard does not exist.
    """
    images = indexed(shard)
    return members_of(shard).ranges if images is None else ranges_in_index(shard, images)


def ranges_in_index(shard: Path, images: int) -> np.ndarray:
    """The ranges in the index beside a shard, which `indexed` has found valid."""
    found = np.fromfile(
        index_path(shard), "<i8", offset=len(index_start(shard, images)), count=2 * images
    )
    return found.reshape(-1, 2)


def ranges_of_copy(index: bytes, size: int) -> np.ndarray | None:
    """The ranges in the index of a shard that was copied: its time is another.

    Args:
        index: The bytes of the index.
        size: Of the shard.

    Returns:
        int64 [images, 2]; None where it is damaged, or of a shard of another size.
    """
    images = max(0, (len(index) - len(_start(0, 0, 0))) // _ROW)
    ranges_at = len(_start(images, 0, 0))
    if len(index) != ranges_at + _ROW * images:
        return None
    changed = int(np.frombuffer(index, "<i8", 1, ranges_at - 8)[0])
    if index[:ranges_at] != _start(images, size, changed):
        return None
    return np.frombuffer(index, "<i8", offset=ranges_at).reshape(-1, 2)


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
    status = shard.stat()
    return _start(images, status.st_size, status.st_mtime_ns)


def _start(images: int, size: int, changed: int) -> bytes:
    head = np.array([[_FORMAT, images], [size, changed]], dtype="<i8")
    return _array_header(images) + head.tobytes()


def _array_header(images: int) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        out, {"descr": "<i8", "fortran_order": False, "shape": (_HEAD + images, 2)}
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
