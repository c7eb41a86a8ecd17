"""The identity of tiles beyond their names: sizes, and samples of their bytes."""

from __future__ import annotations

import contextlib
import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path

from pathencoder.errors import ImageError
from training.data import open_files
from training.data.open_files import Place

_SAMPLED = 10_000  # tiles whose bytes are read, evenly spread over the corpus
_HEAD = 1 << 16  # bytes that are read of each


def content_of(keys: Sequence[str], places: Sequence[Place]) -> str:
    """The identity of tiles, the same for a copy of them.

    Another size of any tile changes it. Tiles of equal size are distinguished by their first 64 kB,
    of up to 10,000 tiles.

    Args:
        keys: Their names.
        places: Where they are: local files.

    Returns:
        A sha256.
    """
    every = -(-len(keys) // _SAMPLED)
    seen = hashlib.sha256()
    for i, (key, place) in enumerate(zip(keys, places, strict=True)):
        size = _size(place)
        mark = _head(place, size) if i % every == 0 else 0
        seen.update(f"{key} {size} {mark}\n".encode())
    return seen.hexdigest()


def _size(place: Place) -> int:
    with contextlib.suppress(OSError):
        return place.size if place.size >= 0 else Path(place.file).stat().st_size
    return -1


def _head(place: Place, size: int) -> int:
    """CRC of the first bytes; -1 where they cannot be read."""
    try:
        if place.size >= 0:
            return zlib.crc32(open_files.read(Place(place.file, place.offset, min(size, _HEAD))))
        with Path(place.file).open("rb") as file:
            return zlib.crc32(file.read(_HEAD))
    except (OSError, ImageError):
        return -1
