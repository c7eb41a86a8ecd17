"""Images to rows for heads: each content is embedded once, and its row kept in the cache."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from pathencoder import cores
from pathencoder.arrays import Pixels
from pathencoder.errors import ImageError
from pathencoder.features.identity import hash_file
from pathencoder.features.tiles import read_hashed
from pathencoder.images import ImageSource, Item, open_image
from pathencoder.stream import Found, Progress, watched

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder
    from pathencoder.heads.cache import FeatureCache
    from pathencoder.heads.encoder_record import EncoderRecord

_WRITTEN_AT_ONCE = 1024  # rows, so that an interrupted run has kept most of its work


@dataclass(frozen=True)
class Embedded:
    """The rows of images.

    Attributes:
        rows: float32 [N, D]; NaN where an image cannot be read.
        contents: 16 bytes each: the hash of a file, or of the pixels of an image in memory; empty
            where it cannot be read.
        errors: Why an image cannot be read, by its number.
        new: How many images went through the network.
    """

    rows: NDArray[np.float32]
    contents: list[bytes]
    errors: dict[int, ImageError]
    new: int


def embed(
    encoder: Encoder,
    record: EncoderRecord,
    images: Sequence[ImageSource],
    names: Sequence[str],
    *,
    cache: FeatureCache | None,
    progress: Progress = "auto",
) -> Embedded:
    """Embed images; rows that the cache holds are read from it.

    Args:
        encoder: The encoder.
        record: How it is read.
        images: Paths, or images in memory.
        names: What errors call each.
        cache: Where rows are kept. None: nowhere.
        progress: As for `Encoder.encode`.

    Returns:
        The rows, in order.
    """
    contents = contents_of(images)
    known = {} if cache is None else cache.read(record, contents)
    first: dict[bytes, int] = {}
    for number, content in enumerate(contents):
        if content not in known:
            # without a hash an image cannot be read, or not be distinguished from others
            first.setdefault(content or b"%d" % number, number)
    wanted = sorted(first.values())
    items = [
        Item(i, names[i], functools.partial(_load, images[i], names[i], contents[i]))
        for i in wanted
    ]
    found, errors = _encode(encoder, record, items, contents, cache=cache, progress=progress)
    known |= {contents[i]: row for i, row in found.items() if contents[i]}
    rows = np.full((len(images), record.dim), np.nan, np.float32)
    for number, content in enumerate(contents):
        row = known.get(content, found.get(number))
        if row is not None:
            rows[number] = row
        elif number not in errors:  # a copy of one that cannot be read
            errors[number] = _of_copy(errors[first[content]], names, first[content], number)
    return Embedded(rows, contents, errors, len(found))


def _encode(
    encoder: Encoder,
    record: EncoderRecord,
    items: Sequence[Item],
    contents: Sequence[bytes],
    *,
    cache: FeatureCache | None,
    progress: Progress,
) -> tuple[dict[int, NDArray[np.float32]], dict[int, ImageError]]:
    """Rows and errors by the items' numbers; rows are written to the cache from time to time."""
    rows: dict[int, NDArray[np.float32]] = {}
    errors: dict[int, ImageError] = {}
    unwritten: list[int] = []
    if not items:
        return rows, errors

    def write() -> None:
        if cache is not None and unwritten:
            cache.write(record, [contents[i] for i in unwritten], [rows[i] for i in unwritten])
        unwritten.clear()

    found = cast(
        Found, encoder.results(list(items), mpp=record.image_mpp, settings=record.settings())
    )
    try:
        for item, result in zip(items, watched(found, len(items), progress), strict=True):
            number = int(item.key)
            if result.error is not None:
                errors[number] = result.error
                continue
            rows[number] = result.row.copy()
            if contents[number]:
                unwritten.append(number)
            if len(unwritten) >= _WRITTEN_AT_ONCE:
                write()
    finally:
        write()
    return rows, errors


def _load(image: ImageSource, name: str, content: bytes) -> Pixels:
    """Decode one image; a file that is no longer the one that was hashed is refused."""
    if not isinstance(image, str | os.PathLike):
        return open_image(image, name)
    pixels, now = read_hashed(Path(image))
    if content and now != content:
        raise ImageError(f"{name}: the file changed while it was read. Run it again")
    return pixels


def contents_of(images: Sequence[ImageSource]) -> list[bytes]:
    """The content hash of each image, 16 bytes; empty where it cannot be read."""
    with ThreadPoolExecutor(min(8, cores.available())) as pool:
        return list(pool.map(_content, images))


def _content(image: ImageSource) -> bytes:
    if isinstance(image, str | os.PathLike):
        return hash_file(Path(image))
    try:
        pixels = open_image(image)
    except ImageError:
        return b""
    digest = hashlib.blake2b(f"{pixels.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def _of_copy(error: ImageError, names: Sequence[str], first: int, number: int) -> ImageError:
    """The error of an image that has the content of an earlier one."""
    reason = str(error).removeprefix(f"{names[first]}: ")
    return ImageError(f"{names[number]}: {reason}")
